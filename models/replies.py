"""Reads what an endpoint sends back, in each server's own way: the answer or the vectors, the tokens, or the fault.

Promises: whatever the body holds comes out as a `Reply`, a `Fault` or a ValueError; an error counts the same with
status 200; a stream that nobody asked for is put together; numbers that are none are estimated.
"""

import array
import base64
import contextlib
import email.utils
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from models.answers import strip_thoughts


@dataclass(frozen=True)
class Reply:
    """What a model said, and what it counts."""

    text: str
    fault: str = ""  # a kind of RULES whose rule is "again", or "context": the text says why; empty for a good answer
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    counted: bool = True  # the endpoint said how many tokens; else they are estimated
    vectors: tuple = ()  # of an embedding call; a DesignError in place of one for a text that is refused
    seconds: float = 0.0


@dataclass(frozen=True)
class Fault:
    """What went wrong with a request."""

    kind: str  # a key of RULES
    detail: str
    retry_after: float | None = None  # seconds


LIMITS = ("max_completion_tokens", "max_tokens")  # names of the limit of tokens
SYSTEM = "messages of the system"  # where they are left out, their text is prepended to the first user message
# The parts of a request that not every endpoint understands, the least common first, with the words of complaints.
PARTS = {
    "reasoning_effort": r"reasoning|effort|think",
    **dict.fromkeys(("json_schema", "json_object"), r"response_format|json|schema|grammar|guided|structured"),
    **dict.fromkeys(LIMITS, r"max_completion_tokens|max_tokens|max_new_tokens|completion"),
    SYSTEM: r"system|\broles?\b",
}
MESSAGES = {"message", "msg", "detail", "title", "error_msg", "error_message", "error_description"}  # of errors
CONTEXT = re.compile(r"context_length_exceeded|exceed_context_size|context (length|window|size)|maximum context"
                     r"|prompt is too long|input tokens exceed|too many (input )?tokens", re.I)  # fmt: skip
FILTER = re.compile(r"content_filter|content_policy|invalid_prompt|moderation|ResponsibleAIPolicy", re.I)
BAD_SCHEMA = re.compile(r"invalid schema|schema error at|\$ref", re.I)  # OpenAI's words, llama.cpp's
_UNIT = r"\b(?:inputs?|texts?|tokens?|sequences?|items?|batch)\b"
_OVER = r"(?:too (?:long|many)|exceed|larger|longer|less|at most|maximum)"
TOO_LARGE = re.compile(rf"too large|batch.?size|{_UNIT}.{{0,60}}{_OVER}|{_OVER}.{{0,60}}{_UNIT}", re.I)
# Errors that come without a status, by their words; what is not here is asked again.
STATUS_BY_WORDS = (
    (400, re.compile(f"{CONTEXT.pattern}|{FILTER.pattern}|unsupported|invalid.request", re.I)),
    (402, re.compile(r"insufficient.{0,12}(credit|balance|quota|funds)|payment required|billing", re.I)),
    (429, re.compile(r"rate.?limit|too many requests", re.I)),
    (401, re.compile(r"unauthori[sz]ed|authenticat|api.?key|no auth|forbidden|permission", re.I)),
    (404, re.compile(r"not.?found|does not exist|no endpoints|unknown model", re.I)),
)
# Reasons to finish, by their words; any other is that of a whole answer.
FINISHED = {"broken off": r"broken off", "length": r"length|max.?(?:output.?)?tokens",
            "content filter": r"filter|safety|sensitive|prohibited|blocklist|recitation", "refusal": r"refus"}  # fmt: skip


def read(content: bytes, body: dict) -> Reply | Fault:
    """The reply to the request `body`; raises ValueError where the content holds no JSON."""
    data, choice = _read_body(content)
    finish = str(choice.get("finish_reason") or "").lower()
    # An error may come with status 200, also beside an answer.
    error = data.get("error") or data.get("errors") or choice.get("error")
    if isinstance(error, dict) and not any(error.values()):
        error = None  # some say so that there is none
    if not error and not data.keys() & {"choices", "data"} and data.keys() & MESSAGES:
        error = data
    if not error and re.search(r"error|abort|cancel|fail|insufficient", finish):
        error = f"the answer was broken off ({finish})"
    if error:
        return refusal(error, body, 0, {})

    # Vectors, in the order of the texts.
    if texts := body.get("input"):
        try:
            rows = data["data"]
            if all(isinstance(row.get("index"), int) for row in rows):  # else they are in order
                rows = sorted(rows, key=lambda row: row["index"])
            vectors = [row["embedding"] for row in rows]
            vectors = [array.array("f", base64.b64decode(one)) if isinstance(one, str) else one for one in vectors]
            vectors = tuple([float(number) for number in vector] for vector in vectors)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            vectors = ()
        # Below what 32 bits hold; NaN is not below it either.
        finite = all(abs(number) < 3e38 for vector in vectors for number in vector)
        if len(vectors) != len(texts) or len(set(map(len, vectors))) != 1 or not vectors[0] or not finite:
            return Fault("no vectors", "the answer has no vector of numbers for each text")
        return Reply("", vectors=vectors, **_read_usage(data.get("usage"), sum(map(len, texts)) // 4, 0))

    # An answer; no choice and no message are an empty one.
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": message or choice.get("text")}
    answer, refused = _text(message.get("content")), _text(message.get("refusal"))
    text = strip_thoughts(without_surrogates(answer or refused))
    thoughts = any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    otherwise = "refusal" if refused else "" if text else "only thoughts" if thoughts else "empty"
    fault = next((kind for kind, words in FINISHED.items() if re.search(words, finish)), otherwise)
    prompt = sum(len(message["content"]) for message in body["messages"]) // 4
    usage = _read_usage(data.get("usage"), prompt, len(answer) // 4)
    # llama.cpp begins an answer that the context has no room for, and says "length". No limit of a provider's own
    # is below 256 tokens, so the context cut an answer that is shorter.
    limit, written = next((body[name] for name in LIMITS if name in body), 0), usage["completion_tokens"]
    if fault == "length" and usage["counted"] and written < min(limit, 256):
        text, fault = f"the answer was cut after {written} tokens of {limit}: the context is full", "context"
    return Reply(text, fault, **usage)


def _read_body(body: bytes) -> tuple[dict, dict]:
    """The JSON object in a body, whatever its content type says, and its first choice; raises ValueError for no JSON."""
    text, chunks, position = body.decode("utf-8-sig", "replace").strip(), [], 0
    start = re.compile(r"^(?:data:)?[ \t]*(?=\{|\[(?!DONE))", re.M)  # of a value: on a line of its own
    while found := start.search(text, position):
        value, position = json.JSONDecoder().raw_decode(text, found.end())
        chunks += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
    if not chunks and any(words.search(text) for _, words in STATUS_BY_WORDS) and "<" not in text:
        return {"error": text}, {}
    if not chunks:
        if "[DONE]" not in text:
            json.loads(text)
        return {}, {}  # JSON, but no object
    lists = [chunk["choices"] for chunk in chunks if isinstance(chunk.get("choices"), list)]
    choices = [choice for choices in lists for choice in choices if isinstance(choice, dict)]
    if len(chunks) == 1 and not any("delta" in choice for choice in choices):
        return chunks[0], next(iter(choices), {})

    # A stream that nobody asked for.
    whole = {key: value for chunk in chunks for key, value in chunk.items() if value}
    message, finish, error = {}, None, None
    for choice in (one for one in choices if not one.get("index")):  # the rest is another answer
        part = choice.get("delta")
        if isinstance(choice.get("message"), dict):  # the whole of it
            part, message = choice["message"], {}
        for key, value in part.items() if isinstance(part, dict) else ():
            message[key] = message.get(key, "") + _text(value)
        finish, error = choice.get("finish_reason") or finish, choice.get("error") or error
    finish = finish or ("" if "[DONE]" in text else "broken off")
    return whole, {"message": message, "finish_reason": finish, "error": error} if choices else {}


def _text(content) -> str:
    """The text of a message's content; some servers send it in parts, thoughts among them."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _read_usage(usage, prompt: int, completion: int) -> dict:
    """Tokens as the endpoint counts them; `prompt` and `completion` are the estimates of what it does not."""
    usage = usage if isinstance(usage, dict) else {}
    details = [usage.get(f"{part}_tokens_details") for part in ("prompt", "completion")]
    counts = {name: count for part in details if isinstance(part, dict) for name, count in part.items()} | usage
    # More tokens in one call are miscounted; NaN is in no range.
    counted = Counter({name: int(n) for name, n in counts.items() if type(n) in (int, float) and 0 <= n <= 10_000_000})
    asked, written = counted["prompt_tokens"], counted["completion_tokens"]
    # 0 for what has text is no count either; an embedding has no completion.
    all_counted = bool((asked or not prompt) and (written or not completion))
    if asked and written:
        written = max(written, counted["total_tokens"] - asked)  # some count thoughts in the total alone
    prompt, completion = asked or prompt, written or completion
    cached, reasoning = min(counted["cached_tokens"], prompt), min(counted["reasoning_tokens"], completion)
    return {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion,
            "reasoning_tokens": reasoning, "counted": all_counted}  # fmt: skip


def without_surrogates(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()


def suspects(body: dict, complaint: str) -> list[str]:
    """The parts of a request that may be at fault: those that the complaint names, else all that were sent."""
    systems = [SYSTEM for message in body["messages"] if message["role"] == "system"]
    sent = {*body, body.get("response_format", {}).get("type"), *systems}
    parts = [part for part in PARTS if part in sent]
    return [part for part in parts if re.search(PARTS[part], complaint, re.I)] or parts


def refusal(error, body: dict, status: int, headers: Mapping) -> Fault:
    """The fault that an error in an answer stands for; with `status` 0 it came beside 200 and has its own."""
    own, codes, message = _described(error)
    said = f"{codes} {message}"[:10_000]
    status = status or own or next((status for status, words in STATUS_BY_WORDS if words.search(said)), 502)
    detail = f"{status} {message}"
    if 300 <= status < 400:
        return Fault("moved", f"{status} it redirects to {headers.get('location')}")
    if status in (400, 403, 422, 500) and FILTER.search(said):
        return Fault("content filter", detail)
    too_large = CONTEXT.search(said) or ("input" in body and TOO_LARGE.search(said))
    if status == 413 or (status in (400, 422, 500) and too_large):
        # The limit of the answer counts as part of the context in some servers: try without it first.
        limited = any(name in body and re.search(PARTS[name], message, re.I) for name in LIMITS)
        return Fault("request" if limited else "context", detail)
    if status == 429 and re.search(r"insufficient_(quota|balance|credits?|funds)|billing", codes, re.I):
        status = 402  # no waiting helps
    if kind := {401: "key", 402: "quota", 403: "key", 404: "model", 407: "environment"}.get(status):
        return Fault(kind, detail)
    # llama.cpp says 500 where its template knows no system.
    named = any(re.search(words, message, re.I) for words in PARTS.values())
    unsupported = named and re.search(r"not support|n't support|unsupported", message, re.I)
    busy = status in (408, 409, 425, 429) or (status >= 500 and status != 501 and not unsupported)
    return Fault("busy", detail, _retry_after(headers)) if busy else Fault("request", detail)


def _described(error) -> tuple[int, str, str]:
    """Status (0: it has none), codes and message of an error, in whichever form an endpoint gives it."""
    statuses, codes, messages = [], [], []

    def look(name: str, value, depth: int) -> None:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(value)
        if isinstance(value, dict | list) and depth < 6:
            for key, part in value.items() if isinstance(value, dict) else ((name, part) for part in value):
                look(str(key).lower(), part, depth + 1)
        elif name.endswith(("code", "status")) and re.fullmatch(r"[45]\d\d", str(value)):
            statuses.append(int(value))
        elif name in ("code", "type", "status", "reason", "error_type") and value:
            codes.append(str(value))
        elif name in (*MESSAGES, "error", "errors", "raw", "loc", "param") and value:
            messages.append(str(value))  # FastAPI names the parameter in `loc`

    look("error", error, 0)
    return next(iter(statuses), 0), " ".join(codes), ": ".join(dict.fromkeys(messages)) or str(error)


def _retry_after(headers: Mapping) -> float | None:
    """Seconds to wait as the endpoint asks for: milliseconds, seconds or a date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
            return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None
