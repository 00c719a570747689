"""One protocol declares what designs may call: arguments are judged by it, and a new tool is one method there."""

import asyncio
import inspect
from typing import Any, Protocol

import pytest

import memory_base
from errors import DesignError
from evaluate import DesignTools
from jail import frames
from jail.frames import Limits
from sandbox import Sandbox
from tests.test_sandbox import LINUX, SHORT, Tools, design, trajectories

pytestmark = pytest.mark.skipif(not LINUX, reason="the sandbox's layers are those of Linux on x86-64")


class MoreTools(memory_base.Tools, Protocol):
    async def add(self, numbers: list[float], scale: int | None) -> dict[str, Any]:
        """A tool of one's own."""


class Adds(Tools):
    async def add(self, numbers, scale):
        await asyncio.sleep(0)
        return {"sum": sum(numbers) * (scale or 1)}


def retrieved(body: str, tools, forks: bool = False):
    async def go():
        async with Sandbox(trajectories(1), limits=SHORT) as box, box.worker(body, tools, forks=forks) as worker:
            if not forks:
                return await worker.retrieve({})
            async with worker.fork(tools) as fork:
                return await fork.retrieve({})

    return asyncio.run(go())


@pytest.mark.parametrize("forks", [False, True])
def test_a_new_tool_is_a_method_of_the_protocol_and_one_of_what_answers(monkeypatch, forks):
    monkeypatch.setattr(memory_base, "Tools", MoreTools)
    source = design(retrieve="return await memory_base._connected().add([1, 2.5], 2)", top="import memory_base")
    assert retrieved(source, Adds(), forks) == {"sum": 7.0}


@pytest.mark.parametrize(("call", "said"), [
    ("add('12', None)", "argument 1 of add must be list"), ("add([1, '2'], None)", "argument 1 of add"),
    ("add([1], 1.5)", "argument 2 of add"), ("add([1], True)", "argument 2"), ("add([1])", "add takes 2 arguments"),
    ("add([0] * 65, None)", "65 items"), ("ask(1, '', None, None)", "argument 1 of ask must be str"),
    ("ask('', 'x' * 400_001, None, None)", "characters in one call of ask"), ("forget()", "no tool forget"),
])
def test_a_wrong_call_is_refused_in_words_for_the_design(monkeypatch, call, said):
    monkeypatch.setattr(memory_base, "Tools", MoreTools)
    source = design(retrieve=f"return await memory_base._connected().{call}", top="import memory_base")
    with pytest.raises(DesignError, match=said) as raised:
        retrieved(source, Adds())
    assert raised.value.status == "error"


@pytest.mark.parametrize("tool", ["close", "mro", "register", "__init__", "_is_protocol", "", 5, None, ["ask"]])
def test_what_the_protocol_does_not_declare_cannot_be_called(tool):
    class Open(Tools):
        async def close(self):
            raise AssertionError("called")

    frame = frames.pack({"op": "call", "id": 1, "tool": tool, "arguments": []}).hex()
    with pytest.raises(DesignError) as raised:
        retrieved(design(retrieve=f"os.write(3, bytes.fromhex('{frame}')); await asyncio.sleep(1)"), Open())
    assert raised.value.status == "protocol"


def test_many_texts_are_embedded_in_several_requests():
    class Counts(Tools):
        sizes: list[int] = []  # noqa: RUF012

        async def embed(self, texts):
            self.sizes.append(len(texts))
            return await super().embed(texts)

    source = design(retrieve="return len(await embed(['x' * 5000] * 150))")
    assert retrieved(source, Counts()) == 150 and sorted(Counts.sizes) == [22, 64, 64]
    assert max(Counts.sizes) <= Limits().items


def test_what_answers_in_a_run_has_every_tool_with_the_declared_arguments():
    for name in frames.tools():
        declared, answers = (inspect.signature(getattr(one, name)) for one in (memory_base.Tools, DesignTools))
        assert list(declared.parameters) == list(answers.parameters)
        assert asyncio.iscoroutinefunction(getattr(DesignTools, name))
