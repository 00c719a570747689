"""A model that is answered by files, by a person with a chat window or by another program.

Promises: each request becomes `inbox/NNN.md` in the run's folder, numbered in the order of asking, and waits without
a deadline for `NNN.answer.md`; after a kill it finds its file again by the hash in the file's head; a half-written
answer is not read, and what cannot be read is said.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from errors import InfrastructureError, machine_fault
from models.answers import strip_thoughts
from models.endpoint import Model, Question
from models.replies import Reply
from prompts import count_tokens, render

MOST_BYTES = 1 << 20  # of an answer
POLL_SECONDS = 0.2  # between two looks into the inbox
REST_SECONDS = 10.0  # a file that has not changed for so long is not being written
SAY_SECONDS, SAY_AGAIN_SECONDS = 1.0, 1200.0  # that a request waits before a line says so, the next one
END = "=== end of answer {} ==="
EMPTY = {"role": "user", "content": "The answer was empty. Give the whole answer, in the form that was asked for."}


class Manual(Model):
    """Files in place of a model."""

    roles = ("meta", "agent", "memory")

    def __init__(self, folder: Path, log: Callable[[str], None]):
        self._inbox, self._log = folder / "inbox", log
        self.waiting: dict[str, str] = {}  # number of each request that waits, and what it is about
        self._numbers, self._last = {}, 0  # of all requests, by key; the highest number of any file in the inbox
        self._renamed: set[str] = set()  # files that came by a rename while this process watched
        self._refused: dict[str, str] = {}  # why an answer is not read, as it was said last, by file
        self._said, self._say_at = set(), 0.0  # numbers in the last line; when it is said again
        # Requests of an earlier process; of two with one key the first counts.
        for path in sorted(self._inbox.glob("[0-9]*.md"), reverse=True):
            self._last = max(self._last, int(re.match(r"\d+", path.name)[0]))
            with contextlib.suppress(OSError):
                head = _read(path)[0].partition(b"\n## Messages")[0] if path.stem.isdigit() else b""
                if key := re.search(rb"(?m)^- request: ([0-9a-f]{64})$", head):
                    self._numbers[key[1].decode()] = path.stem
        # A descriptor of inotify. macOS has none: there a rename is known by its time alone.
        self._notify = getattr(ctypes.CDLL(None), "inotify_init1", lambda flags: -1)(0o2004000)  # CLOEXEC, NONBLOCK

    async def aclose(self) -> None:
        if self._notify > 0:
            os.close(self._notify)
        self._notify = -1

    async def ask(self, question: Question) -> Reply:
        """The answer, once its file is there, with estimated tokens; an empty one is asked for again."""
        shaping = [question.role, question.schema, question.limit, question.sample, question.seed]
        key = hashlib.sha256(json.dumps([shaping, question.messages]).encode()).hexdigest()
        self._last += key not in self._numbers
        number, say_from = self._numbers.setdefault(key, f"{self._last:03}"), time.monotonic() + SAY_SECONDS
        request, answer = self._inbox / f"{number}.md", self._inbox / f"{number}.answer.md"
        came_before = os.path.lexists(answer)  # while no process watched
        self.waiting[number] = " ".join(filter(None, (question.role, question.stage, question.design)))
        try:
            while (text := self._read_answer(number, answer, came_before)) is None:
                self._inbox.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
                # Note which files came by a rename: whoever renames a file has written it whole.
                with contextlib.suppress(OSError):  # nothing happened
                    events = os.read(self._notify, 1 << 16)  # in each a name, between zero bytes
                    self._renamed.update(map(os.fsdecode, re.findall(rb"\0(\d+\.answer\.md)\0", events)))
                if self._notify > 0:  # again each time: the folder may be a new one
                    ctypes.CDLL(None).inotify_add_watch(self._notify, os.fsencode(self._inbox), 0x80)  # IN_MOVED_TO
                if not request.exists():
                    shown = {"number": number, "end": END.format(number), "key": key, "question": question}
                    text = render("manual", schema=json.dumps(question.schema, indent=1), **shown)
                    unnamed = request.with_name(f".{request.name}.tmp")
                    unnamed.write_text(f"{text}\n", encoding="utf-8")
                    unnamed.replace(request)
                await asyncio.sleep(POLL_SECONDS)
                # Say what waits where; again after a long time.
                now, is_new = time.monotonic(), not self._said.issuperset(self.waiting)
                if now > say_from and (is_new or now > self._say_at):
                    self._said, self._say_at = set(self.waiting), now + SAY_AGAIN_SECONDS
                    requests = ", ".join(f"{number}.md ({about})" for number, about in sorted(self.waiting.items()))
                    self._log(f"waiting for answers in {self._inbox}: {requests}; answer NNN.md in NNN.answer.md")
        except OSError as error:
            raise InfrastructureError(machine_fault(error)) from None
        finally:
            del self.waiting[number]
        if not (text := strip_thoughts(text)):
            return await self.ask(replace(question, messages=(*question.messages, EMPTY)))
        prompt = sum(count_tokens(message["content"]) for message in question.messages)
        return Reply(text, prompt_tokens=prompt, completion_tokens=count_tokens(text), counted=False)

    def _read_answer(self, number: str, path: Path, came_before: bool) -> str | None:
        """The text of a whole answer; None where there is none, and a line where something else is there."""
        try:
            data, status = _read(path)
            # A rename changes the ctime and not the mtime.
            renamed = path.name in self._renamed or status.st_ctime_ns > status.st_mtime_ns
            at_rest = time.time() - status.st_ctime > REST_SECONDS
            text = data.decode("utf-8-sig").rstrip()
            body, _, last = text.rpartition("\n")
            if last.strip() == END.format(number):
                return body
            why = f"nobody renamed it, and its last line is not {END.format(number)}" if at_rest else ""
            if re.fullmatch(END.format(r"\d+"), last.strip()):
                why = f"it ends as the answer to another request: {last.strip()}"
            elif renamed or (came_before and at_rest):
                return text
        except UnicodeDecodeError as error:  # the rest of a character may be on its way
            why = f"it is not UTF-8 at byte {error.start}" if renamed or at_rest else ""
        except OSError as error:
            why = "" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror}"
        if why and self._refused.get(path.name) != why:
            self._renamed.discard(path.name)
            self._log(f"{path} is not read, and the run still waits for it: {why}")
        self._refused[path.name] = why


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a plain file and its status; raises OSError where it is none, or too large."""
    if not stat.S_ISREG((status := path.lstat()).st_mode):
        raise OSError(0, "a folder, a link or a pipe is no plain file")
    if status.st_size > MOST_BYTES:
        raise OSError(0, f"it is larger than {MOST_BYTES >> 20} MiB")
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(MOST_BYTES), os.fstat(file.fileno())
