"""Judges what comes out of the sandbox: messages, values and printed text of hostile code.

It promises that a message is a JSON object of bounded size, number of values and nesting; that a value that is
passed on has finite numbers of at most 64 bits and whole Unicode text; that printed text is cut and holds no
control characters. It does not promise that a text is harmless to a model that reads it.
"""

import asyncio
import dataclasses
import json
import math
import os
import re
import sysconfig
import types
import typing
from collections.abc import Callable
from typing import Any

import memory_base
from errors import DesignError, clean
from jail.child import LENGTH

# What the interpreter prints of a thread when it dies or is asked where it is; the group ends with the design's part.
TRACES = re.compile(r"(?:Current t|T)hread 0x\.\.\. \(most recent call first\):\n(?=  File .*\n)"
                    r"((?:  File .*\n)*(?=  File .*\n).*  File \"design\.py\".*\n)?(?:  File .*\n)*\n?")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one worker may use."""

    cpu_seconds: float = 20.0  # CPU time of one call of the design, counted from its first second on
    wall_seconds: float = 60.0  # time of one call, waiting for models not counted
    life_cpu_seconds: int = 600  # CPU time of a worker's whole life, kept by the kernel
    memory_bytes: int = 768 << 20  # address space, of which numpy and networkx take 190 MB
    scratch_bytes: int = 64 << 20  # size of the scratch folder
    scratch_files: int = 2_000  # files and folders in it
    threads: int = 64
    open_files: int = 256
    output_bytes: int = 64 << 10  # of stdout and stderr that are kept
    flood_bytes: int = 16 << 20  # of stdout and stderr after which the worker is ended
    frame_bytes: int = 4 << 20  # of one message
    nodes: int = 200_000  # values in one message
    depth: int = 64  # their nesting
    retrieved_chars: int = 1_000_000  # JSON text of what a retrieval returns
    prompt_chars: int = 400_000  # text in one model call
    items: int = 64  # of a list in one model call, as texts to embed
    calls: int = 512  # model calls during one call of the design
    parallel: int = 32  # model calls that are answered at the same time
    io_seconds: float = 30.0  # until a begun message is read or written whole


def pack(message: Any) -> bytes:
    """A frame with a message of our own."""
    body = json.dumps(message, allow_nan=False).encode()
    return LENGTH.pack(len(body)) + body


def length(header: bytes, most: int) -> int:
    """The length that a frame claims to have. Raises ValueError if it is over `most`."""
    (claimed,) = LENGTH.unpack(header)
    if claimed > most:
        raise ValueError(f"a message of {claimed} bytes, at most {most} are allowed")
    return claimed


def parse(body: bytes, limits: Limits) -> dict:
    """The message in a frame; `judge` has still to check its values."""
    # Each of these characters may begin a value, so the count bounds what the parser can build.
    limit(body.count(b",") + body.count(b"[") + body.count(b"{"), limits.nodes, "values in a message", "protocol")
    try:  # NaN for more than 64 bits, and nobody converts a million digits
        message = json.loads(body.decode(), parse_int=lambda text: int(text) if len(text) <= 20
                             and -(1 << 63) <= int(text) < 1 << 64 else math.nan)
    except (ValueError, RecursionError) as error:
        raise DesignError("protocol", f"a message that is not JSON: {clean(str(error))[:200]}") from None
    if not isinstance(message, dict):
        raise DesignError("protocol", "a message that is not a JSON object")
    return message


def judge(value: Any, limits: Limits, depth: int = 0) -> Any:
    """The value with lone surrogates replaced. Raises DesignError for a bad number or too deep a nesting."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):  # the parser makes infinity of 1e999
        raise DesignError("invalid", "a number that is not finite or has more than 64 bits")
    if isinstance(value, (dict, list)) and depth >= limits.depth:
        raise DesignError("invalid", f"values nested more than {limits.depth} deep")
    if isinstance(value, dict):
        return {judge(key, limits): judge(one, limits, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [judge(one, limits, depth + 1) for one in value]
    return value


def outcome(message: dict, limits: Limits) -> Any:
    """The value in a worker's answer to a command; the design's error is raised."""
    if message["op"] == "fail":
        status = "invalid" if message.get("status") == "invalid" else "error"
        error = re.sub(r"  File \"/alma/jail/.*\n", "", clean_trace(str(message.get("error"))))
        raise DesignError(status, error if len(error) <= 6_000 else f"{error[:3_000]}\n[...]\n{error[-3_000:]}")
    value = judge(message.get("value"), limits)
    limit(len(json.dumps(value, ensure_ascii=False)), limits.retrieved_chars, "characters retrieved")
    return value


def tools() -> list[str]:
    """The names of what a design may call."""
    return [name for name in dir(memory_base.Tools) if not name.startswith("_")]


def check_call(tool: str, arguments: Any, limits: Limits) -> None:
    """Raise DesignError where the arguments of a call of a tool are not what is declared, or too much."""
    kinds = typing.get_type_hints(getattr(memory_base.Tools, tool))
    kinds.pop("return", None)
    if not isinstance(arguments, list) or len(arguments) != len(kinds):
        raise DesignError("invalid", f"{tool} takes {len(kinds)} arguments")
    for number, (value, kind) in enumerate(zip(arguments, kinds.values(), strict=True), 1):
        if not _fits(value, kind):
            raise DesignError("invalid", f"argument {number} of {tool} must be {getattr(kind, '__name__', kind)}")
        if isinstance(value, list):
            limit(len(value), limits.items, f"items in one call of {tool}")
    limit(len(json.dumps(arguments, ensure_ascii=False)), limits.prompt_chars, f"characters in one call of {tool}")


def limit(count: int, most: int, what: str, status: str = "invalid") -> None:
    """Raise DesignError where there is more of something than is allowed."""
    if count > most:
        raise DesignError(status, f"{count} {what}, at most {most} are allowed")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a type: str, int, float, bool, None, Any, dict, list[...], or a union."""
    if kind is Any:
        return True
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, *inner) for one in value if inner)
    return type(value) is origin or (origin is float and type(value) is int)


def clean_trace(text: str) -> str:
    """A design's text, cleaned, without addresses and this machine's paths: a model is shown it."""
    for name in ("purelib", "platlib", "stdlib"):
        text = text.replace(sysconfig.get_path(name) + "/", "")
    return re.sub(r"\b0x[0-9a-f]{8,16}\b", "0x...", clean(text))


class Output:
    """Drains a worker's stdout and stderr, and keeps the beginning and the end of it."""

    def __init__(self, limits: Limits, stop: Callable[[DesignError], None]):
        self._limits, self._stop = limits, stop
        self._head, self._tail, self._bytes, self._descriptor = b"", b"", 0, -1

    def open(self) -> int:
        """Begin to drain; returns the writing end, which is the worker's."""
        self._descriptor, writing = os.pipe()
        os.set_blocking(self._descriptor, False)
        asyncio.get_running_loop().add_reader(self._descriptor, self._drain)
        return writing

    def text(self) -> str:
        for _ in range(2):  # as much as the pipe can hold, and not more: the design may go on writing
            self._drain()
        lost = self._bytes - len(self._head) - len(self._tail)
        middle = f"\n[... {lost} bytes ...]\n".encode() if lost else b""
        text = clean_trace((self._head + middle + self._tail).decode(errors="replace"))
        text = TRACES.sub(lambda trace: f"Most recent call first:\n{trace[1]}" if trace[1] else "", text)
        return re.sub(r"\nExtension modules: .*", "", text)

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _drain(self) -> None:
        if self._descriptor < 0:
            return
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            return self.close()
        self._bytes, half = self._bytes + len(data), self._limits.output_bytes // 2
        room = max(0, half - len(self._head))
        self._head += data[:room]
        self._tail = (self._tail + data[room:])[-half:]
        if self._bytes > self._limits.flood_bytes >= self._bytes - len(data):  # once: each stop is a message
            self._stop(DesignError("flood", f"more than {self._limits.flood_bytes} bytes on stdout and stderr"))
