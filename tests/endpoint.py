"""A server that speaks the OpenAI protocol over real sockets and plays every fault of real ones.

Promises: faults are drawn from the seed, the request and how often it came, so that they do not
depend on who was first; every whole answer is counted under the hash of its request; answers come
from the stand-ins, or from a function. It does not promise to be an endpoint for anything but tests.

Try it: `python tests/endpoint.py --port 8911 --latency 0.5 --fault-rate 0.2 --seed 1`, then
`make reproduce ENV=minihack AGENT_MODEL=agent@$URL META_MODEL=meta@$URL` with URL=http://127.0.0.1:8911/v1
and `curl http://127.0.0.1:8911/stats`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

ROLES = ("agent", "meta", "memory", "embedding")
STATUS = {"429": 429, "429 retry-after": 429, "500": 500, "502": 502, "503": 503}
STOPS = {"401": 401, "403": 403, "404": 404, "402": 402, "429 quota": 429}
REFUSED = {"400": 400}  # a whim, played on demand only
FLOOD = "flood"  # 64 MiB and more, played on demand only
BROKEN = ("reset", "cut", "cut chunk", "endless", "silent", "not json", "html", "error in 200")
BROKEN_ANSWERS = ("finish error", "error beside")  # a part of an answer, then an error
ANSWERS = ("empty", "length", "refusal", "content filter", "content filter 400", "no choices", "no message", "only thoughts", "stream that ends")
FRAMES = ("text/plain", "data done", "byte order mark", "stream", "message in a stream")  # around a right answer
JSON_ANSWERS = ("invalid json", "misses the schema", "json in prose", "json in a fence")
CODE_ANSWERS = ("no fence", "several fences", "prose around", "unclosed fence", "thoughts")
IN_A_ROW = 3  # faults of one request: asking again helps in the end
FORMS = JSON_ANSWERS + CODE_ANSWERS
ACTION_ANSWERS = ("Action:", "quotes", "thoughts")
FAULTS = (*STATUS, *BROKEN, *BROKEN_ANSWERS, *ANSWERS, *FRAMES, *JSON_ANSWERS, *CODE_ANSWERS, *ACTION_ANSWERS)
EMBEDDING_FAULTS = (*STATUS, *BROKEN)


def role_of(body: dict) -> str:
    """Whom a request is for: the model's name says so, else the prompt does."""
    name = body["model"].split("-")[0].split(":")[0]
    if name in ROLES:
        return name
    text = "\n".join(message["content"] for message in body["messages"][:2])
    return "meta" if "# Stage:" in text else "agent" if "## How to answer" in text else "memory"


def stand_in(role: str, body: dict) -> str:
    """The answer of the stand-ins; to a prompt that was sent back with an error, the same as before."""
    import standins

    messages = body["messages"]
    if role != "agent":
        first = next(index for index, message in enumerate(messages) if message["role"] == "user")
        messages = messages[: first + 1]
    return standins.chat(role, messages, schema_of(body), 0)


def schema_of(body: dict) -> dict | None:
    """The JSON schema of the answer, wherever a request has it."""
    _, _, in_prompt = body["messages"][0]["content"].partition("JSON schema, and nothing else:\n")
    if in_prompt:
        return json.JSONDecoder().raw_decode(in_prompt)[0]
    return body.get("response_format", {}).get("json_schema", {}).get("schema")


class Reset(Exception):
    """Close the connection at once."""


class ModelServer:
    """The server; `with ModelServer() as server` runs it on a thread, at `server.url`.

    `answer(role, body)` gives the text of an answer. `unknown` names parts of a request that it
    refuses as older servers do: reasoning_effort, json_schema, json_object, max_completion_tokens,
    max_tokens, system. `vague` servers do not say which. An `even` one plays the rarest kinds of fault
    first, so that none is left out (then the kinds do depend on who was first), and at most IN_A_ROW
    faults of one request in a row, of which the meta agent's second try gets no useless answer. `context` is the longest prompt in tokens
    of four characters, `key` the only key that is let in. An embedding call may have at most `most_texts`,
    each of at most `longest_text` characters; what is more, or holds `bad_text`, gets the `embedding_status`.
    `usage` is what is said of tokens: the truth, nothing (False), or something else.
    """

    def __init__(
        self,
        answer: Callable[[str, dict], str] = stand_in,
        *,
        port: int = 0,
        latency: float = 0.0,
        fault_rate: float = 0.0,
        faults: Iterable[str] = FAULTS,
        seed: int = 0,
        retry_after: str = "0.01",
        endless: float = 3600.0,
        unknown: Iterable[str] = (),
        vague: bool = False,
        even: bool = False,
        context: int = 0,
        key: str = "",
        usage=True,
        most_texts: int = 0,
        longest_text: int = 0,
        bad_text: str = "",
        embedding_status: int = 400,
        redirect: str = "",
        certificate: list[Path] | None = None,
        log: Path | None = None,
    ):
        self.answer, self.port, self.latency, self.seed = answer, port, latency, seed
        self.fault_rate, self.faults, self.even = fault_rate, tuple(faults), even
        self.retry_after, self.endless = retry_after, endless
        self.unknown, self.vague, self.context = tuple(unknown), vague, context
        self.key, self.usage, self.redirect = key, usage, redirect
        self.most_texts, self.longest_text, self.bad_text = most_texts, longest_text, bad_text
        self.embedding_status = embedding_status
        self.requests = 0
        self.headers: list[dict] = []  # of every request, in order
        self.answered: Counter[str] = Counter()  # whole good answers, by hash of the request
        self.played: Counter[str] = Counter()  # faults, by kind
        self.tokens: Counter[str] = Counter()  # of all answers, good or not, as `usage` says
        self.in_flight = self.most_in_flight = 0
        self.bodies: list[dict] = []  # of every request, in order
        self.script: list[str] = []  # faults of the next requests, before any that are drawn
        self.counts_answer = False  # as a part of the context
        self.reject = self.refused_schema = ""  # prompts and schemas that hold this get a 400
        self.at: dict[int, Callable[[], None]] = {}  # what happens at an event: a request came or was answered
        self.events = 0
        self._tls = None
        if certificate:  # a key and a certificate: it speaks https
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate[1], certificate[0])
        self._log = log.open("a") if log else None
        self._seen: Counter[str] = Counter()
        self._tasks: set[asyncio.Task] = set()

    # Running it.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "ModelServer":
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(started.set)), daemon=True)
        self._thread.start()
        assert started.wait(10), "the test server did not start"
        return self

    def __exit__(self, *exception) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def stats(self) -> dict:
        return {
            "requests": self.requests,
            "answered": dict(self.answered),
            "faults": dict(self.played),
            "most_in_flight": self.most_in_flight,
        }

    async def serve(self, started: Callable[[], None] = lambda: None) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self._open()
        started()
        await self._stop.wait()
        self._close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**24, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def go_away(self, seconds: float) -> None:
        """Reset every connection and refuse new ones for a while; for `at`."""
        self._close()
        self.played["refused"] += 1
        self._loop.call_later(seconds, lambda: setattr(self, "_back", self._loop.create_task(self._open())))

    # One connection.

    async def _connected(self, reader, writer) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
                headers = {name.lower(): value for name, _, value in lines}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._respond(head.split(" ", 2)[1], headers, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError, Reset, asyncio.CancelledError):
            writer.transport.abort()  # a reset, not an orderly end
        finally:
            self._tasks.discard(task)

    async def _respond(self, path: str, headers: dict, raw: bytes, writer) -> None:
        if path.endswith("/stats"):
            return await self._send(writer, 200, self.stats())
        if path.endswith("/models"):
            return await self._send(writer, 200, {"object": "list", "data": [{"id": role} for role in ROLES]})
        body = json.loads(raw)
        digest = hashlib.sha256(raw).hexdigest()[:16]
        self.requests += 1
        self.bodies.append(body)
        self.headers.append(headers)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.redirect:
                return await self._send(writer, 307, {}, {"location": self.redirect + path})
            refusal = self._refusal(headers, body)
            if refusal:
                return await self._send(writer, *refusal)
            fault = self._draw(path, body, digest)
            self._event()
            await asyncio.sleep(self.latency)
            await self._play(fault, path, body, digest, writer)
            self._event()
        finally:
            self.in_flight -= 1

    def _event(self) -> None:
        self.events += 1
        self.at.pop(self.events, lambda: None)()

    async def _play(self, fault: str, path: str, body: dict, digest: str, writer) -> None:
        if fault:
            self.played[fault] += 1
        self._write_log(digest, body, fault)
        if fault in STATUS | STOPS | REFUSED:
            more = {"retry-after": self.retry_after} if fault == "429 retry-after" else {}
            code = "insufficient_quota" if fault == "429 quota" else "played"
            return await self._send(
                writer, (STATUS | STOPS | REFUSED)[fault], _error(f"played {fault}", code), more
            )
        if fault.startswith(("{", "[", '"')):  # a body, as it is; on demand only
            return await self._send(writer, 200, fault)
        if fault in (*BROKEN, FLOOD):
            return await self._break(writer, fault)
        if fault == "content filter 400":
            return await self._send(writer, 400, _error("filtered", "content_filter"))
        reply = self._embed(body) if path.endswith("/embeddings") else self._chat(body, fault)
        if not fault or fault in CODE_ANSWERS + ACTION_ANSWERS + FRAMES:
            self.answered[digest] += 1
        await self._send(writer, 200, *_framed(reply, fault))

    def _write_log(self, digest: str, body: dict, fault: str) -> None:
        if self._log:
            self._log.write(json.dumps({"request": digest, "model": body["model"], "fault": fault}) + "\n")
            self._log.flush()

    # What it refuses.

    def _refusal(self, headers: dict, body: dict) -> tuple[int, dict] | None:
        """The status and the error of a request that is not let in."""
        if self.key and headers.get("authorization", "") != f"Bearer {self.key}":
            return 401, _error(
                f"Incorrect API key provided: {headers.get('authorization')}", "invalid_api_key"
            )
        if body["model"] == "missing":
            return 404, _error("The model 'missing' does not exist", "model_not_found")
        texts = body.get("input", ())
        if self.most_texts and len(texts) > self.most_texts:
            return self.embedding_status, _error(f"batch size {len(texts)} is larger than {self.most_texts}", "")
        if self.longest_text and max(map(len, texts), default=0) > self.longest_text:
            return self.embedding_status, _error("input is too large to process", "server_error")
        if self.bad_text and any(self.bad_text in text for text in texts):
            return self.embedding_status, _error("The characters of an input are not allowed", "")
        for part in self._parts(body):
            if part in self.unknown:
                message = (
                    "Bad Request" if self.vague else f"Unsupported parameter: '{part}' is not supported."
                )
                return 400, _error(message, "" if self.vague else "unsupported_parameter")
        if self.reject and self.reject in body["messages"][-1]["content"]:
            return 400, _error("The server may not say why it refuses this.", "")
        if self.refused_schema and self.refused_schema in json.dumps(body.get("response_format", {})):
            return 400, _error("Invalid schema for response_format 'answer'", "")
        size = sum(len(message["content"]) for message in body.get("messages", ())) // 4
        size = size or max((len(text) for text in body.get("input", ())), default=0) // 4
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        if limit and self.counts_answer and size + limit > self.context:
            message = f"You requested {size} tokens in the messages and {limit} in the completion"
            return 400, _error(f"maximum context length is {self.context}. {message}", "")
        if self.context and size > self.context:
            message = (
                f"This model's maximum context length is {self.context} tokens, your messages have {size}."
            )
            return 400, _error(message, "context_length_exceeded")
        return None

    @staticmethod
    def _parts(body: dict) -> list[str]:
        system = ["system"] * any(message["role"] == "system" for message in body.get("messages", ()))
        return [*body, body.get("response_format", {}).get("type", ""), *system]

    # What goes wrong.

    def _draw(self, path: str, body: dict, digest: str) -> str:
        """The fault of this request, "" for none."""
        if self.script:
            return self.script.pop(0)
        self._seen[digest] += 1
        possible = self._possible(path, body) or [""]
        unplayed = [fault for fault in possible if fault in FORMS and not self.played[fault]]
        if self.even and (not self.fault_rate or self._seen[digest] % (IN_A_ROW + 1) == 0):
            return ""
        if self.even and unplayed:
            return unplayed[0]  # few requests ask for these forms
        dice = random.Random(f"{self.seed} {digest} {self._seen[digest]}")
        if dice.random() >= self.fault_rate:
            return ""
        if self.even:
            rarest = min(self.played[fault] for fault in possible)
            possible = [fault for fault in possible if self.played[fault] == rarest]
        return dice.choice(possible)

    def _possible(self, path: str, body: dict) -> list[str]:
        if path.endswith("/embeddings"):
            return [fault for fault in self.faults if fault in EMBEDDING_FAULTS]
        possible = STATUS.keys() | set(BROKEN + BROKEN_ANSWERS + ANSWERS + FRAMES)
        if "response_format" in body:
            possible |= set(JSON_ANSWERS)
        else:
            possible |= set({"meta": CODE_ANSWERS, "agent": ACTION_ANSWERS}.get(role_of(body), ()))
        if self.even and role_of(body) == "meta" and len(body["messages"]) > 2:
            possible -= set(ANSWERS + FORMS)  # it is asked again for a usable answer, three times in all
        return [fault for fault in self.faults if fault in possible]

    async def _break(self, writer, fault: str) -> None:
        if fault == "reset":
            raise Reset
        if fault == "silent":
            await asyncio.sleep(self.endless)
            raise Reset
        if fault in ("not json", "html", "error in 200"):
            text = "<html>Bad Gateway</html>" if fault == "html" else '{"choices": [{'
            text = json.dumps(_error("overloaded", "502")) if fault == "error in 200" else text
            return await self._send(
                writer, 200, text, {"content-type": "text/html"} if fault == "html" else {}
            )
        head = "transfer-encoding: chunked" if fault != "cut" else "content-length: 5000"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}\r\n\r\n".encode())
        writer.write(b'{"choices": [' if fault == "cut" else b'd\r\n{"choices": [\r\n')
        await writer.drain()
        if fault == FLOOD:
            while True:  # as fast as it is read, for ever
                writer.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
                await writer.drain()
        if fault == "endless":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.endless):
                    while True:  # a byte now and then, for ever
                        writer.write(b"1\r\n \r\n")
                        await writer.drain()
                        await asyncio.sleep(0.02)
        raise Reset

    # What it answers.

    def _chat(self, body: dict, fault: str) -> dict:
        text = self.answer(role_of(body), body)
        message, finish = {"role": "assistant", "content": _twisted(text, fault)}, "stop"
        if fault == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
        elif fault in ("content filter", "length"):
            finish = fault.replace(" ", "_")
            message["content"] = text[: len(text) // 2]
        elif fault in ("finish error", "error beside"):
            finish, message["content"] = "error", text[: len(text) // 2]
        elif fault == "only thoughts":
            message = {"role": "assistant", "content": None, "reasoning_content": text}
        reply = {"object": "chat.completion", "model": body["model"]}
        reply["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
        if fault == "error beside":
            reply["choices"][0].update(finish_reason=None, error={"code": 502, "message": "Provider disconnected"})
        if fault == "no message":
            del reply["choices"][0]["message"]
        if fault == "no choices":
            reply["choices"] = []
        if self.usage is not True:
            reply["usage"] = self.usage or None
        else:
            prompt = sum(len(one["content"]) for one in body["messages"]) // 4
            written = len(text) // 4 + 1
            if fault == "length":
                written = body.get("max_completion_tokens") or body.get("max_tokens") or written
            reply["usage"] = self._used(prompt, written, 5 if "reasoning_effort" in body else 0)
        return reply

    def _embed(self, body: dict) -> dict:
        import standins

        vectors = standins.embed(body["input"])
        rows = [
            {"index": index, "embedding": list(map(float, vector))} for index, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": rows, "usage": self._used(sum(map(len, body["input"])) // 4, 0, 0)}

    def _used(self, prompt: int, completion: int, reasoning: int) -> dict:
        """The account of one answer, which the server keeps too."""
        self.tokens.update(prompt=prompt, cached=prompt // 2, completion=completion + reasoning)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion + reasoning,
            "total_tokens": prompt + completion + reasoning,
            "prompt_tokens_details": {"cached_tokens": prompt // 2},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    async def _send(self, writer, status: int, reply, headers: dict | None = None) -> None:
        body = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        headers = {"content-type": "application/json", **(headers or {}), "content-length": len(body)}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} Played\r\n{head}\r\n".encode() + body)
        await writer.drain()


def _framed(reply: dict, fault: str) -> tuple[str, dict]:
    """The body with an answer, and its content type, as servers send it that nobody asked to."""
    text = json.dumps(reply)
    if fault in ("data done", "message in a stream"):
        start = "data: " if fault != "data done" else ""
        return f"{start}{text}\n\ndata: [DONE]\n\n", {"content-type": "text/event-stream"} if start else {}
    if fault in ("stream", "stream that ends"):
        [choice] = reply["choices"]
        content = choice["message"]["content"]
        half = len(content) // 2
        parts = [{"role": "assistant"}, {"content": content[:half]}, {"content": content[half:]}]
        parts = parts if fault == "stream" else parts[:2]
        chunks = [{"choices": [{"index": 0, "delta": part, "finish_reason": None}]} for part in parts]
        chunks.append({"choices": [], "usage": reply["usage"]})
        lines = [": a comment", *(f"data: {json.dumps(chunk)}\n" for chunk in chunks)]
        lines += ["data: [DONE]\n"] if fault == "stream" else []
        return "\n".join(lines), {"content-type": "text/event-stream"}
    return ("\ufeff" if fault == "byte order mark" else "") + text, {"content-type": fault} if fault == "text/plain" else {}


def _error(message: str, code: str) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _twisted(text: str, fault: str) -> str:
    """An answer in the form of a fault; it means the same where it is one of code or an action."""
    code = text.partition("```python\n")[2].rpartition("\n```")[0] or text
    return {
        "empty": "",
        "invalid json": text[: len(text) // 2],
        "misses the schema": '{"unasked": 1}',
        "json in prose": f"Here it is, as you asked:\n{text}\nI hope that helps.",
        "json in a fence": f"```json\n{text}\n```",
        "no fence": code,
        "several fences": f"First:\n```python\nimport re\n```\nAll:\n```python\n{code}\n```\nRun:\n```bash\nls\n```",
        "prose around": f"I thought about it.\n\n```python\n{code}\n```\n\nThis should score better.",
        "unclosed fence": f"```python\n{code}",
        "thoughts": f"<think>\nWhat if I wrote ```python\nclass Wrong: pass\n```?\n</think>\n{text}",
        "Action:": f"Action: {text}.",
        "quotes": f"`{text.upper()}`",
    }.get(fault, text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8911)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of the requests, in [0, 1]")
    parser.add_argument("--faults", default=",".join(FAULTS), help="kinds that are played, by comma")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--endless", type=float, default=10.0, help="seconds that endless answers take here")
    parser.add_argument("--unknown", default="", help="parts of a request to refuse, by comma")
    parser.add_argument("--context", type=int, default=0, help="longest prompt in tokens, 0 for any")
    parser.add_argument("--log", type=Path, help="a JSON line for each request goes there")
    options = vars(parser.parse_args(arguments))
    for name in ("faults", "unknown"):
        options[name] = [part for part in options[name].split(",") if part]
    server = ModelServer(**options)
    server.bodies = _Nothing()  # a long run would fill the memory
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve(lambda: print(f"listening at {server.url}", flush=True)))


class _Nothing(list):
    def append(self, item) -> None:
        """Keep nothing."""


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the stand-ins live there
    main()
