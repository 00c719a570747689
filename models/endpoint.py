"""One OpenAI-compatible endpoint: a request until it is answered, whatever it takes.

Promises: every kind of fault has one rule, in `RULES`; what an endpoint does not know (an effort, a
JSON schema, a limit of tokens) is found out, said and left out from then on; calls in flight are
limited and shared fairly between designs; no message holds the key. It does not promise that a
provider charges nothing for what went wrong.

Try it: `python tests/endpoint.py --port 8911 --fault-rate 0.2` and a run with `@http://127.0.0.1:8911/v1`
"""

import asyncio
import contextlib
import email.utils
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from errors import ContextOverflow, InfrastructureError
from models.answers import is_schema, strip_thoughts
from models.fair_queue import FairSlots

# What is done about each kind of fault:
#   wait     ask again after a pause (Retry-After, else longer each time) until `outage_seconds` are over
#   adapt    leave out what the endpoint does not know, else stop
#   shorten  raise ContextOverflow: the caller leaves out its oldest turns
#   again    ask for another sample, so many times more; then the answer counts as it is: an agent's
#            costs a step, a meta agent's is sent back with the error and dropped in the end
#   stop     stop the run with one line; it can be resumed
RULES: dict[str, tuple[str, int]] = {
    "busy": ("wait", 0),  # 408, 409, 425, 429 with and without Retry-After, 500 to 599
    "connection": ("wait", 0),  # refused, reset, a body that is cut
    "timeout": ("wait", 0),  # no whole answer within the deadline of the call
    "garbled": ("wait", 0),  # no JSON, or JSON that is no answer of a model
    "request": ("adapt", 0),  # 400, 422 and the like
    "context": ("shorten", 0),  # the prompt is longer than the model's context
    "empty": ("again", 5),
    "length": ("again", 4),  # cut at the limit of tokens
    "refusal": ("again", 4),
    "content filter": ("again", 4),
    "rejected": ("again", 0),  # a 400 for one prompt, where the model answered others
    "key": ("stop", 0),  # 401, 403
    "model": ("stop", 0),  # 404
    "quota": ("stop", 0),  # 402, and a 429 that no waiting helps
    "useless": ("stop", 0),  # BARREN questions in a row without a word in the answer
}
HINTS = {
    "key": "check OPENAI_API_KEY",
    "model": "is the model's name right, is it served there, and does the address end as it should (/v1)?",
    "quota": "the account has no credit left",
}
BARREN = 10  # questions in a row: then the endpoint is at fault, not an answer
MOST_BYTES = 64 << 20  # of the body of an answer
SAY_AGAIN_SECONDS = 60.0  # a fault of one kind is logged once in so long


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    outage: float = 1800.0  # a call's faults in a row before the run stops
    pause: float = 0.5  # before the first retry; doubled each time
    longest_pause: float = 30.0
    deadlines: tuple[tuple[str, float], ...] = (("meta", 4.0), ("embedding", 0.4))  # in `deadline`s
    deadline: float = 300.0  # of a call, from sending to the end of its answer

    def of(self, role: str) -> float:
        return self.deadline * dict(self.deadlines).get(role, 1.0)


@dataclass(frozen=True)
class Reply:
    """What an endpoint said, and what it counts."""

    text: str
    fault: str = ""  # a kind of RULES whose rule is "again", empty for a good answer
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    counted: bool = True  # the endpoint said how many tokens; else they are estimated
    vectors: tuple = ()  # of an embedding call
    seconds: float = 0.0


class Fault(Exception):
    """Something went wrong with a request; `kind` is a key of RULES."""

    def __init__(self, kind: str, detail: str, retry_after: float | None = None):
        super().__init__(detail)
        self.kind, self.retry_after = kind, retry_after


# ----------------------------------------------------------------------------- what it can do

FORMATS = ("json_schema", "json_object", "")  # of an answer in JSON; "": the prompt alone asks for it
LIMITS = ("max_completion_tokens", "max_tokens", "")  # name of the limit of tokens; "": none is sent
COMPLAINTS = {
    "effort": r"reasoning|effort|think",
    "format": r"response_format|json|schema|grammar|guided|structured",
    "limit": r"max_completion_tokens|max_tokens|max_new_tokens|completion",
    "system": r"system|\broles?\b",
}


@dataclass(frozen=True)
class Abilities:
    """How much of a request a model at an endpoint understands: 0 is all, each step is less."""

    effort: int = 0  # 1: no `reasoning_effort`
    format: int = 0  # index into FORMATS
    limit: int = 0  # index into LIMITS
    system: int = 0  # 1: no message of the system, it opens the user's first

    def less(self, complaint: str, body: dict) -> "Abilities | None":
        """One step less of what was sent: what the complaint names, else the least common part."""
        sent = {
            "effort": "reasoning_effort" in body,
            "format": "response_format" in body,
            "limit": bool(LIMITS[self.limit]) and LIMITS[self.limit] in body,
            "system": any(message["role"] == "system" for message in body.get("messages", ())),
        }
        parts = [part for part, is_sent in sent.items() if is_sent]
        named = [part for part in parts if re.search(COMPLAINTS[part], complaint, re.I)]
        for part in named or parts:
            return replace(self, **{part: getattr(self, part) + 1})
        return None

    def both(self, other: "Abilities") -> "Abilities":
        """What both understand."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Abilities(**{part: max(value, getattr(other, part)) for part, value in values.items()})

    def __str__(self) -> str:
        lost = ["reasoning_effort"] * self.effort + [name for name in FORMATS[: self.format]]
        lost += [name for name in LIMITS[: self.limit]] + ["messages of the system"] * self.system
        return ", ".join(lost)


@dataclass(frozen=True)
class Question:
    """What goes to an endpoint: chat messages, or texts to embed."""

    role: str
    model: str
    messages: tuple[dict, ...] = ()
    texts: tuple[str, ...] = ()  # of an embedding call
    effort: str = ""
    schema: dict | None = None  # of the JSON answer that is wanted
    limit: int = 0  # most tokens of the answer, reasoning included
    design: str = ""  # whose turn it is

    def body(self, abilities: Abilities) -> dict:
        """The request, as far as the endpoint understands it."""
        if self.texts:
            return {"model": self.model, "input": list(self.texts)}
        messages, response_format = list(self.messages), None
        if self.schema:
            response_format = _response_format(self.schema, FORMATS[abilities.format])
            if abilities.format or not is_schema(self.schema):
                messages = _add_to_system(messages, SCHEMA_REQUEST + json.dumps(self.schema))
        body = {"model": self.model, "messages": _without_system(messages) if abilities.system else messages}
        if response_format:
            body["response_format"] = response_format
        if self.effort and not abilities.effort:
            body["reasoning_effort"] = self.effort
        if self.limit and LIMITS[abilities.limit]:
            body[LIMITS[abilities.limit]] = self.limit
        return body


SCHEMA_REQUEST = "Answer with one JSON object that fits this JSON schema, and nothing else:\n"


def _response_format(schema: dict, form: str) -> dict | None:
    if not form:
        return None
    if form == "json_object" or not is_schema(schema):
        return {"type": "json_object"}
    named = {"name": "answer", "schema": schema, "strict": _is_strict(schema)}
    return {"type": "json_schema", "json_schema": named}


def _is_strict(schema: dict) -> bool:
    """Whether OpenAI would take it as strict: every object closed and all its keys required."""
    properties = schema.get("properties", {})
    parts = [*properties.values(), *([schema["items"]] if "items" in schema else [])]
    closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(
        properties
    )
    return (closed or schema.get("type") != "object") and all(map(_is_strict, parts))


def _add_to_system(messages: list[dict], text: str) -> list[dict]:
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _without_system(messages: list[dict]) -> list[dict]:
    """What the system says opens the user's first message."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{system}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system}, *rest]


# -------------------------------------------------------------------------------- whose turn


# ------------------------------------------------------------------------------ the endpoint


class Endpoint:
    """The models at one address; each request is sent until it is answered."""

    def __init__(
        self,
        base_url: str,
        key: str,
        in_flight: int,
        patience: Patience,
        log: Callable[[str], None],
        recall: Callable[[str], str | None] = lambda key: None,
        note: Callable[[str, str], None] = lambda key, text: None,
    ):
        self.base_url, self.faults = base_url, Counter()  # faults met, by kind
        self._recall_note, self._keep_note = recall, note  # what was found out outlives this process
        self.slots = FairSlots(in_flight)
        self._key, self._patience, self._log = key, patience, log
        self._client = None
        self._random = random.Random(0)  # spreads retries; decides no result
        self._known: dict[str, Abilities] = {}  # by model
        self._stopped: dict[str, str] = {}  # by model, why it is not asked again
        self._said: dict[str, float] = {}  # when a line was logged last, by kind
        self._estimated: set[str] = set()  # models whose tokens are estimated

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ask(self, question: Question) -> Reply:
        """The model's answer, good or not; raises InfrastructureError and ContextOverflow."""
        used = self._recall(question.model) or Abilities()
        trusted, remember = question.model in self._known, True
        while True:
            try:
                reply = await self._patiently(question, used)
            except Fault as fault:
                if trusted:  # it has answered before: a passing fault must not cost the run an ability
                    trusted = False
                    continue
                less = self._less(question, used, fault)
                if less is None:
                    return self._rejected(question, fault)
                # A schema of a design's own making may be at fault, not the endpoint.
                used, remember = less, remember and "invalid schema" not in str(fault).lower()
            else:
                if remember:
                    self._remember(question.model, used)
                return reply

    # What it understands.

    def _less(self, question: Question, used: Abilities, fault: Fault) -> Abilities | None:
        """What to try after a refused request: what others have found out meanwhile, else less."""
        known = used.both(self._known.get(question.model, used))
        return known if known != used else used.less(str(fault), question.body(used))

    def _recall(self, model: str) -> Abilities | None:
        """What is known of a model, from before a kill too."""
        if model not in self._known and (note := self._recall_note(f"{model} at {self.base_url}")):
            self._known[model] = Abilities(**json.loads(note))
        return self._known.get(model)

    def _remember(self, model: str, used: Abilities) -> None:
        before = self._known.get(model)
        now = used.both(before or used)
        if now == before:
            return
        self._known[model] = now
        self._keep_note(f"{model} at {self.base_url}", json.dumps(vars(now)))
        if now != (before or Abilities()):
            self._log(f"{model} at {self.base_url} does not understand {now}: left out from now on")

    def _rejected(self, question: Question, fault: Fault) -> Reply:
        """A request that is refused however little it asks: one prompt's fault, or the endpoint's."""
        if question.model not in self._known:
            raise self.stop(question, fault)
        self._log(f"{self._line(question, fault)}: the prompt counts as unanswered")
        return Reply("", "rejected")

    # Faults and their rules.

    async def _patiently(self, question: Question, abilities: Abilities) -> Reply:
        """Send until there is an answer; raises Fault where the request itself is refused."""
        first_fault, tries = None, 0
        while True:
            if question.model in self._stopped:
                raise InfrastructureError(self._stopped[question.model])
            try:
                return await self._send(question, abilities)
            except Fault as fault:
                self.faults[fault.kind] += 1
                rule, _ = RULES[fault.kind]
                if rule == "adapt":
                    raise
                if rule == "shorten":
                    self._say("context", f"{self._line(question, fault)}: the oldest turns are left out")
                    raise ContextOverflow(self._line(question, fault)) from None
                if rule == "stop":
                    raise self.stop(question, fault) from None
                first_fault, tries = first_fault or time.monotonic(), tries + 1
                pause = self._pause(question, fault, first_fault, tries)
            await asyncio.sleep(pause)

    def _pause(self, question: Question, fault: Fault, first_fault: float, tries: int) -> float:
        """Seconds until the next try; raises InfrastructureError where that would be too late."""
        patience, line = self._patience, self._line(question, fault)
        pause = fault.retry_after
        if pause is None:
            longest = min(patience.longest_pause, patience.pause * 2 ** min(tries - 1, 30))
            pause = longest * self._random.uniform(0.5, 1.0)
        passed = time.monotonic() - first_fault
        if passed + pause > patience.outage:
            asked = f"; it asks for a pause of {pause:.0f} s" if fault.retry_after else ""
            limit = f"of {patience.outage:.0f} (--outage-seconds)"
            raise InfrastructureError(f"{line}{asked}; gave up after {passed:.0f} s {limit}; resume when it is back")
        self._say(fault.kind, f"{line}; asking again for up to {_minutes(patience.outage)}")
        return pause

    def _say(self, kind: str, line: str) -> None:
        """Log a line, one of its kind in a minute."""
        if time.monotonic() - self._said.get(kind, -1e9) > SAY_AGAIN_SECONDS:
            self._said[kind] = time.monotonic()
            self._log(line)

    def stop(self, question: Question, fault: Fault) -> InfrastructureError:
        """The error that ends the run; the model is not asked again."""
        line = self._line(question, fault)
        self._stopped[question.model] = f"{line}: {HINTS[fault.kind]}" if fault.kind in HINTS else line
        return InfrastructureError(self._stopped[question.model])

    def _line(self, question: Question, fault: Fault) -> str:
        return f"{question.model} at {self.base_url}: {fault}"

    # One request.

    async def _send(self, question: Question, abilities: Abilities) -> Reply:
        import openai

        client, body, started = self.open(), question.body(abilities), time.monotonic()
        path = "/embeddings" if question.texts else "/chat/completions"
        try:
            async with asyncio.timeout(self._patience.of(question.role)):
                # The typed methods walk through every message first: 12 ms of CPU for 40 turns, this 1.5.
                data = await client.post(path, body=body, cast_to=object)
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            fault = self._fault(error, body)
            if fault.kind == "content filter":
                return Reply("", fault.kind, seconds=time.monotonic() - started)
            raise fault from None  # the request, with the key in its headers, ends here
        try:
            reply = _read_vectors(data, question) if question.texts else _read_answer(data, question)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise Fault("garbled", f"no answer of a model: {_brief(self._hide(str(data)))}") from None
        if not reply.counted and question.model not in self._estimated:
            self._estimated.add(question.model)
            self._log(f"{question.model} at {self.base_url} counts no tokens: they are estimated")
        return replace(reply, seconds=time.monotonic() - started)

    def open(self):
        """The client; the first time it is imported and made, which takes a second."""
        if self._client is None:
            import openai

            # Its own retries would hide faults from the log and know no budget of time: RULES has them.
            self._client = openai.AsyncOpenAI(
                base_url=self.base_url,
                api_key=self._key or "none",
                max_retries=0,
                timeout=openai.Timeout(None, connect=15.0),
                http_client=openai.DefaultAsyncHttpxClient(
                    headers={"accept-encoding": "identity"},  # so that what is counted is what is unpacked
                    event_hooks={"response": [_bound]},
                ),
            )
        return self._client

    def _fault(self, error: Exception, body: dict) -> Fault:
        """Which kind of fault an exception of the client is."""
        import openai

        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Fault("timeout", "no answer within the deadline of the call")
        if isinstance(error, openai.APIStatusError):
            return _status_fault(error, self._hide(_message(error)), body)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return Fault("connection", self._hide(f"{type(cause).__name__}: {cause}"))
        return Fault("garbled", self._hide(f"the answer is no JSON: {error}"))

    def _hide(self, text: str) -> str:
        """Text of others as one short line, without the key."""
        return _brief(text.replace(self._key, "***") if self._key else text)


CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|context (length|window|size)|maximum context"
    r"|prompt is too long|input tokens exceed|too many (input )?tokens",
    re.I,
)
FILTER = re.compile(r"content_filter|content_policy|invalid_prompt|moderation|ResponsibleAIPolicy", re.I)
QUOTA = re.compile(r"insufficient_(quota|balance|credits?|funds)|billing", re.I)  # no waiting helps
UNSUPPORTED = re.compile(r"not support|n't support|unsupported", re.I)


async def _bound(response) -> None:
    """Let no body be longer than MOST_BYTES: one without an end would fill the memory before its deadline."""
    import httpx2  # openai's own client

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self):
            size = 0
            async for part in stream:
                size += len(part)
                if size > MOST_BYTES:
                    raise ValueError(f"it is longer than {MOST_BYTES >> 20} MiB")
                yield part

        async def aclose(self) -> None:
            await stream.aclose()

    stream, response.stream = response.stream, Bounded()


def _status_fault(error, message: str, body: dict) -> Fault:
    """The fault that an HTTP status, and what the endpoint says with it, stand for."""
    status, detail = error.status_code, f"{error.status_code} {message}"
    code = f"{error.code} {error.type}"
    if status in (400, 403, 422) and FILTER.search(code + message):
        return Fault("content filter", detail)
    if status == 413 or (status in (400, 422, 500) and CONTEXT.search(code + message)):
        # The limit of the answer counts as part of the context in some servers: try without it first.
        limited = any(name in body for name in LIMITS) and re.search(COMPLAINTS["limit"], message, re.I)
        return Fault("request" if limited else "context", detail)
    if status in (401, 403):
        return Fault("key", detail)
    if status == 404:
        return Fault("model", detail)
    if status == 402 or (status == 429 and QUOTA.search(code)):
        return Fault("quota", detail)
    if status in (408, 409, 425, 429):
        return Fault("busy", detail, _retry_after(error.response.headers))
    if status >= 500 and status != 501:
        named = any(re.search(names, message, re.I) for names in COMPLAINTS.values())
        if not (
            named and UNSUPPORTED.search(message)
        ):  # llama.cpp says 500 where its template knows no system
            return Fault("busy", detail, _retry_after(error.response.headers))
    return Fault("request", detail)


def _message(error) -> str:
    """What an endpoint says about an error, in whichever form it does."""
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or body.get("error") or body)
    return str(body or error.message)


def _retry_after(headers) -> float | None:
    """Seconds to wait as the endpoint asks for: milliseconds, seconds or a date."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after"]))
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _brief(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most] + "..."


# ------------------------------------------------------------------------------- what it said


def _read_answer(data: dict, question: Question) -> Reply:
    """The answer in the JSON of a chat completion; raises KeyError, TypeError, ... where there is none."""
    choice = data["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    content = message.get("content")
    if isinstance(content, list):  # some servers answer in parts
        content = "".join(part.get("text", "") for part in content)
    refusal = message.get("refusal")
    text = strip_thoughts(clean(content or refusal or ""))
    fault = {"content_filter": "content filter", "length": "length"}.get(finish, "")
    fault = fault or ("refusal" if refusal else "" if text else "empty")
    sizes = [len(message["content"]) // 4 for message in question.messages]
    return Reply(text, fault, **_read_usage(data.get("usage"), sum(sizes), len(content or "") // 4))


def _read_vectors(data: dict, question: Question) -> Reply:
    rows = sorted(data["data"], key=lambda row: row["index"])
    vectors = tuple([float(number) for number in row["embedding"]] for row in rows)
    if len(vectors) != len(question.texts) or not all(vectors):
        raise ValueError("a vector is missing")
    usage = _read_usage(data.get("usage"), sum(map(len, question.texts)) // 4, 0)
    return Reply("", vectors=vectors, **usage)


def _read_usage(usage: dict | None, prompt: int, completion: int) -> dict:
    """Tokens as the endpoint counts them, else as estimated."""
    if not usage:
        return {"prompt_tokens": prompt, "completion_tokens": completion, "counted": False}
    details = usage.get("prompt_tokens_details") or {}
    more = usage.get("completion_tokens_details") or {}
    return {
        "prompt_tokens": int(usage.get("prompt_tokens") or 0),
        "cached_tokens": int(details.get("cached_tokens") or 0),
        "completion_tokens": int(usage.get("completion_tokens") or 0),
        "reasoning_tokens": int(more.get("reasoning_tokens") or 0),
    }


def clean(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()
