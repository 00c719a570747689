"""Keys and addresses of endpoints: where they come from and how they stay hidden.

Promises: a key is read from the environment or from `.env` in the current folder, shown by no repr,
pickled to no other process, left to no child and to no core dump. It does not promise to hide it from
root, nor from a program that already traces this process.

Try it: `OPENAI_API_KEY=x python -c "import keys; print(keys.Keys.read(), bool(keys.Keys.read()))"`
"""

import ctypes
import functools
import ipaddress
import os
import re
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from errors import UserError

OPENAI_URL = "https://api.openai.com/v1"


def check_url(url: str) -> str:
    """The address of an endpoint; raises UserError where it is none or holds a password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not parts.query
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        raise UserError(f"address {url!r} is not http://host:port/v1 or https://host/v1")
    if parts.username or parts.password:
        raise UserError("an address must hold no password: it is written into the run; set OPENAI_API_KEY")
    return url.rstrip("/")


def is_local(url: str) -> bool:
    """Whether an address is on this machine or in a private network, where servers ask for no key."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".lan"))
    return address.is_private or address.is_loopback or address.is_unspecified


_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.I)


class Key(str):
    """A key that shows itself to nobody but the client that sends it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Key(hidden)"

    def __reduce_ex__(self, protocol):
        raise TypeError("a key does not leave its process")


@dataclass(frozen=True)
class Keys:
    """Keys and the default address, from the environment and from `.env` in the current folder."""

    base_url: str = OPENAI_URL  # of models without an address of their own
    named: bool = False  # the user named `base_url`
    _values: Mapping[str, Key] = field(default_factory=dict, repr=False)  # by name of variable

    @classmethod
    def read(cls, take: bool = False) -> "Keys":
        """Read them; `take` also removes every secret from this process's environment, so that no
        child inherits one, and keeps the keys for those who read them later."""
        values = {**_read_dotenv(Path(".env")), **_taken(), **os.environ}
        base_url = values.get("OPENAI_BASE_URL", "")
        found = {
            name: _check_key(name, value) for name, value in values.items() if _is_key(name) and value.strip()
        }
        if take:
            _taken().update(found)
            for name in os.environ.keys() - child_environment().keys():
                del os.environ[name]
        if found:
            forbid_core_dumps()
        return cls(check_url(base_url) if base_url else OPENAI_URL, bool(base_url), found)

    def __bool__(self) -> bool:
        """Whether there is anything to ask a model with: a key or an address."""
        return self.named or "OPENAI_API_KEY" in self._values

    def of(self, base_url: str, log: Callable[[str], None] = lambda line: None) -> str:
        """The key for an endpoint: `OPENAI_API_KEY_<HOST>`, else OPENAI_API_KEY; raises UserError."""
        host = re.sub(r"\W", "_", urlsplit(base_url).hostname or "").upper()
        own = f"OPENAI_API_KEY_{host}"
        if own in self._values:
            return self._values[own]
        if "OPENAI_API_KEY" in self._values:
            if base_url != self.base_url:
                log(f"{base_url} gets OPENAI_API_KEY; set {own} if it should get another key")
            return self._values["OPENAI_API_KEY"]
        if is_local(base_url):
            return ""
        raise UserError(
            f"no key for {base_url}: set OPENAI_API_KEY in the environment or in .env, or use offline"
        )


@functools.cache
def _taken() -> dict[str, Key]:
    """The keys that are no longer in this process's environment: one process, one environment."""
    return {}


def _is_key(name: str) -> bool:
    return name.startswith("OPENAI_API_KEY")


def _check_key(name: str, value: str) -> Key:
    if not re.fullmatch(r"[!-~]+", value.strip()):
        raise UserError(f"{name} holds a space or a sign that no key has")
    return Key(value.strip())


_LINE = re.compile(r"\s*(?:export\s+)?(OPENAI_\w+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^#\"']*?))\s*(?:#.*)?")


def _read_dotenv(path: Path) -> dict[str, str]:
    """The OPENAI_ variables of a `.env` file: NAME=value, quotes and `export` allowed. Raises UserError."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', 'it is no text in UTF-8')}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if match := _LINE.fullmatch(line):
            found[match[1]] = next(value for value in match.groups()[1:] if value is not None)
        elif re.match(r"\s*(export\s+)?OPENAI_", line):
            raise UserError(f"{path}, line {number}, is not NAME=value")  # without the line: it may hold a key
    return found


def child_environment() -> dict[str, str]:
    """This process's environment without keys, tokens and passwords: for every child."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


def forbid_core_dumps() -> None:
    """No core dump of this process, which holds a key; nor may its user's other processes trace it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        pr_set_dumpable = 4  # a limit of 0 does not hold where the kernel pipes dumps to a program
        ctypes.CDLL(None).prctl(pr_set_dumpable, 0, 0, 0, 0)
