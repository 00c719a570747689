"""The tools of a memory design: vectors, the vector store, agents; and loading a design from a file."""

import asyncio
import json
import re

import pytest

import memory_base
from jail.frames import Limits
from memory_base import Agent, Embedding, MemoryDesign, MemoryLayer, Trajectory, VectorStore


class Models:
    """Answers with what it was asked; a text's vector counts its letters."""

    def __init__(self, answer=None):
        self.answer, self.asked = answer, []

    async def ask(self, system, user, schema, model):
        self.asked.append((system, user, schema, model))
        return f"you said {user}" if self.answer is None else self.answer

    async def embed(self, texts):
        return [[float(text.count(letter)) for letter in "abc"] for text in texts]


@pytest.fixture
def models(monkeypatch):
    monkeypatch.setattr(memory_base, "_connection", [])
    models = Models()
    memory_base.connect(models)
    return models


def test_an_agent_shows_its_history_only_where_it_is_asked_to(models):
    async def talk():
        agent = Agent("Be short.", model="large")
        return [await agent.ask("one"), await agent.ask("two"), await agent.ask("three", with_history=True)]

    assert asyncio.run(talk())[:2] == ["you said one", "you said two"]
    assert models.asked[1] == ("Be short.", "two", None, "large")
    shown = models.asked[2][1]
    assert shown.index("User: one") < shown.index("You: you said one") < shown.index("User: two") < shown.index("three")


@pytest.mark.parametrize("answer", ['{"n": [1]}', '```json\n{"n": [1]}\n```', 'Here it is: {"n": [1]}. Good luck!'])
def test_an_agent_with_a_schema_returns_a_dict(models, answer):
    models.answer = answer
    assert asyncio.run(Agent("", {"n": {"type": "array"}}).ask("x")) == {"n": [1]}
    schema = models.asked[0][2]
    assert schema["type"] == "object" and schema["required"] == ["n"] and schema["properties"] == {"n": {"type": "array"}}


@pytest.mark.parametrize("answer", ["", "no idea", "[1, 2]", "{half", "{'n': 1}"])
def test_an_answer_that_is_no_object_raises(models, answer):
    models.answer = answer
    with pytest.raises(ValueError, match="no JSON object"):
        asyncio.run(Agent("", {"n": {}}).ask("x"))


@pytest.mark.parametrize("schema", [
    {"type": "object", "properties": {"n": {}}}, {"name": "x", "schema": {"type": "object", "properties": {"n": {}}}}])
def test_a_whole_schema_is_passed_on(models, schema):
    models.answer = "{}"
    asyncio.run(Agent("", schema).ask("x"))
    assert models.asked[0][2] == {"type": "object", "properties": {"n": {}}}


@pytest.mark.parametrize("call", [lambda: Agent("").ask(None), lambda: Agent(None).ask("x"), lambda: memory_base.llm({}),
                                  lambda: memory_base.embed("one text"), lambda: memory_base.embed([None])])
def test_what_is_no_text_is_refused_before_anything_is_sent(models, call):
    with pytest.raises(TypeError, match="must be a"):
        asyncio.run(call())
    assert models.asked == []


def test_embeddings_can_be_had_from_synchronous_code_inside_a_running_loop(models):
    async def inside():
        embedding = Embedding()
        assert embedding.embed_query("aab") == await embedding.get_embedding("aab") == [2.0, 1.0, 0.0]
        assert embedding.embed_documents(["a", "c"]) == await embedding.get_batch_embeddings(["a", "c"])
        with pytest.raises(TypeError):
            embedding.embed_query(None)

    asyncio.run(inside())
    assert Embedding().embed_documents([]) == []


def test_similarities_are_cosines_and_zero_for_a_zero_vector():
    assert Embedding.compute_similarity([1, 0], [2, 0]) == pytest.approx(1)
    assert Embedding().compute_one_to_group_similarity([1, 1], [[1, 0], [-1, -1], [0, 0]]) == pytest.approx(
        [2**-0.5, -1, 0])
    assert Embedding.compute_one_to_group_similarity([1, 1], []) == []


def test_the_vector_store_adds_finds_gets_and_deletes(models):
    store = VectorStore(embedding_function=Embedding())
    assert store.similarity_search("a") == []
    ids = store.add_texts(["aaa", "bbb", "aab"], metadatas=[{"n": 1}, {"n": 2}, {"n": 1}], ids=["x", "y", "z"])
    assert ids == ["x", "y", "z"]
    assert [one.page_content for one in store.similarity_search("a", k=2)] == ["aaa", "aab"]
    assert [one.metadata["n"] for one in store.similarity_search("b", k=9, filter={"n": 1})] == [1, 1]
    assert store.get(["y", "none"]) == {"ids": ["y"], "documents": ["bbb"], "metadatas": [{"n": 2}]}
    store.delete(["y", "none"])
    store.add_texts(["ccc"], ids=["x"])
    assert store.get()["documents"] == ["ccc", "aab"]
    (other,) = store.add_texts(["b"])
    assert len(set(other)) > 5 and store.get(other)["documents"] == ["b"]


def test_without_models_the_tools_say_what_to_do(monkeypatch):
    monkeypatch.setattr(memory_base, "_connection", [])
    with pytest.raises(RuntimeError, match="connect"):
        asyncio.run(memory_base.llm("x"))


BODY = """
    async def general_update(self, trajectory): self.reward = trajectory.reward
    async def general_retrieve(self, trajectory): return {"seen": self.reward}
"""


@pytest.mark.parametrize("text", [
    f"from memory_base import *\nclass Mine(MemoryDesign):{BODY}class Layer(MemoryLayer): pass",
    f"from memory_base import MemoryDesign\nclass Base(MemoryDesign):{BODY}class Mine(Base): pass\nclass Other: pass",
    f"class MemoryDesign:{BODY}",
])
def test_a_learned_memory_works_in_ones_own_agent(models, tmp_path, text):
    path = tmp_path / "learned-memory.py"
    path.write_text(text)

    memory = memory_base.load_design(path)()
    asyncio.run(memory.general_update(Trajectory({"obs": "A room."}, [{"action_took": "look"}], 0.5)))
    assert asyncio.run(memory.general_retrieve(Trajectory({"obs": "Another."}))) == {"seen": 0.5}
    assert type(memory).__name__ in {"Mine", "MemoryDesign"}


@pytest.mark.parametrize(("text", "said"), [
    ("x = 1", "no class"), ("from memory_base import MemoryDesign", "no class"),
    ("class Half:\n    async def general_update(self, trajectory): pass", "no class")])
def test_a_file_without_a_design_says_what_is_missing(tmp_path, text, said):
    path = tmp_path / "design.py"
    path.write_text(text)
    with pytest.raises(TypeError, match=said):
        memory_base.load_design(path)


def test_a_design_without_a_method_cannot_be_made():
    class Half(MemoryDesign):
        async def general_update(self, trajectory):
            pass

    with pytest.raises(TypeError, match="general_retrieve"):
        Half()
    with pytest.raises(TypeError, match="update"):
        type("Layer", (MemoryLayer,), {"retrieve": None})()


def test_the_text_for_the_meta_agent_names_the_limits_that_hold():
    text, limits = memory_base.__doc__, Limits()
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[0-9][0-9,]*", text)]
    assert numbers == [limits.cpu_seconds, limits.calls, limits.prompt_chars, limits.memory_bytes >> 20,
                       limits.threads, limits.retrieved_chars]


def test_a_trajectory_is_made_of_json_values():
    text = json.dumps(vars(Trajectory({"obs": "x"})))
    assert Trajectory(**json.loads(text)) == Trajectory({"obs": "x"}, [], 0.0)


@pytest.mark.parametrize("head", ["", "# -*- coding: latin-1 -*-\n", "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_design_file_is_read_as_python_reads_it(tmp_path, head, newline):
    encoding = "latin-1" if "latin" in head else "cp1252" if "cp1252" in head else "utf-8-sig"
    path = tmp_path / "design.py"
    path.write_bytes(f'{head}word = "café"\n'.replace("\n", newline).encode(encoding))
    space = {}
    exec(compile(memory_base.read_source(path), "design.py", "exec"), space)
    assert space["word"] == "café" and memory_base.read_source(path).endswith('word = "café"\n')


@pytest.mark.parametrize("content", [b'word = "caf\xe9"\n', b"# coding: no-such-coding\n"])
def test_a_design_file_that_python_cannot_read_is_a_syntax_error(tmp_path, content):
    (tmp_path / "design.py").write_bytes(content)
    with pytest.raises(SyntaxError):
        memory_base.read_source(tmp_path / "design.py")
