"""The SQLite store of one run: every finished model call, every embedding, every finished episode.

Promises: once `put_*` has returned, a SIGKILL of the process loses nothing; a full disk is an
`InfrastructureError` and leaves the file intact; a broken file is a `UserError` of one line; only one
process writes. After a power cut the last calls may be lost (WAL with synchronous=NORMAL) and would be
asked again. Episodes, long requests and long answers are compressed.

Try it: `sqlite3 runs/<run>/store.sqlite 'select model, count(*), sum(usd) from calls group by model'`
"""

import array
import contextlib
import fcntl
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
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

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


COLUMNS = tuple(field.name for field in fields(Call))
# Episodes are large values, which fill the pages of a table with row ids better.
SCHEMA = """
create table if not exists calls (
    key text primary key, role text, model text, design text, stage text, sample text, prompt_hash text,
    request text, answer text, fault text, prompt_tokens integer, cached_tokens integer,
    completion_tokens integer, reasoning_tokens integer, usd real, seconds real, created real
) without rowid;
create table if not exists embeddings (key text primary key, vector blob) without rowid;
create table if not exists episodes (key text primary key, episode text);
create table if not exists notes (key text primary key, note text) without rowid;
"""
PUT_CALL = f"insert or ignore into calls values ({', '.join('?' * len(COLUMNS))})"
USAGE = """
select role, model, design, stage, count(*) calls, sum(prompt_tokens) prompt_tokens,
    sum(cached_tokens) cached_tokens, sum(completion_tokens) completion_tokens,
    sum(reasoning_tokens) reasoning_tokens, sum(usd) usd, sum(usd is null) unpriced, sum(seconds) seconds
from calls group by role, model, design, stage order by role, model, design, stage
"""


SHORT = 1000  # characters; a text that is shorter stays readable for `sqlite3`


def _packed(text: str) -> str | bytes:
    """A text as it is stored: a long one is a zlib stream (a MiniHack episode shrinks to a 24th)."""
    return text if len(text) < SHORT else zlib.compress(text.encode(), 6)


def _unpacked(stored: str | bytes) -> str:
    """The text again; older stores hold episodes as plain text."""
    return zlib.decompress(stored).decode() if isinstance(stored, bytes) else stored


def _row(call: Call) -> tuple:
    values = {**vars(call), "request": _packed(call.request), "answer": _packed(call.answer)}
    return tuple(values[name] for name in COLUMNS)


def _call(row: tuple) -> Call:
    values = dict(zip(COLUMNS, row, strict=True))
    return Call(**{**values, "request": _unpacked(values["request"]), "answer": _unpacked(values["answer"])})


class Store:
    """The file, open for one process; `with Store(path) as store` closes it.

    `readonly=True` reads beside a process that writes, and makes no file.
    """

    def __init__(self, path: str | Path, readonly: bool = False):
        self.path = Path(path)
        self._lock = None if readonly else self._take_lock()
        with self._faults():
            uri = f"{self.path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}"
            # Autocommit: each finished call is on its way to the disk before its answer is used.
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma busy_timeout = 10000")
            if self._db.execute("pragma quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("malformed")
            if not readonly:
                self._db.execute("pragma journal_mode = wal")
                self._db.execute("pragma synchronous = normal")  # outlives a SIGKILL, no sync for each call
                self._db.executescript(SCHEMA)

    def _take_lock(self):
        """A lock that ends with this process and is not inherited by its children."""
        try:
            file = open(f"{self.path}.lock", "a")  # noqa: SIM115 - held as long as the store
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if isinstance(error, BlockingIOError):
                raise UserError(f"{self.path} is in use by another process: one run, one process") from None
            raise UserError(f"{self.path.parent} cannot be written") from None
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise InfrastructureError(
                    f"disk is full: {self.path.parent}: make room, then resume"
                ) from None
            raise UserError(f"{self.path} cannot be opened: {error.strerror}") from None
        return file

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        with self._faults():
            self._db.close()
        if self._lock:
            self._lock.close()

    # Calls.

    def get_call(self, key: str) -> Call | None:
        with self._faults():
            row = self._db.execute(f"select {', '.join(COLUMNS)} from calls where key = ?", (key,)).fetchone()
        return _call(row) if row else None

    def put_call(self, call: Call) -> None:
        """Store a finished call; it is committed when this returns."""
        with self._faults():
            self._db.execute(PUT_CALL, _row(call))

    def set_aside(self, keys: Sequence[str]) -> None:
        """Still count what these calls cost, but forget their answers: the questions will be asked again."""
        with self._faults():
            for key in keys:
                self._db.execute(
                    "update calls set key = key || ' set aside ' || created where key = ?", (key,)
                )

    def usage(self) -> list[dict]:
        """Calls, tokens, dollars and seconds by role, model, design and stage.

        `usd` is None where no call of the group has a known price; `unpriced` counts those without.
        """
        with self._faults():
            cursor = self._db.execute(USAGE)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def calls(self) -> Iterator[Call]:
        """Every call in the order in which they ended."""
        with self._faults():
            for row in self._db.execute(f"select {', '.join(COLUMNS)} from calls order by created, key"):
                yield _call(row)

    # Embeddings.

    def get_vectors(self, keys: Sequence[str]) -> dict[str, list[float]]:
        """The vectors that are known, by key."""
        found = {}
        with self._faults():
            for key in keys:
                row = self._db.execute("select vector from embeddings where key = ?", (key,)).fetchone()
                if row:
                    found[key] = array.array("f", row[0]).tolist()
        return found

    def put_vectors(self, call: Call, vectors: dict[str, list[float]]) -> dict[str, list[float]]:
        """Store a call and its vectors, both or neither; returns the vectors as `get_vectors` will.

        Vectors are stored as 32-bit floats, so they are rounded: use the returned ones.
        """
        packed = {key: array.array("f", vector) for key, vector in vectors.items()}
        with self._faults():
            self._db.execute("begin immediate")
            try:
                self._db.execute(PUT_CALL, _row(call))
                rows = [(key, vector.tobytes()) for key, vector in packed.items()]
                self._db.executemany("insert or ignore into embeddings values (?, ?)", rows)
                self._db.execute("commit")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        return {key: vector.tolist() for key, vector in packed.items()}

    # Episodes.

    def get_episode(self, key: str) -> dict | None:
        with self._faults():
            row = self._db.execute("select episode from episodes where key = ?", (key,)).fetchone()
        return json.loads(_unpacked(row[0])) if row else None

    def put_episode(self, key: str, episode: dict) -> None:
        """Store a finished episode; it is committed when this returns."""
        row = key, _packed(json.dumps(episode))
        with self._faults():
            self._db.execute("insert or ignore into episodes values (?, ?)", row)

    def copy_episodes(self, other: Path) -> None:
        """Copy the episodes of another run's store, which must exist and is only read."""
        with self._faults():
            self._db.execute("attach ? as other", (f"{other.absolute().as_uri()}?mode=ro",))
            self._db.execute("insert or ignore into main.episodes select key, episode from other.episodes")
            self._db.execute("detach other")

    # Notes on endpoints.

    def get_note(self, key: str) -> str | None:
        """What was found out about an endpoint: which parts of a request it does not understand."""
        with self._faults():
            row = self._db.execute("select note from notes where key = ?", (key,)).fetchone()
        return row and row[0]

    def put_note(self, key: str, note: str) -> None:
        with self._faults():
            self._db.execute("insert or replace into notes values (?, ?)", (key, note))

    # Errors.

    @contextlib.contextmanager
    def _faults(self):
        """Turn SQLite's errors into ours: a full disk is not a broken file."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name == "SQLITE_FULL":
                message = f"disk is full: {self.path} cannot grow: make room, then resume"
                raise InfrastructureError(message) from None
            if name.startswith("SQLITE_IOERR"):
                message = f"{self.path} cannot be written ({name}): is the disk full or gone?"
                raise InfrastructureError(message) from None
            if name in ("SQLITE_BUSY", "SQLITE_LOCKED"):
                raise InfrastructureError(f"{self.path} is locked by another program") from None
            if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
                raise UserError(f"{self.path} cannot be opened or written: {error}") from None
            raise UserError(
                f"{self.path} is not a store that can be read: {error}; restore or remove it"
            ) from None
