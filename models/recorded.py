"""A search that happened, replayed: the recorded answers of its meta agent are given again in their places.

The k-th child of some parents is given the answers of their k-th recorded child, in whatever order requests come;
where there is none, `sketch` writes the whole candidate. An answer that a recorded candidate lacks is never made up:
that candidate is dropped. `harness/recording.py` makes recordings.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jsonschema import Draft202012Validator

import standins
from errors import AnswerError, UserError
from models.endpoint import Model, Question
from models.replies import Reply

DESIGNS = Path(__file__).resolve().parents[1] / "designs"
FILE = "search.jsonl"  # its first line is the head, each other line one answer
COPY = "search.jsonl.gz"  # in the folder of a run that replays it
TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
# What the lines have at least; the settings are those of `harness.config` that shape a search.
HEAD = {"domain": TEXT, "seed": {"type": "integer"}, "settings": {"type": "object"}, "date": TEXT, "by": TEXT}
ANSWER = {"candidate": TEXT, "parents": TEXTS, "stage": TEXT, "try": TEXT, "prompt": TEXT, "answer": TEXT}
Origin = tuple[tuple[str, ...], int]  # the ids of a candidate's parents, and which of their children it is, from 1


def find(env: str, seed: int) -> Path | None:
    """The folder of the recording for a run: that of its seed, else the main one; None where nothing is recorded."""
    places = DESIGNS / env / f"seed-{seed}", DESIGNS / env
    return next((folder for folder in places if (folder / FILE).is_file()), None)


@dataclass(frozen=True)
class Recording:
    """What is recorded of one search; nothing, by default."""

    head: dict = field(default_factory=dict)  # see HEAD
    candidates: dict[Origin, dict[tuple[str, str], dict]] = field(default_factory=dict)  # lines by stage and try

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """The recording in a file; raises UserError, which names the line that is damaged."""
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines = data.decode().removesuffix("\n").split("\n")
        except (OSError, EOFError, zlib.error, ValueError) as error:
            why = "it is not UTF-8" if isinstance(error, ValueError) else getattr(error, "strerror", "") or "it is damaged"
            raise UserError(f"cannot read {path}: {why}") from None
        head, found, origins = {}, {}, {}
        for number, text in enumerate(lines, 1):
            properties, what = (ANSWER, "an answer") if number > 1 else (HEAD, "the head")
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            schema = {"type": "object", "properties": {"fault": TEXT, **properties}, "required": list(properties)}
            if not Draft202012Validator(schema).is_valid(line):
                raise UserError(f"{path}, line {number} is not {what} of a recording")
            if number == 1:
                head = line
                continue
            name, parents = line["candidate"], tuple(line["parents"])
            if name not in origins:
                origins[name] = parents, 1 + sum(parents == others for others, _ in origins.values())
            answers, key = found.setdefault(origins[name], {}), (line["stage"], line["try"])
            if key in answers or origins[name][0] != parents:
                what = "other parents" if origins[name][0] != parents else f"a second answer to {' '.join(key)}".rstrip()
                raise UserError(f"{path}, line {number}: {what} of candidate {name}")
            answers[key] = line
        if (count := head.get("answers", len(lines) - 1)) != len(lines) - 1:
            raise UserError(f"{path} holds {len(lines) - 1} answers, and its head says {count}: it is damaged")
        return cls(head, found)

    @classmethod
    def of_run(cls, folder: Path) -> "Recording":
        """What a run replays: the copy in its folder, packed but in older runs."""
        kept = next((path for path in (folder / COPY, folder / FILE) if path.exists()), None)
        return cls.read(kept) if kept else cls()

    def introduction(self, seed: int) -> str:
        """What is recorded and what is not, for the first line of a run with this seed."""
        sketch = "sketch, a small stand-in, writes"
        if not (head := self.head):
            return f"recorded: there is no recording for this run, so {sketch} all designs."
        other = f"Nothing is recorded for seed {seed}, with which other parents are drawn. " if seed != head["seed"] else ""
        return (
            f"recorded: the meta agent's answers are those of an earlier search (seed {head['seed']}, {len(self.candidates)} "
            f"candidates, {head['date'][:10]}; who answered: {' '.join(head['by'].split())[:200]}). Every design is evaluated anew. {other}"
            f"Where a parent has no recorded child left, {sketch} the design, which is marked."
        )


class Recorded(Model):
    """Recorded answers in place of the meta model."""

    stored, roles = False, ("meta",)

    def __init__(self, folder: Path, log: Callable[[str], None]):
        self._candidates, self._log, self._said = Recording.of_run(folder).candidates, log, False

    async def ask(self, question: Question) -> Reply:
        """The recorded answer, or that of `sketch`; AnswerError where a recorded candidate has none."""
        if (answers := self._candidates.get(question.origin)) is None:
            return Reply(standins.chat(question.role, list(question.messages), question.schema, question.seed))
        again = question.sample.removeprefix(question.design).strip()
        line, what = answers.get((question.stage, again)), f"{question.stage} {again}".rstrip()
        if line is None:
            raise AnswerError(f"the recording has none to {what}")
        if not self._said and line["prompt"] != hashlib.sha256(question.written.encode()).hexdigest():
            self._said = True
            changed = f"that of candidate {question.design}, {what}, is the first that differs"
            why = "as is so with another seed, other scores or other code"
            self._log(f"recorded with other prompts: {changed}, {why}; the recorded answers are replayed all the same")
        return Reply(line["answer"], line.get("fault", ""))
