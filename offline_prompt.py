"""How the stand-in agent reads a prompt: one observation, and the message that does not change.

Promises: the same text is read alike in every process; nothing here names a domain, a task or a thing.

Try it: `python -c "import offline_prompt; print(offline_prompt.read_observation('A door. Open it?').words)"`
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from offline_text import first_words, tokens, words


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: one object for one text
class Seen:
    """One observation, as lines and words."""

    lines: frozenset[str]  # to compare observations by
    pieces: tuple[frozenset[str], ...]  # words of each line or clause
    words: frozenset[str]
    actions: tuple[str, ...]  # valid actions that came with it, if any
    verbs: frozenset[str]  # first words of these
    listing: tuple[str, ...]  # the lines themselves
    question: str  # the sentence that asks something, if any
    answers: frozenset[str]  # words and letters that it offers in brackets

    def beside(self, phrase: frozenset[str]) -> frozenset[str]:
        """Words of the lines that have all words of a phrase."""
        return frozenset().union(*(piece for piece in self.pieces if phrase <= piece))

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
    clauses = [clause for line in lines for clause in re.split(r"(?<=[.;,!?])\s", line)]
    pieces = tuple(dict.fromkeys(words(clause) for clause in clauses))
    asked = re.search(r"([A-Za-z][^.!?\n]* [a-z]+)\?(?:\s*[\[(](.+?)[\])])?", body)
    question, offered = (asked.group(1).strip(), asked.group(2) or "") if asked else ("", "")
    offers = re.findall(r"[a-z]+", offered.lower())
    answers = frozenset([*offers, *(letter for word in offers for letter in word)])
    return Seen(frozenset(lines), pieces, words(body), actions, first_words(actions), lines, question, answers)


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
    verbs = first_words((*actions, *quoted))
    return Brief(words(goal), actions, verbs, tuple(quoted), memory.group(1) if memory else "")


def like(a: Seen, b: Seen) -> float:
    """Share of common lines; the current observation may have more lines than it had later."""
    if a.question != b.question:
        return 0.0
    return len(a.lines & b.lines) / (min(len(a.lines), len(b.lines)) or 1)
