"""How the stand-in agent reads its prompt: words, commands, observations, and the retrieved memory.

Any JSON and any text is read by the same few rules; nothing here names a domain, a task, a thing or a key of a memory.
It does not promise to understand: who does what to whom is lost.
"""

import contextlib
import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

# Words that carry grammar and not matter, and words of warnings. No thing, place or command of a game is named here.
STOP, NEGATIVE = (frozenset(text.split()) for text in (
    "a an the of to in on at by for from with without and or but is are was were be been it its this that these "
    "those you your yours i me my mine we our they their he she as if then than there here into onto over under so "
    "do does did has have had having can could will would may might shall should must what which who when where how "
    "why some any all each every one more most other another such only own same just also very too again s t",
    "avoid never not no don doesn didn cannot useless fail fails failed failure failures wrong bad mistake mistakes "
    "wasted waste nothing pointless harmful dead lost unsuccessful"))  # fmt: skip
OUTCOME = re.compile(r"reward|score|success|won|win_rate|outcome|result", re.I)


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """A word without the endings of plural and tense, crudely and the same for every word."""
    for ending, least in (("ies", 5), ("ied", 5), ("ing", 6), ("ed", 5), ("es", 6), ("s", 4)):
        rest = word[: -len(ending)] + ("y" if ending in ("ies", "ied") else "")
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss") and set(rest) & set("aeiouy"):
            return rest
    return word


@lru_cache(maxsize=50_000)
def tokens(text: str) -> tuple[str, ...]:
    """The words of a text in order: lower case, stemmed, without numbers, marks and grammar."""
    found = re.findall(r"[a-z]+|[^\W\d_a-z]", text.lower(), re.I)
    return tuple(stem(word) for word in found if word.isalpha() and word not in STOP)


@lru_cache(maxsize=50_000)
def words(text: str) -> frozenset[str]:
    return frozenset(tokens(text))


def noise(*parts) -> float:
    """A number in [0, 1) that depends on nothing but `parts`."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48


class Command(NamedTuple):
    """A command cut into a verb, the thing that it is done to, and the rest."""

    verb: str
    words: frozenset[str]
    thing: frozenset[str]  # words of what it is done to, up to the first preposition
    name: str  # the same as it is written, with its number
    others: tuple[frozenset[str], ...]  # words of each thing behind a preposition
    rest: frozenset[str]  # all words but the verb


@lru_cache(maxsize=20_000)
def command(text: str) -> Command:
    found = tokens(text)
    thing, *rest = re.split(r"\b(?:from|to|with|in|on|into|onto|at)\b", text.lower())
    others = tuple(filter(None, map(words, rest)))
    verb, name = found[0] if found else text, thing.partition(" ")[2].strip()
    return Command(verb, frozenset(found), frozenset(tokens(thing)[1:]), name, others, frozenset(found[1:]))


def is_command(value, verbs: frozenset[str]) -> bool:
    """Whether a value is a text that reads like a command: short, and begins as a known one does."""
    if not isinstance(value, str) or len(value) > 80 or ":" in value or value.endswith("."):
        return False
    return 0 < len(tokens(value)) <= 7 and tokens(value)[0] in verbs


class Observation:
    """What one turn shows; compared and hashed by identity."""

    def __init__(self, text: str):
        body, _, listed = text.partition("\nValid actions:\n")
        body = body.removeprefix("Observation:").strip()
        self.lines = lines = tuple(line.strip() for line in body.splitlines() if line.strip())
        self.line_set = frozenset(lines)  # to compare observations by
        parts = re.split(r"(?<=[.;,!?])\s|\n", "\n".join(lines))
        # The words of each clause, and the first of them.
        self.clauses = tuple(dict.fromkeys((words(part), tokens(part)[0]) for part in parts if tokens(part)))
        self.words = frozenset().union(*(found for found, _ in self.clauses))
        # The first line, where it is a heading and no sentence, is the name of a place.
        self.title = lines[0] if lines and len(tokens(lines[0])) <= 5 and lines[0][-1] not in ".!?:," else ""
        self.marks = [mark for mark in self.title[:1] + self.title[-1:] if not mark.isalnum()]  # around the name
        self.actions = tuple(line[2:].strip() for line in listed.splitlines() if line.startswith("- "))
        self.question = re.findall(r"[A-Za-z][^.!?\n]* [a-z]+\?", body)[:1] if "?" in body else []

    def is_like(self, other: "Observation") -> bool:
        """Whether most lines are the same; the present observation may have more than it has later."""
        least = 0.8 * min(len(self.line_set), len(other.line_set))
        return self.question == other.question and len(self.line_set & other.line_set) >= least


read_observation = lru_cache(maxsize=4096)(Observation)  # one object for one text


@lru_cache(maxsize=64)
def read_brief(text: str) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...], str]:
    """Of the system message: words of the goal, the actions of all turns, quoted commands, the retrieved memory."""
    actions = re.search(r"(?ms)^## Actions\n(.*?)(?=^## |\Z)", text)  # none where each turn has its own
    memory = re.search(r"(?ms)^## Memory\n.*?```json\n(.*?)\n```\n", text)
    goal = text.rpartition("\n## Goal\n")[2] if "\n## Goal\n" in text else ""
    listed = dict.fromkeys(re.findall(r"(?m)^([^\n]+?): ", actions[1])) if actions else ()
    quoted = re.findall(r"`([a-z][^`\n]*)`", text.partition("\n## ")[0])
    return words(goal), tuple(listed), tuple(quoted), memory[1] if memory else ""


class Note(NamedTuple):
    """One sentence, or one value with its keys."""

    words: frozenset[str]
    sign: float  # 1 for advice, -1 for a warning
    command: Command | None  # what it tells to do, if it ends with a command


@dataclass(frozen=True, eq=False)  # hashed by identity
class Plan:
    """Commands that the memory tells in order."""

    about: frozenset[str]  # words that stand around them: keys, a goal, a first observation
    steps: tuple[str, ...]
    sign: float  # 1 if it is told to have gone well or nothing is told, -0.5 if badly


class Memory:
    """What was read out of the retrieved memory, any JSON or text; of a longer one the rest is not read."""

    def __init__(self, text: str, verbs: frozenset[str]):
        self.verbs = verbs  # the first words of the actions known so far
        self.plans: list[Plan] = []  # at most 60
        self.notes: list[Note] = []  # at most 1500
        value = text
        with contextlib.suppress(ValueError):
            value = json.loads(text)
        self._read(value, "", frozenset(), 1.0)
        self.notes = list(dict.fromkeys(self.notes))[:1500]
        self.having: dict[str, list[Note]] = {}  # the notes that have a word
        for note in self.notes:
            for word in note.words:
                self.having.setdefault(word, []).append(note)
        # Rare words tell more.
        self.weight = {word: math.log((len(self.notes) + 1) / len(notes)) for word, notes in self.having.items()}

    def _read(self, value, title: str, about: frozenset[str], sign: float) -> None:
        """Walk down a JSON value; `title` holds the keys so far, `about` the words around it."""
        if isinstance(value, dict):
            for key, item in value.items():
                if OUTCOME.fullmatch(str(key)) and isinstance(item, (int, float, str)):
                    sign = -0.5 if (words(item) & NEGATIVE if isinstance(item, str) else item < 0.5) else 1.0
            near = [words(item) for item in value.values() if isinstance(item, str) and len(item) < 4000]
            for key, item in value.items():
                self._read(item, f"{title} {key}", about.union(*near), sign)
        elif isinstance(value, list):
            told = []
            for item in value:  # the command that it is, or has as one of its values
                parts = item.values() if isinstance(item, dict) else [item]
                told.append(next((part for part in parts if is_command(part, self.verbs)), None))
            warned = set(re.findall(r"[a-z]+", title.lower())) & NEGATIVE
            is_plan = not warned and self._add_plan(filter(None, told), about | words(title), sign)
            for item, step in zip(value, told, strict=True):
                if not (is_plan and step):
                    self._read(item, title, about, sign)
        elif isinstance(value, str):
            lines = [line.strip() for line in value.splitlines() if line.strip()]
            parts = [re.sub(r"^(?:[>*\-]|\d+[.):]|action:|step \d+:)\s*", "", line, flags=re.I) for line in lines]
            if len(lines) == 1:
                parts = [part.strip(" .") for part in re.split(r"\s*(?:->|→|;|,? then |, )\s*", parts[0])]
            told = (part for part in parts if is_command(part, self.verbs))
            if self._add_plan(told, about | words(title), sign) and len(lines) > 3:
                return
            for sentence in (one for line in lines for one in re.split(r"(?<=[.;!?])\s+", line)):
                said = f"{title} {sentence}".lower()
                noted = words(said) - NEGATIVE
                if 0 < len(noted) <= 60 and len(self.notes) < 4500:
                    found = tokens(sentence)
                    ends = (command(" ".join(found[at:])) for at, word in enumerate(found) if word in self.verbs)
                    warns = NEGATIVE.intersection(re.findall(r"[a-z]+", said))
                    self.notes.append(Note(noted, -abs(sign) if warns else max(sign, 0.0), next(ends, None)))

    def _add_plan(self, told, about: frozenset[str], sign: float) -> bool:
        """Keep two or more commands as a plan, unless they are one verb with several things: those are facts."""
        steps = tuple(step.strip().lower() for step in told)[:100]
        found = [tokens(step) for step in steps]
        if len(steps) < 2 or (len({one[0] for one in found}) == 1 and min(map(len, found)) > 1):
            return False
        if len(self.plans) < 60:
            self.plans.append(Plan(about, steps, sign))
        return True


read_memory = lru_cache(maxsize=32)(Memory)
