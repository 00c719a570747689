"""One OpenAI-compatible endpoint: it sends a request until there is an answer.

Promises: every kind of fault has one rule, in `RULES`; what a model does not understand (an effort, a JSON schema, a
limit of tokens, many texts in a call) is found out, logged and left out from then on; the key goes to this address
alone, follows no redirect, and is in no message. It does not know whether a provider charges for what went wrong.
Try it: `python tests/endpoint.py --port 8911 --fault-rate 0.2` and a run with `@http://127.0.0.1:8911/v1`
"""

import asyncio
import functools
import json
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from errors import ContextOverflow, DesignError, InfrastructureError, UserError
from models import ROLES, replies
from models.answers import is_schema
from models.credentials import Key, is_this_machine, variables_of
from models.replies import LIMITS, PARTS, SYSTEM, Fault, Reply
from models.store import Store

# openai and httpx2, its own client, take a second to import: the functions that need them do it.

# What is done about each kind of fault:
#   wait     ask again after a pause until `outage_seconds` are over, or so many times, and then stop
#   adapt    leave out what the endpoint does not understand, else stop
#   shorten  raise ContextOverflow: the caller leaves out its oldest turns
#   again    ask for another sample, so many times more; then the answer counts as it is
#   stop     stop the run with one line; it can be resumed
RULES: dict[str, tuple[str, int]] = {
    "busy": ("wait", 0),  # 408, 409, 425, 429 with and without Retry-After, 500 to 599; an answer broken off
    "connection": ("wait", 0),  # refused, reset, a body that is cut
    "timeout": ("wait", 0),  # no whole answer within the deadline of the call
    "garbled": ("wait", 0),  # the body holds no JSON
    "no vectors": ("wait", 5),  # JSON without a vector of numbers for each text
    "request": ("adapt", 0),  # 400, 422 and the like
    "context": ("shorten", 0),  # the prompt is longer than the model's context
    "empty": ("again", 5),
    "only thoughts": ("again", 5),  # the answer is empty, `reasoning_content` is not
    "length": ("again", 4),  # cut at the limit of tokens
    "broken off": ("again", 4),  # a stream without an end
    "refusal": ("again", 4),
    "content filter": ("again", 4),
    "rejected": ("again", 0),  # a 400 for one prompt, where the model answered others
    "key": ("stop", 0),  # 401, 403
    "model": ("stop", 0),  # 404
    "quota": ("stop", 0),  # 402, and a 429 that no waiting helps
    "moved": ("stop", 0),  # a redirect, which the key must not follow
    "environment": ("stop", 0),  # certificates that do not fit, a proxy that lets nobody through
}
HINTS = {  # what to do, or what is wrong, where a kind of fault ends the run
    "model": "is the model's name right, is it served there, and does the address end as it should (/v1)?",
    "quota": "the account has no credit left",
    "moved": "give the address that it points to",
    "content filter": "its content filter stops every prompt or answer",
    "only thoughts": "it only fills reasoning_content; turn its thinking off, or its reasoning parser",
    "length": "all tokens are used up by reasoning",
}
PROBE = ({"role": "user", "content": "Answer with the word OK."},)  # the simplest question
MOST_TEXTS, MOST_CHARS = 128, 1 << 30  # texts in an embedding call, characters of each


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    outage: float = 1800.0  # a call's faults in a row before the run stops
    pause: float = 0.5  # before the first retry; doubled each time
    longest_pause: float = 30.0
    deadlines: tuple[tuple[str, float], ...] = (("meta", 4.0), ("embedding", 0.4))  # of roles, in `deadline`s
    deadline: float = 300.0  # of a call, from sending to the end of its answer


@dataclass(frozen=True)
class Question:
    """What a model is asked: chat messages, or texts to embed."""

    role: str
    model: str
    messages: tuple[dict, ...] = ()
    texts: tuple[str, ...] = ()  # of an embedding call
    effort: str = ""
    base_url: str = ""  # of the endpoint that is asked; empty where none has the model
    schema: dict | None = None  # of the JSON answer that is wanted
    limit: int = 0  # most tokens of the answer, reasoning included
    sample: str = ""  # tells apart calls with the same messages: a pass, the n-th time
    design: str = ""  # who asks, for the account and for fairness
    stage: str = ""  # of the loop, for the account
    seed: int = 0  # of a stand-in
    origin: tuple = ()  # of a candidate of the meta agent: its place in the search, `Origin` in recorded.py

    @property
    def place(self) -> str:
        """The address that has the model, or its name where none has."""
        return self.base_url or self.model

    @functools.cached_property
    def written(self) -> str:
        """The messages as JSON, which takes time where a dialogue is long."""
        return json.dumps(self.messages)

    def body(self, left_out: Collection[str] = ()) -> dict:
        """The request without the parts that the endpoint does not understand."""
        if self.texts:
            return {"model": self.model, "input": list(self.texts)}
        messages, body = list(self.messages), {"model": self.model}
        # An agent's prompt says how to answer: where no schema can keep it to that, none is sent.
        if self.schema and not (self.role == "agent" and "json_schema" in left_out):
            if "json_schema" not in left_out and is_schema(self.schema):
                named = {"name": "answer", "schema": self.schema, "strict": _is_strict(self.schema)}
                body["response_format"] = {"type": "json_schema", "json_schema": named}
            else:
                text = f"Answer with one JSON object that fits this JSON schema, and nothing else:\n{json.dumps(self.schema)}"
                if messages and messages[0]["role"] == "system":
                    text = f"{messages.pop(0)['content']}\n\n{text}"
                messages.insert(0, {"role": "system", "content": text})
                if "json_object" not in left_out:
                    body["response_format"] = {"type": "json_object"}
        if self.effort and "reasoning_effort" not in left_out:
            body["reasoning_effort"] = self.effort
        for name in [name for name in LIMITS if self.limit and name not in left_out][:1]:
            body[name] = self.limit
        if SYSTEM in left_out:
            text = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
            messages = [message for message in messages if message["role"] != "system"]
            if messages and messages[0]["role"] == "user":
                text = f"{text}\n\n{messages.pop(0)['content']}"
            messages.insert(0, {"role": "user", "content": text})
        return {**body, "messages": messages}


def _is_strict(schema: dict | bool) -> bool:
    """Whether OpenAI would take it as strict: every object closed and all its keys required."""
    if isinstance(schema, bool):
        return False
    properties = schema.get("properties", {})
    parts = [*properties.values(), *([schema["items"]] if "items" in schema else [])]
    closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
    return (closed or schema.get("type") != "object") and all(map(_is_strict, parts))


class Model:
    """What answers chat messages and embeds texts: an endpoint (`Endpoint`), a stand-in, files, ...

    A new kind is one class, made from the run's folder and its log, and one line in NAMED of llm.py.
    """

    stored: bool = True  # finished calls are kept, so that nothing is asked twice
    free: bool = True  # calls cost nothing, so that no price is needed, and one under way may be given up
    roles: Collection[str] = ROLES  # that it can be asked for
    waiting: Collection = ()  # requests that a person or another program is to answer

    def __init__(self, folder: Path, log: Callable[[str], None]):
        pass

    async def ask(self, question: Question) -> Reply:
        """The answer to messages, good or not, or vectors of texts; raises InfrastructureError and ContextOverflow."""
        raise NotImplementedError

    def open(self) -> None:
        """Prepare what takes time before the first call; raises UserError."""

    async def aclose(self) -> None:
        """Give back what `open` took."""

    def most_texts(self, model: str) -> int:
        """Most texts in an embedding call."""
        return MOST_TEXTS


@dataclass(frozen=True)
class Known:
    """What was found out about a model."""

    answered: bool = False
    left_out: list[str] = field(default_factory=list)  # parts of a request that it does not understand
    texts: int = MOST_TEXTS  # most in an embedding call
    chars: int = MOST_CHARS  # most of a text to embed; the rest is cut


class Endpoint(Model):
    """The models at one address; what it finds out is noted in `store`. `foreign`: not the user's default address."""

    free = False

    def __init__(self, base_url: str, key: Key, patience: Patience, log: Callable[[str], None], store: Store,
                 foreign: bool = True):  # fmt: skip
        self.base_url, self._store, self._foreign = base_url, store, foreign
        self._key, self._patience, self._log, self._client = key, patience, log, None
        # The variable that names the user's own certificates.
        self._certificates = next(filter(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")), "")
        # The proxy for the address, and the variable that names it; none for this machine and for NO_PROXY.
        self._proxy, self._through = None, ""
        parts = urlsplit(base_url)
        direct = is_this_machine(base_url) or proxy_bypass(parts.netloc) or proxy_bypass(parts.hostname)
        for scheme in () if direct else ("all", parts.scheme):  # its own comes before that of all
            if proxy := getproxies().get(scheme):
                names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
                variable = next(filter(os.environ.get, names), "the system's settings")
                self._proxy = proxy if "://" in proxy else f"http://{proxy}"
                self._through = f" (through the proxy of {variable})"
        self._random = random.Random(0)  # spreads retries; decides no result
        self._stopped: dict[str, str] = {}  # by model, why it is not asked again
        self._said: dict[str, float] = {}  # when a line was logged last, by kind
        self._estimated: set[str] = set()  # models whose tokens are estimated

    def open(self):
        """The client; the first time it is imported and made. Raises UserError that names the variable in the way."""
        if self._client is not None:
            return self._client
        import httpx2
        import openai

        # The connection, with the certificates and through the proxy of the user.
        try:
            if self._certificates:
                os.stat(os.environ[self._certificates])
            certificates = httpx2.create_ssl_context()
            _ = self._proxy and urlsplit(self._proxy).port  # may be out of range
            limits = openai.DEFAULT_CONNECTION_LIMITS
            transport = httpx2.AsyncHTTPTransport(verify=certificates, proxy=self._proxy, limits=limits)
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error}): mend or unset it"
            raise UserError(f"{self._certificates} names certificates that {reason}") from None
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            reason = str(error).replace(self._proxy or "\0", "...")  # it may hold a password
            if isinstance(error, ImportError):
                reason = "a SOCKS proxy needs another package: pip install socksio"
            raise UserError(f"{self.base_url} cannot be reached{self._through}: {self._hide(reason)}") from None

        async def bound(response) -> None:  # a body without an end would fill the memory before its deadline
            body = bytearray()
            async for part in response.stream:
                body += part
                if len(body) > 64 << 20:
                    raise ValueError("it is longer than 64 MiB")
            await response.stream.aclose()
            response.stream = httpx2.ByteStream(bytes(body))

        # Without what openai's client adds from the environment (OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID).
        async def own_headers(request) -> None:
            plain = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}
            for name in request.headers.keys() - plain:
                del request.headers[name]
            request.headers["authorization"] = f"Bearer {self._key or 'none'}"

        http_client = httpx2.AsyncClient(
            transport=transport, follow_redirects=False,  # the key is for this address alone
            headers={"accept-encoding": "identity"},  # so that what is counted is what is unpacked
            event_hooks={"response": [bound], "request": [own_headers] if self._foreign else []})  # fmt: skip
        # Its own retries would hide faults from the log and know no budget of time: RULES has them.
        self._client = openai.AsyncOpenAI(base_url=self.base_url, api_key=self._key or "none", http_client=http_client,
                                          max_retries=0, timeout=openai.Timeout(None, connect=15.0))  # fmt: skip
        return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def ask(self, question: Question) -> Reply:
        if question.texts:
            return await self._embed(question)
        known = self._known(question.model)
        left_out, trusted, remember = set(known.left_out), known.answered, True
        while isinstance(reply := await self._patiently(question, left_out), Fault):
            if trusted:  # it has answered before: a passing fault must not cost the run a part of its requests
                trusted = False
            elif parts := replies.suspects(question.body(left_out), reply.detail):
                left_out.add(parts[0])
                # A schema of a design's own making may be at fault, not the endpoint.
                remember = remember and not replies.BAD_SCHEMA.search(reply.detail)
            elif not self._known(question.model).answered:
                raise self._stop(question, reply)
            else:  # whether it answers anything at all
                simplest = await self._patiently(replace(question, messages=PROBE, schema=None), left_out)
                if isinstance(simplest, Fault):
                    raise self._stop(question, reply, "it answered before and now refuses every request")
                self._log(f"{question.model} at {self.base_url}: {reply.detail}: the prompt counts as unanswered")
                return replace(simplest, text="", fault="rejected")
        if remember:
            self._learn(question.model, left_out)
        return reply

    async def _embed(self, question: Question) -> Reply:
        """Vectors: refused texts are sent in halves, and one that is too long is halved; the limits are remembered."""
        model, known = question.model, self._known(question.model)
        texts, size, refused = tuple(text[: known.chars] for text in question.texts), known.texts, None
        if len(texts) <= size:
            refused = await self._patiently(replace(question, texts=texts))
            if isinstance(refused, Reply):
                return refused
            if len(texts) == 1:
                length = len(texts[0])
                too_long = refused.kind == "context" or replies.TOO_LARGE.search(refused.detail) or length > 2_000
                if too_long and length > 100:  # characters; a shorter text is not too long, whatever is said
                    reply = await self._embed(replace(question, texts=(texts[0][: length // 2],)))
                    if isinstance(reply.vectors[0], list):  # its length was at fault
                        self._learn(model, chars=length // 2)
                    return reply
                if isinstance(await self._patiently(replace(question, texts=("text",))), Fault):
                    raise self._stop(question, refused)  # it embeds nothing at all
                why = f"a text cannot be embedded: {model} at {self.base_url}: {refused.detail}"
                return Reply("", vectors=(DesignError("error", why),))
            size = (len(texts) + 1) // 2
        starts = range(0, len(texts), size)
        parts = [await self._embed(replace(question, texts=texts[start : start + size])) for start in starts]
        vectors = tuple(vector for part in parts for vector in part.vectors)
        one_is_at_fault = any(isinstance(vector, DesignError) for vector in vectors)
        if refused and not one_is_at_fault and self._known(model).chars == known.chars:
            self._learn(model, texts=size)  # their number was at fault
        tokens = sum(part.prompt_tokens for part in parts)
        return Reply("", prompt_tokens=tokens, vectors=vectors, seconds=sum(part.seconds for part in parts))

    def _known(self, model: str) -> Known:
        """What was found out about a model, before a kill too."""
        return Known(**json.loads(self._store.get_note(f"limits of {model} at {self.base_url}") or "{}"))

    def most_texts(self, model: str) -> int:
        return self._known(model).texts

    def _learn(self, model: str, left_out: Collection[str] = (), texts=MOST_TEXTS, chars=MOST_CHARS) -> None:
        """Keep to what was found out from now on, and say it once."""
        before, where = self._known(model), f"{model} at {self.base_url}"
        lost = [part for part in PARTS if part in left_out or part in before.left_out]
        now = Known(True, lost, min(before.texts, texts), min(before.chars, chars))
        if now == before:
            return
        self._store.put_note(f"limits of {where}", json.dumps(vars(now)))
        if lost != before.left_out:
            self._log(f"{where} does not understand {', '.join(lost)}: left out from now on")
        elif now.chars < before.chars:
            self._log(f"{where}: texts over {now.chars:,} characters are cut: they are too long to embed")
        elif now.texts < before.texts:
            self._log(f"{where}: at most {now.texts} texts in a call")

    async def _patiently(self, question: Question, left_out: Collection[str] = ()) -> Reply | Fault:
        """Send until there is an answer, by RULES; a Fault where the request itself is refused."""
        patience, first_fault, tries, where = self._patience, None, 0, f"{question.model} at {self.base_url}"
        while True:
            if question.model in self._stopped:
                raise InfrastructureError(self._stopped[question.model])
            reply = await self._send(question, left_out)
            if isinstance(reply, Reply):
                if reply.fault == "context":  # an answer that was paid for; whoever asks for more is told
                    self._say("context", f"{where}: {reply.text}: the oldest turns are left out")
                return reply
            fault, (rule, most), line = reply, RULES[reply.kind], f"{where}: {reply.detail}"
            too_many = len(question.texts) > 1 and tries >= 3 and fault.detail.startswith("500")  # it may mean their number
            if rule == "adapt" or too_many or (question.texts and fault.kind in ("context", "content filter")):
                return fault
            if rule == "shorten":
                self._say("context", f"{line}: the oldest turns are left out")
                raise ContextOverflow(line)
            tries += 1
            if rule == "stop" or (most and tries > most):
                raise self._stop(question, fault)

            first_fault = first_fault or time.monotonic()
            passed = time.monotonic() - first_fault
            longest = min(patience.longest_pause, patience.pause * 2 ** min(tries - 1, 30))
            pause = longest * self._random.uniform(0.5, 1.0)
            if fault.retry_after is not None:
                pause = max(fault.retry_after, patience.pause)  # a date may have passed
            if passed + pause > patience.outage:
                asked = f"; it asks for a pause of {pause:.0f} s" if fault.retry_after else ""
                gave_up = f"gave up after {passed:.0f} s of {patience.outage:.0f} (--outage-seconds)"
                raise InfrastructureError(f"{line}{asked}; {gave_up}; resume when it is back")
            limit = f"{patience.outage:.0f} s" if patience.outage < 90 else f"{patience.outage / 60:.0f} minutes"
            self._say(fault.kind, f"{line}; asking again for up to {limit}")
            await asyncio.sleep(pause)

    def _say(self, kind: str, line: str) -> None:
        """Log a line, one of its kind in a minute."""
        if time.monotonic() - self._said.get(kind, -1e9) > 60.0:
            self._said[kind] = time.monotonic()
            self._log(line)

    def _stop(self, question: Question, fault: Fault, hint: str = "") -> InfrastructureError:
        """The error that ends the run; the model is not asked again."""
        if fault.kind == "key":
            hint = f"check {self._key.variable}" if self._key else f"set {variables_of(self.base_url)[-1]}"
        why = ": ".join(filter(None, (fault.detail, hint or HINTS.get(fault.kind))))
        self._stopped[question.model] = f"{question.model} at {self.base_url}: {why}"
        return InfrastructureError(self._stopped[question.model])

    async def _send(self, question: Question, left_out: Collection[str]) -> Reply | Fault:
        """What comes of one request."""
        import openai

        client, body, started = self.open(), question.body(left_out), time.monotonic()
        path = "/embeddings" if question.texts else "/chat/completions"
        deadline = self._patience.deadline * dict(self._patience.deadlines).get(question.role, 1.0)
        try:
            async with asyncio.timeout(deadline):
                # As bytes: the typed methods walk through every message first (12 ms of CPU for 40 turns,
                # this takes 1.5), and they cannot read what servers send under another content type.
                content = await client.post(path, body=body, cast_to=bytes)
            reply = replies.read(content, body)
        except (TimeoutError, openai.APITimeoutError):
            reply = Fault("timeout", "no answer within the deadline of the call")
        except openai.APIStatusError as error:
            reply = replies.refusal(error.body or error.message, body, error.status_code, error.response.headers)
        except openai.APIConnectionError as error:  # certificates and proxies are the user's to mend, the rest may pass
            tls = cause = error.__cause__ or error
            while tls is not None and not isinstance(tls, ssl.SSLError):
                tls = tls.__cause__ or tls.__context__
            kind, detail = "environment", f"{type(cause).__name__}: {cause}"
            if isinstance(tls, ssl.SSLCertVerificationError):
                what = f"{self._certificates} does not hold" if self._certificates else "SSL_CERT_FILE must name"
                detail += f": {what} the certificate that signed the server's"
            elif tls is not None and tls.reason == "WRONG_VERSION_NUMBER":
                detail += ": the server speaks http, not https"
            elif type(cause).__name__ != "ProxyError" or not re.match(r"4\d\d", str(cause)):
                kind = "connection"
            reply = Fault(kind, detail)
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            reply = Fault("garbled", f"the answer is no JSON: {error}")
        seconds = time.monotonic() - started
        if isinstance(reply, Reply):
            if not reply.counted and question.model not in self._estimated:
                self._estimated.add(question.model)
                self._log(f"{question.model} at {self.base_url} counts no tokens: they are estimated")
            return replace(reply, seconds=seconds)
        if reply.kind == "content filter" and not question.texts:
            return Reply("", reply.kind, seconds=seconds)
        way = self._through if reply.kind in ("timeout", "connection", "environment") else ""
        return replace(reply, detail=self._hide(reply.detail) + way)

    def _hide(self, text: str) -> str:
        """Text of others as one short line, without the key."""
        text = " ".join((text.replace(self._key, "***") if self._key else text).split())
        return text if len(text) <= 300 else text[:300] + "..."
