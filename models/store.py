"""The SQLite store of one run: every finished model call, every embedding, every finished episode.

Promises: once `put_*` has returned, a SIGKILL loses nothing (a power cut may lose the last calls, which are then
asked again); a full disk leaves the file intact; only one process writes.
Try it: `sqlite3 runs/<run>/store.sqlite 'select model, count(*), sum(usd) from calls group by model'`
"""

import array
import contextlib
import errno
import fcntl
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from errors import InfrastructureError, UserError


@dataclass(frozen=True)
class Call:
    """One finished model call; it was paid for, whether or not its answer is of use."""

    key: str  # hash of everything that shapes the answer
    role: str  # "meta", "agent", "memory" or "embedding"
    model: str  # as in `--agent-model`: name, effort, address
    design: str = ""  # id of the design that the call was made for; a candidate's name before it has one
    stage: str = ""  # "ideate", "implement", "verify", "play", "memory, test set", ...
    sample: str = ""  # tells apart calls with the same messages
    prompt_hash: str = ""  # of the messages alone
    request: str = ""  # the messages as JSON, empty for roles that ask too often
    answer: str = ""  # what the model said, without its thoughts
    fault: str = ""  # why the answer is of no use ("empty", "length", ...), empty for a good one
    prompt_tokens: int = 0
    cached_tokens: int = 0  # part of the prompt tokens
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # part of the completion tokens
    usd: float | None = None  # None where the model's price is unknown
    seconds: float = 0.0  # of the request that succeeded
    created: float = 0.0  # Unix time, seconds


COLUMNS = {field.name: {str: "text", int: "integer"}.get(field.type, "real") for field in fields(Call)}
TABLES = (
    f"calls ({', '.join(map(' '.join, COLUMNS.items()))}, primary key (key)) without rowid",
    "embeddings (key text primary key, vector blob) without rowid",
    "notes (key text primary key, note text) without rowid",
    "episodes (key text primary key, episode text)",  # large values fill the pages of a table with row ids better
)
BY = ("role", "model", "design", "stage")  # what usage is told apart by
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
SUMS = (*TOKENS, "usd", "seconds")
TOTALS = ("calls", *SUMS, "unpriced")  # what usage says
FAULTS = (  # what SQLite's errors mean, by the beginnings of their names: a full disk is not a broken file
    (("SQLITE_FULL",), InfrastructureError, "disk is full: {path} cannot grow: make room, then resume"),
    (("SQLITE_IOERR",), InfrastructureError, "{path} cannot be written ({name}): is the disk full or gone?"),
    (("SQLITE_BUSY", "SQLITE_LOCKED"), InfrastructureError, "{path} is locked by another program"),
    (("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"), UserError, "{path} cannot be opened or written: {error}"),
    (("",), UserError, "{path} is not a store that can be read: {error}; restore or remove it"),
)


def _packed(text: str) -> str | bytes:
    """A text as it is stored: a long one as a zlib stream, a short one such that `sqlite3` shows it."""
    return text if len(text) < 1000 else zlib.compress(text.encode(), 9)


def _unpacked(stored: str | bytes) -> str:
    """The text again; older stores hold episodes as plain text."""
    return zlib.decompress(stored).decode() if isinstance(stored, bytes) else stored


class Store(contextlib.AbstractContextManager):
    """The file, open for one process; `with Store(path) as store` closes it. Its methods raise what FAULTS says."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:  # a lock that ends with this process and is not inherited by its children
            self._lock = open(f"{self.path}.lock", "a")  # noqa: SIM115 - held as long as the store
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path} is in use by another process: one run, one process") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise InfrastructureError(f"disk is full: {self.path.parent}: make room, then resume") from None
            raise UserError(f"{self.path} cannot be opened: {error.strerror}") from None
        with self._faults():
            # Autocommit: each finished call is on its way to the disk before its answer is used.
            uri = self.path.absolute().as_uri()
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._do("pragma busy_timeout = 10000")
            self._do("pragma page_size = 512")  # of a new file: episodes of 2 kB fill these better, a fifth is saved
            if self._do("pragma quick_check(1)") != [("ok",)]:
                raise sqlite3.DatabaseError("malformed")
        self._do("pragma journal_mode = wal")
        self._do("pragma synchronous = normal")  # outlives a SIGKILL, no sync for each call
        for table in TABLES:
            self._do(f"create table if not exists {table}")

    def _do(self, statement: str, *values) -> list[tuple]:
        """The rows that a statement gives; it is committed when this returns, but for one in a transaction."""
        with self._faults():
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's errors are raised as what they mean."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", None) or ""
            kind, message = next((kind, message) for starts, kind, message in FAULTS if name.startswith(starts))
            raise kind(message.format(path=self.path, name=name, error=error)) from None

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.closing(self._lock), self._faults():
            self._db.close()

    def get_call(self, key: str) -> Call | None:
        return next(iter(self._calls("key = ?", key)), None)

    def calls(self, role: str) -> list[Call]:
        """The calls of a role whose answers count, in the order in which they ended."""
        return self._calls("role = ? and key not like '% set aside %' order by created, key", role)

    def _calls(self, where: str, value: str) -> list[Call]:
        calls = [Call(*row) for row in self._do(f"select {', '.join(COLUMNS)} from calls where {where}", value)]
        return [replace(one, request=_unpacked(one.request), answer=_unpacked(one.answer)) for one in calls]

    def put_call(self, call: Call) -> None:
        """Store a finished call; it is committed when this returns."""
        row = {**vars(call), "request": _packed(call.request), "answer": _packed(call.answer)}
        self._do(f"insert or ignore into calls values ({', '.join('?' * len(COLUMNS))})", *row.values())

    def set_aside(self, column: str, values: Sequence[str]) -> None:
        """Still count what the calls with these keys or faults cost, but forget their answers: they are asked again."""
        forget = "update calls set key = key || ' set aside ' || created where key not like '% set aside %'"
        for value in values:
            self._do(f"{forget} and {column} = ?", value)

    def usage(self) -> list[dict]:
        """TOTALS by role, model, design and stage; `usd` is None where no call of the group has a known price."""
        groups, sums = ", ".join(BY), ", ".join(f"sum({name})" for name in SUMS)
        counted = f"select {groups}, count(*), {sums}, sum(usd is null) from calls group by {groups} order by {groups}"
        return [dict(zip((*BY, *TOTALS), row, strict=True)) for row in self._do(counted)]

    def get_vectors(self, keys: Sequence[str]) -> dict[str, list[float]]:
        """The vectors that are known, by key."""
        found = (self._do("select key, vector from embeddings where key = ?", key) for key in keys)
        return {key: array.array("f", vector).tolist() for rows in found for key, vector in rows}

    def put_vectors(self, call: Call, vectors: dict[str, list[float]]) -> dict[str, list[float]]:
        """Store a call and its vectors, both or neither; returns the vectors as `get_vectors` will: in 32 bits."""
        packed = {key: array.array("f", vector) for key, vector in vectors.items()}
        with self._faults(), self._db:  # which commits, or rolls back
            self._do("begin immediate")
            self.put_call(call)
            for key, vector in packed.items():
                self._do("insert or ignore into embeddings values (?, ?)", key, vector.tobytes())
        return {key: vector.tolist() for key, vector in packed.items()}

    def get_episode(self, key: str) -> dict | None:
        rows = self._do("select episode from episodes where key = ?", key)
        return json.loads(_unpacked(rows[0][0])) if rows else None

    def put_episode(self, key: str, episode: dict) -> None:
        """Store a finished episode; it is committed when this returns."""
        self._do("insert or ignore into episodes values (?, ?)", key, _packed(json.dumps(episode)))

    def copy_episodes(self, other: Path) -> None:
        """Copy the episodes of another run's store, which must exist and is only read."""
        self._do("attach ? as other", f"{other.absolute().as_uri()}?mode=ro")
        self._do("insert or ignore into main.episodes select key, episode from other.episodes")
        self._do("detach other")

    def get_note(self, key: str) -> str | None:
        """What was found out about an endpoint, such as the parts of a request that it does not understand."""
        return next((note for (note,) in self._do("select note from notes where key = ?", key)), None)

    def put_note(self, key: str, note: str) -> None:
        self._do("insert or replace into notes values (?, ?)", key, note)
