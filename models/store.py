"""The SQLite store of one run: every finished model call, every embedding, every finished episode.

Promises: once `put_*` has returned, a SIGKILL of the process loses nothing; a full disk is an
`InfrastructureError` and leaves the file intact; a broken file is a `UserError` of one line; only one
process writes. After a power cut the last calls may be lost (WAL with synchronous=NORMAL) and would be
asked again. Episodes, long requests and long answers are compressed.

Try it: `sqlite3 runs/<run>/store.sqlite 'select model, count(*), sum(usd) from calls group by model'`
"""

import array
import contextlib
import errno
import fcntl
import json
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from errors import InfrastructureError, UserError


@dataclass(frozen=True)
class Call:
    """One finished model call; it was paid for, whether or not its answer is of use."""

    key: str  # hash of everything that shapes the answer
    role: str  # "meta", "agent", "memory" or "embedding"
    model: str  # as in `--agent-model`: name, effort, address
    design: str = ""  # id of the design that the call was made for
    stage: str = ""  # of the loop: "ideate", "implement", "agent", "memory", ...
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


TYPES = {str: "text", int: "integer"}  # of columns; others are real numbers
COLUMNS = {field.name: TYPES.get(field.type, "real") for field in fields(Call)}
DECLARED = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
SCHEMA = (
    f"create table if not exists calls ({DECLARED}, primary key (key)) without rowid",
    "create table if not exists embeddings (key text primary key, vector blob) without rowid",
    "create table if not exists notes (key text primary key, note text) without rowid",
    # Large values, which fill the pages of a table with row ids better.
    "create table if not exists episodes (key text primary key, episode text)",
)
PUT_CALL = f"insert or ignore into calls values ({', '.join('?' * len(COLUMNS))})"
BY = ("role", "model", "design", "stage")  # what usage is told apart by
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
SUMS = (*TOKENS, "usd", "seconds")
TOTALS = ("calls", *SUMS, "unpriced")  # what usage says
USAGE = f"""
select {", ".join(BY)}, count(*), {", ".join(f"sum({name})" for name in SUMS)}, sum(usd is null)
from calls group by {", ".join(BY)} order by {", ".join(BY)}
"""
# What SQLite's errors mean, by the beginnings of their names: a full disk is not a broken file.
FAULTS = (
    (("SQLITE_FULL",), InfrastructureError, "disk is full: {path} cannot grow: make room, then resume"),
    (("SQLITE_IOERR",), InfrastructureError, "{path} cannot be written ({name}): is the disk full or gone?"),
    (("SQLITE_BUSY", "SQLITE_LOCKED"), InfrastructureError, "{path} is locked by another program"),
    (("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"), UserError,
     "{path} cannot be opened or written: {error}"),
    (("",), UserError, "{path} is not a store that can be read: {error}; restore or remove it"),
)  # fmt: skip
SHORT = 1000  # characters; a text that is shorter stays readable for `sqlite3`


def _packed(text: str) -> str | bytes:
    """A text as it is stored: a long one is a zlib stream (a MiniHack episode shrinks to a 24th)."""
    return text if len(text) < SHORT else zlib.compress(text.encode(), 9)


def _unpacked(stored: str | bytes) -> str:
    """The text again; older stores hold episodes as plain text."""
    return zlib.decompress(stored).decode() if isinstance(stored, bytes) else stored


def _row(call: Call) -> tuple:
    return tuple({**vars(call), "request": _packed(call.request), "answer": _packed(call.answer)}.values())


class Store(contextlib.AbstractContextManager):
    """The file, open for one process; `with Store(path) as store` closes it."""

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
        try:
            # Autocommit: each finished call is on its way to the disk before its answer is used.
            uri = self.path.absolute().as_uri()
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._fault(error) from None
        self._do("pragma busy_timeout = 10000")
        self._do("pragma page_size = 512")  # of a new file: episodes of 2 kB fill these better, a fifth is saved
        if self._do("pragma quick_check(1)") != [("ok",)]:
            raise self._fault(sqlite3.DatabaseError("malformed"))
        self._do("pragma journal_mode = wal")
        self._do("pragma synchronous = normal")  # outlives a SIGKILL, no sync for each call
        for statement in SCHEMA:
            self._do(statement)

    def _do(self, statement: str, *values) -> list[tuple]:
        """The rows that a statement gives; it is committed when this returns, but for one in a transaction."""
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def _fault(self, error: sqlite3.Error) -> Exception:
        name = getattr(error, "sqlite_errorname", None) or ""
        kind, message = next((kind, message) for starts, kind, message in FAULTS if name.startswith(starts))
        return kind(message.format(path=self.path, name=name, error=error))

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise self._fault(error) from None
        finally:
            self._lock.close()

    # Calls.

    def get_call(self, key: str) -> Call | None:
        return next(iter(self._calls("key = ?", key)), None)

    def calls(self, role: str) -> list[Call]:
        """The calls of a role whose answers count, in the order in which they ended."""
        return self._calls("role = ? and key not like '% set aside %' order by created, key", role)

    def _calls(self, where: str, value: str) -> list[Call]:
        rows = self._do(f"select {', '.join(COLUMNS)} from calls where {where}", value)
        calls = [Call(**dict(zip(COLUMNS, row, strict=True))) for row in rows]
        return [replace(one, request=_unpacked(one.request), answer=_unpacked(one.answer)) for one in calls]

    def put_call(self, call: Call) -> None:
        """Store a finished call; it is committed when this returns."""
        self._do(PUT_CALL, *_row(call))

    def faulty(self, fault: str) -> list[str]:
        """The keys of calls whose answers are of no use for this reason and were not set aside."""
        return [key for (key,) in self._do("select key from calls where fault = ? and key not like '% set aside %'", fault)]

    def set_aside(self, keys: Sequence[str]) -> None:
        """Still count what these calls cost, but forget their answers: the questions will be asked again."""
        for key in keys:
            self._do("update calls set key = key || ' set aside ' || created where key = ?", key)

    def usage(self) -> list[dict]:
        """Calls, tokens, dollars and seconds by role, model, design and stage.

        `usd` is None where no call of the group has a known price; `unpriced` counts those without.
        """
        return [dict(zip((*BY, *TOTALS), row, strict=True)) for row in self._do(USAGE)]

    # Embeddings.

    def get_vectors(self, keys: Sequence[str]) -> dict[str, list[float]]:
        """The vectors that are known, by key."""
        found = {key: self._do("select vector from embeddings where key = ?", key) for key in keys}
        return {key: array.array("f", rows[0][0]).tolist() for key, rows in found.items() if rows}

    def put_vectors(self, call: Call, vectors: dict[str, list[float]]) -> dict[str, list[float]]:
        """Store a call and its vectors, both or neither; returns the vectors as `get_vectors` will.

        Vectors are stored as 32-bit floats, so they are rounded: use the returned ones.
        """
        packed = {key: array.array("f", vector) for key, vector in vectors.items()}
        self._do("begin immediate")
        try:
            self._do(PUT_CALL, *_row(call))
            for key, vector in packed.items():
                self._do("insert or ignore into embeddings values (?, ?)", key, vector.tobytes())
            self._do("commit")
        except BaseException:
            if self._db.in_transaction:  # SQLite may have ended it
                self._do("rollback")
            raise
        return {key: vector.tolist() for key, vector in packed.items()}

    # Episodes.

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

    # Notes on endpoints.

    def get_note(self, key: str) -> str | None:
        """What was found out about an endpoint, such as the parts of a request that it does not understand."""
        rows = self._do("select note from notes where key = ?", key)
        return rows[0][0] if rows else None

    def put_note(self, key: str, note: str) -> None:
        self._do("insert or replace into notes values (?, ?)", key, note)
