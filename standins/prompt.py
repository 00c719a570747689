"""How the stand-in agent reads a prompt: one observation, and the message that does not change.

Promises: the same text is read alike in every process; nothing here names a domain, a task or a thing.

Try it: `python -c "import offline_prompt; print(offline_prompt.read_observation('A door. Open it?').words)"`
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from standins.text import OUTCOME, first_words, tokens, words

ASKED = re.compile(r"([A-Za-z][^.!?\n]* [a-z]+)\?(?:\s*[\[(](.+?)[\])])?")


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: one object for one text
class Seen:
    """One observation, as lines and words."""

    lines: frozenset[str]  # to compare observations by
    pieces: dict[frozenset[str], str]  # words of each line or clause: the first of them, which it is about
    words: frozenset[str]
    actions: tuple[str, ...]  # valid actions that came with it, if any
    verbs: frozenset[str]  # first words of these
    listing: tuple[str, ...]  # the lines themselves
    question: str  # the sentence that asks something, if any
    answers: frozenset[str]  # words and letters that it offers in brackets

    def names(self, phrase: frozenset[str]) -> bool:
        """Whether the words of a phrase stand side by side in a line."""
        size = len(phrase)
        lines = map(tokens, self.listing) if phrase <= self.words else ()
        return any(phrase == set(line[at : at + size]) for line in lines for at in range(len(line) - size + 1))


@lru_cache(maxsize=4096)
def read_observation(text: str) -> Seen:
    """Cut a user message into the observation and the list of valid actions."""
    body, _, listed = text.partition("\nValid actions:\n")
    actions = tuple(line[2:].strip() for line in listed.splitlines() if line.startswith("- "))
    body = body.removeprefix("Observation:").strip()
    lines = tuple(line.strip() for line in body.splitlines() if line.strip())
    pieces: dict[frozenset[str], str] = {}
    for piece, head in (clause for line in lines for clause in _clauses(line)):
        pieces.setdefault(piece, head)
    asked = ASKED.search(body) if "?" in body else None
    question, offered = (asked.group(1).strip(), asked.group(2) or "") if asked else ("", "")
    offers = re.findall(r"[a-z]+", offered.lower())
    answers = frozenset([*offers, *(letter for word in offers for letter in word)])
    said = frozenset().union(*pieces)
    return Seen(frozenset(lines), pieces, said, actions, first_words(actions), lines, question, answers)


@lru_cache(maxsize=20_000)
def _clauses(line: str) -> tuple[tuple[frozenset[str], str], ...]:
    """The words of each clause of a line, and the first of them."""
    found = re.split(r"(?<=[.;,!?])\s", line)
    return tuple((words(clause), next(iter(tokens(clause)), "")) for clause in found)


@dataclass(frozen=True, eq=False)
class History:
    """What the observations of an episode have shown, up to one of them."""

    words: frozenset[str]
    news: tuple[frozenset[str], ...]  # for each but the first: words that were in none before it
    scored: tuple[bool, ...]  # does one of these words speak of a score?
    moved: tuple[float, ...]  # share of lines that each but the first has in common with the one before
    pieces: frozenset[frozenset[str]]
    having: dict[str, tuple[frozenset[str], ...]]  # the pieces that have a word

    def beside(self, phrase: frozenset[str]) -> frozenset[str]:
        """Words of the lines that have all words of a phrase."""
        least = min((self.having.get(word, ()) for word in phrase), key=len, default=())
        return frozenset().union(*(piece for piece in least if phrase <= piece))


@lru_cache(maxsize=64)  # the next turn asks for one observation more
def history(turns: tuple[Seen, ...]) -> History:
    """What was shown up to the last turn, made out of what was shown before it."""
    turn, pieces = turns[-1], frozenset(turns[-1].pieces)
    if len(turns) == 1:
        return History(turn.words, (), (), (), pieces, _by_word({}, pieces))
    before = history(turns[:-1])
    new = turn.words - before.words
    return History(
        before.words | new,
        (*before.news, new),
        (*before.scored, any(OUTCOME.fullmatch(word) for word in new)),
        (*before.moved, like(turns[-2], turn)),
        before.pieces | pieces,
        _by_word(before.having, pieces - before.pieces),
    )


def _by_word(having: dict[str, tuple[frozenset[str], ...]], new: frozenset[frozenset[str]]) -> dict:
    """For each word the pieces that have it, where new ones are added."""
    having = dict(having)
    for piece in new:
        for word in piece:
            having[word] = (*having.get(word, ()), piece)
    return having


@dataclass(frozen=True, eq=False)
class Brief:
    """The system message: what does not change during an episode."""

    goal: frozenset[str]  # words of the goal
    actions: dict[str, str]  # static actions and what they are said to do
    verbs: frozenset[str]  # first words of the actions, and of the commands that the text quotes
    quoted: tuple[str, ...]  # these commands
    memory: str  # the text of the retrieved memory


@lru_cache(maxsize=64)
def read_brief(text: str) -> Brief:
    parts = {title.strip(): body for title, body in re.findall(r"(?ms)^## ([^\n]+)\n(.*?)(?=^## |\Z)", text)}
    memory = re.search(r"(?s)^## Memory\n.*?```json\n(.*?)\n```\n", text, re.M)
    actions = dict(re.findall(r"(?m)^([^\n]+?): (.*)$", parts.get("Actions", "")))
    goal = text.rpartition("\n## Goal\n")[2] if "\n## Goal\n" in text else ""
    quoted = re.findall(r"`([a-z][^`\n]*)`", text.partition("\n## ")[0])
    verbs = first_words(tuple(actions or quoted))
    return Brief(words(goal), actions, verbs, tuple(quoted), memory.group(1) if memory else "")


def like(a: Seen, b: Seen) -> float:
    """Share of common lines; the current observation may have more lines than it had later."""
    if a.question != b.question:
        return 0.0
    return len(a.lines & b.lines) / (min(len(a.lines), len(b.lines)) or 1)
