"""How a worker process asks the host's models: it holds no key and knows no endpoint.

Promises: one TCP connection for each client, frames as in `jail.frames` of bounded size, a random token; the host's
errors are raised by their type in the worker; a broken connection is opened again, and no question is paid for twice.
Nothing is encrypted: use it on one machine or inside a network that you trust.
"""

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator

from errors import BudgetError, ContextOverflow, InfrastructureError, UserError
from jail.frames import LENGTH, length, pack

MOST_BYTES = 64 << 20  # of one message
HELLO_SECONDS = 10.0  # for a connection, and for the first message
RECONNECTS = (0.0, 0.2, 1.0, 3.0)  # seconds before each further try of a client
ERRORS = {error.__name__: error for error in (InfrastructureError, BudgetError, ContextOverflow, UserError)}


@contextlib.asynccontextmanager
async def serve(models, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve `models` to clients while the context is open; yields the address "host:port/token"."""
    token, tasks = secrets.token_urlsafe(24), set()

    async def read(reader, most: int):
        return json.loads(await reader.readexactly(length(await reader.readexactly(LENGTH.size), most)))

    async def connected(reader, writer):
        tasks.add(task := asyncio.current_task())
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = await read(reader, 1024)  # few bytes, before the token is known to be right
            welcome = isinstance(hello, str) and hmac.compare_digest(hello.encode(), token.encode())
            while welcome:  # until the client leaves
                question = await read(reader, MOST_BYTES)
                try:
                    answer = {"answer": await models.chat(**question)}
                except tuple(ERRORS.values()) as error:
                    answer = {"error": type(error).__name__, "message": str(error)}
                writer.write(pack(answer))
                await writer.drain()
        # The worker is gone or no worker of ours: its episode is played again elsewhere. Or the gateway closes:
        # asyncio's streams (3.11) would print a cancelled handler as an error.
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, ValueError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, 0)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}/{token}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class GatewayClient:
    """Asks the host's models from plain synchronous code, one question at a time; raises what the host raises."""

    def __init__(self, address: str):
        place, _, self._token = address.partition("/")
        host, _, port = place.rpartition(":")
        self._place = host, int(port)
        self._socket: socket.socket | None = None

    def chat(self, role: str, messages: list[dict], **options) -> str:
        """As `Models.chat`."""
        question = pack({"role": role, "messages": messages, **options})
        for pause in (*RECONNECTS, None):
            try:
                if self._socket is None:
                    self._socket = socket.create_connection(self._place, timeout=HELLO_SECONDS)
                    self._socket.settimeout(None)  # an answer takes as long as it takes; a dead host resets
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._socket.sendall(pack(self._token))
                self._socket.sendall(question)
                with self._socket.makefile("rb") as stream:  # the host sends nothing more until it is asked again
                    header = stream.read(LENGTH.size)
                    body = stream.read(length(header, MOST_BYTES)) if len(header) == LENGTH.size else b""
                reply = json.loads(body)  # a ValueError where the connection was closed
                if "error" in reply:
                    raise ERRORS[reply["error"]](reply["message"])
                return reply["answer"]
            except (OSError, ValueError) as error:
                if self._socket:
                    self._socket.close()
                    self._socket = None
                if pause is None:
                    raise InfrastructureError(f"the host at {self._place[0]} is gone: {error}") from None
                time.sleep(pause)
