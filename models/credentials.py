"""Providers of models, their addresses and their keys: where keys come from and how they stay hidden.

Promises: a key is read from the environment or from `.env` in the current folder; it goes to its own provider's
address and to no other; no repr shows it, no child process inherits it, no pickle and no core dump holds it. It
does not hide from root, nor from a program that already traces this process.
"""

import ctypes
import functools
import io
import ipaddress
import os
import re
import resource
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from errors import UserError

OPENAI_URL = "https://api.openai.com/v1"

# By name: the OpenAI-compatible address, and the provider's own variable for the key ("" for local servers: none).
PROVIDERS = {
    "openai": (OPENAI_URL, "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "ollama": ("http://localhost:11434/v1", ""),
    "llama.cpp": ("http://localhost:8080/v1", ""),
    "vllm": ("http://localhost:8000/v1", ""),
}


def check_url(url: str) -> str:
    """The address of an endpoint, without a slash at its end; raises UserError for anything else."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not parts.query
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        raise UserError(f"address {url!r} is not http://host:port/v1 or https://host/v1")
    if parts.username or parts.password:
        raise UserError("an address must not hold a password, since runs record it: use a variable")
    return url.rstrip("/")


def is_local(url: str) -> bool:
    """Whether an address is on this machine or in a private network, where servers ask for no key."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".lan"))
    return address.is_private or address.is_loopback or address.is_unspecified


def is_this_machine(url: str) -> bool:
    """Whether an address is on this machine, so that no proxy may stand in between."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower()
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


class Key(str):
    """A key that is shown to nobody but the server it is for; `variable` names where it came from."""

    def __new__(cls, variable: str, value: str):
        key = super().__new__(cls, value)
        key.variable = variable
        return key

    def __repr__(self) -> str:
        return "Key(hidden)"

    def __reduce_ex__(self, protocol):
        raise TypeError("a key does not leave its process")


def _is_key(name: str) -> bool:
    return name.startswith("OPENAI_API_KEY") or any(name and name == own for _, own in PROVIDERS.values())


@dataclass(frozen=True)
class Keys:
    """Keys and the default address, from the environment and from `.env` in the current folder."""

    base_url: str = OPENAI_URL  # of models without an address of their own
    named: bool = False  # the user set OPENAI_BASE_URL
    _values: Mapping[str, Key] = field(default_factory=dict, repr=False)  # by name of variable

    @classmethod
    def read(cls, take: bool = False) -> "Keys":
        """Read them; `take` also removes every secret from this process's environment, so that no child inherits one,
        and remembers the keys for later calls. A process that holds a key leaves no core dump."""
        values = _variables()
        base_url = values.get("OPENAI_BASE_URL", "").strip()
        found = {name: Key(name, value.strip()) for name, value in values.items() if _is_key(name) and value.strip()}
        if take:
            _taken().update(found)
            for name in os.environ.keys() - child_environment().keys():
                del os.environ[name]
        if found:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if sys.platform == "linux":  # where the kernel pipes dumps to a program, a limit of 0 does not hold
                ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: no process of the user may trace this one
        return cls(check_url(base_url) if base_url else OPENAI_URL, bool(base_url), found)

    def __bool__(self) -> bool:
        """Whether the default models can be asked: there is an OpenAI key or an address."""
        return self.named or "OPENAI_API_KEY" in self._values

    def of(self, base_url: str) -> Key:
        """The key for an address, empty for a local server without one; raises UserError. OPENAI_API_KEY goes also to
        the very address in OPENAI_BASE_URL."""
        variables = variables_of(base_url) + ["OPENAI_API_KEY"] * (self.named and base_url == self.base_url)
        key = next((self._values[name] for name in variables if name in self._values), Key("", ""))
        if key and not re.fullmatch(r"[!-~]+", key):
            raise UserError(f"{key.variable} holds a space or a character that no key has")
        if not key and not is_local(base_url):
            raise UserError(f"no key for {base_url}: set {variables[-1]} in the environment or in .env, or use offline")
        return key


def variables_of(base_url: str) -> list[str]:
    """Names of the variables that may hold the key for an address: OPENAI_API_KEY_<HOST>, and its provider's own."""

    def reached(url: str) -> tuple:  # by a key that is sent to this address
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

    own = [name for url, name in PROVIDERS.values() if name and reached(url) == reached(base_url)]
    host = re.sub(r"\W", "_", urlsplit(base_url).hostname or "").upper()
    return [f"OPENAI_API_KEY_{host}", *own]


@functools.cache
def _taken() -> dict[str, Key]:
    """The keys that are no longer in this process's environment: one process, one environment."""
    return {}


def _variables() -> dict[str, str]:
    """Those of the environment, else those that were taken, else those in `.env`; UserError where that is broken."""
    path, found = Path(".env"), {}
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8 text')}") from None
    for line in parse_stream(io.StringIO(text)):  # not load_dotenv: it expands variables and searches upwards
        name = re.match(r"\s*(?:export\s+)?(\w*)", line.original.string)[1]
        if line.value is not None:
            found[line.key] = line.value
        elif _is_key(name) or name.startswith("OPENAI_"):
            number = line.original.line + line.original.string.partition(name)[0].count("\n")
            raise UserError(f"{path}, line {number}, is not NAME=value")  # not the line: it may hold a key
    return {**found, **_taken(), **os.environ}


_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.I)
# What the keys of common services look like; a word of that form with no digit in it is no key.
_LIKE_A_KEY = re.compile(
    rb"(?<![\w-])(sk-(?=[\w-]*\d)[\w-]{20,}|(gsk|hf|r8)_\w{20,}|AIza[\w-]{30,}|AKIA[0-9A-Z]{16}|gh[oprsu]_\w{30,}"
    rb"|github_pat_\w{30,}|xox[abprs]-[\w-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def find_secret(data: bytes) -> str:
    """What secret of this machine's environment or `.env` is in some bytes, or what looks like one; "" for none."""
    for name, value in _variables().items():
        if (_is_key(name) or _SECRET.search(name)) and len(value.strip()) >= 8 and value.strip().encode() in data:
            return f"the value of {name}"
    found = _LIKE_A_KEY.search(data)
    return f"what looks like a key ({found[0][:6].decode()}…)" if found else ""


def child_environment() -> dict[str, str]:
    """This process's environment without keys, tokens and passwords: for every child."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
