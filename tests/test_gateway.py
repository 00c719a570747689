"""Worker processes ask the host's models and get its answers and its errors."""

import asyncio
import concurrent.futures
import multiprocessing
import os
import socket
import struct

import pytest

from errors import BudgetError, InfrastructureError
from llm import Keys, Models, ModelSpec
from models import gateway
from models.endpoint import ContextOverflow, Patience
from models.gateway import GatewayClient
from models.store import Store
from tests.endpoint import ModelServer


def answer(role: str, body: dict) -> str:
    return f"{role}: {body['messages'][-1]['content']}"


@pytest.fixture
def serving(tmp_path):
    """`serving(work)`: what `work(address)`, run in a thread, gives while a gateway is open."""

    def serve(work, server: ModelServer | None = None, **options):
        with server or ModelServer(answer) as models_server:
            specs = {
                role: ModelSpec.parse(f"{role}@{models_server.url}")
                for role in ("agent", "memory", "embedding")
            }

            async def run():
                patience = Patience(0.1, 0.002, 0.01, (), 30.0)
                settings = {"keys": Keys(), "patience": patience, "in_flight": 30, "log": print, **options}
                with Store(tmp_path / "store.sqlite") as store:
                    async with Models(specs, store, **settings) as models, gateway.serve(models) as address:
                        return await asyncio.to_thread(work, address)

            return asyncio.run(run())

    return serve


def say(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_answers_go_through_whatever_their_text(serving):
    text = "north \x00 ☃ " + "x" * 300_000

    def work(address: str):
        client = GatewayClient(address)
        lone = client.chat("agent", say("\ud800"), sample="pass 1", seed=3)
        return client.chat("agent", say(text)), lone

    assert serving(work) == (f"agent: {text}", "agent: ?")


@pytest.mark.parametrize("error", [InfrastructureError, BudgetError, ContextOverflow])
def test_the_hosts_errors_are_raised_by_their_type_and_the_client_goes_on(serving, error):
    server = ModelServer(answer, context=1000)
    options = {"budget_tokens": 2} if error is BudgetError else {}

    def work(address: str):
        client = GatewayClient(address)
        first = client.chat("agent", say("first"))
        server.script = ["503"] * 100 if error is InfrastructureError else []
        with pytest.raises(
            error, match={InfrastructureError: "gave up", BudgetError: "--budget-tokens"}.get(error)
        ):
            client.chat("agent", say("x" * 9999 if error is ContextOverflow else "second"))
        return [first, client.chat("agent", say("first"))]  # from the store

    assert serving(work, server, **options) == ["agent: first"] * 2


def _ask_many(address: str, number: int) -> tuple[list[str], bool]:
    client = GatewayClient(address)
    said = [client.chat("agent", say(f"{number}.{turn}")) for turn in range(10)]
    return said, "openai" in __import__("sys").modules


def test_thirty_worker_processes_ask_at_once(serving):
    def work(address: str):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["models.gateway", "tests.test_gateway"])
        with concurrent.futures.ProcessPoolExecutor(30, mp_context=context) as pool:
            return list(pool.map(_ask_many, [address] * 30, range(30)))

    for number, (said, has_openai) in enumerate(serving(work)):
        assert said == [f"agent: {number}.{turn}" for turn in range(10)]
        assert not has_openai


def test_a_wrong_token_or_a_stranger_gets_nothing(serving):
    def work(address: str):
        host, _, port = address.partition("/")[0].rpartition(":")
        hellos = [
            struct.pack(">I", 8) + b'"wrong!"',
            struct.pack(">I", 2**31),  # a message longer than any may be
            b"GET / HTTP/1.1\r\n\r\n",
            struct.pack(">I", 4) + b"null",
            struct.pack(">I", 3) + b"\xff\xfe{",
        ]
        for hello in hellos:
            with socket.create_connection((host, int(port)), timeout=10) as stranger:
                stranger.sendall(hello)
                assert stranger.recv(1) == b""  # closed
        return GatewayClient(address).chat("agent", say("x"))

    assert serving(work) == "agent: x"


def test_a_connection_that_breaks_is_opened_again(serving):
    def work(address: str):
        client = GatewayClient(address)
        client.chat("agent", say("1"))
        client._socket.shutdown(socket.SHUT_RDWR)
        return client.chat("agent", say("2"))

    assert serving(work) == "agent: 2"


def test_a_host_that_is_gone_is_an_infrastructure_error(serving, monkeypatch):
    monkeypatch.setattr(gateway, "RECONNECTS", (0.0,))  # seconds of patience
    address = serving(lambda address: address)
    with pytest.raises(InfrastructureError, match="is gone"):
        GatewayClient(address).chat("agent", say("x"))


def test_a_worker_that_dies_in_the_middle_of_a_question_harms_nobody(serving):
    server = ModelServer(answer)

    def work(address: str):
        pid = os.fork()
        if not pid:
            client = GatewayClient(address)
            client.chat("agent", say("1"))
            client._socket.sendall(struct.pack(">I", 1000) + b"half a question")
            os._exit(0)
        os.waitpid(pid, 0)
        return GatewayClient(address).chat("agent", say("2"))

    assert serving(work, server) == "agent: 2"
    assert [body["messages"][0]["content"] for body in server.bodies] == ["1", "2"]
