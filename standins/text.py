"""How the stand-ins read: words, and the statements and stories of a retrieved memory.

Promises: any JSON and any text is read by the same few rules, which know no format of ours: a key and
what it leads to, a sentence, a row of commands. The same text is read alike in every process. It
does not promise to understand: negation is a list of words, and who does what to whom is lost.

Try it: `python -c "import offline_text; print(offline_text.read_memory('{\"cup\": \"shelf\"}', frozenset()))"`
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from functools import lru_cache

# Words that carry grammar, not matter. Nothing here names a thing, a place or a command of a game.
_STOP = (
    "a an the of to in on at by for from with without and or but is are was were be been it its this that these "
    "those you your yours i me my we our they their he she as if then than there here into onto over under so "
    "do does did has have had can could will would may might shall should must what which who when where how why "
    "some any all each every one more most other another such only own same just also very too s t"
)
_NEGATIVE = (
    "avoid never not no don doesn didn cannot useless fail fails failed failure failures wrong bad mistake "
    "mistakes wasted waste nothing pointless harmful dead lost unsuccessful"
)
STOP, NEGATIVE = frozenset(_STOP.split()), frozenset(_NEGATIVE.split())
OUTCOME = re.compile(r"reward|score|success|won|win_rate|outcome|result", re.I)
WORD = re.compile(r"[a-z]+|\d+|[^\sa-z\d]", re.I)
LETTERS = re.compile(r"[a-z]+|[^\W\d_a-z]", re.I)  # of WORD what may be letters: maps are full of marks


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
    found = (word for word in LETTERS.findall(text.lower()) if word.isalpha() and word not in STOP)
    return tuple(stem(word) for word in found)


@lru_cache(maxsize=50_000)
def words(text: str) -> frozenset[str]:
    return frozenset(tokens(text))


@lru_cache(maxsize=4096)
def first_words(actions: tuple[str, ...]) -> frozenset[str]:
    return frozenset(tokens(action)[0] for action in actions if tokens(action))


def noise(*parts) -> float:
    """A number in [0, 1) that depends on nothing but `parts`."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48


# ------------------------------------------------------------------------------------ the memory


@dataclass(frozen=True)
class Statement:
    """One sentence or key-value pair of the memory."""

    words: frozenset[str]
    sign: float  # 1 for advice, -1 for a warning, scaled by a count that stands with it
    things: frozenset[str] = frozenset()  # what it tells to do something to, if it tells a command
    verb: str = ""


@dataclass(frozen=True, eq=False)  # hashed by identity
class Story:
    """Actions that the memory tells in order."""

    about: frozenset[str]  # words that stand around them: a goal, a first observation, a title
    actions: tuple[str, ...]
    kinds: tuple[frozenset[str], ...]
    before: tuple[frozenset[str], ...]  # words of what was seen before each action
    sign: float  # 1 if it is told to have gone well or nothing is told, -0.5 if badly


@dataclass
class Memory:
    """What the policy made of the retrieved memory."""

    statements: list[Statement] = field(default_factory=list)
    stories: list[Story] = field(default_factory=list)
    weight: dict[str, float] = field(default_factory=dict)  # of a word: rare ones tell more
    having: dict[str, list[int]] = field(default_factory=dict)  # statements that have a word
    mass: list[float] = field(default_factory=list)  # of a statement: the weights of its words


STATEMENTS, STORIES = 1500, 60  # a reader skims what is longer


@lru_cache(maxsize=32)
def read_memory(text: str, verbs: frozenset[str]) -> Memory:
    """Read any JSON or text; `verbs` are the first words of the actions known so far."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    memory = Memory()
    _read(value, (), frozenset(), 1.0, verbs, memory)
    memory.statements = list(dict.fromkeys(memory.statements))[:STATEMENTS]
    for number, statement in enumerate(memory.statements):
        for word in statement.words:
            memory.having.setdefault(word, []).append(number)
    count = len(memory.statements)
    memory.weight = {word: math.log((count + 1) / len(having)) for word, having in memory.having.items()}
    memory.mass = [sum(memory.weight[word] for word in item.words) for item in memory.statements]
    return memory


def _read(value, path: tuple[str, ...], about: frozenset[str], sign: float, verbs, memory: Memory) -> None:
    """Walk down a JSON value; `path` holds the keys so far, `about` the words around it."""
    if isinstance(value, dict):
        sign = _outcome(value, sign)
        near = [item for item in value.values() if isinstance(item, str) and len(item) < 4000]
        for key, item in value.items():
            _read(item, (*path, str(key)), about.union(*map(words, near)), sign, verbs, memory)
    elif isinstance(value, list):
        _read_list(value, path, about, sign, verbs, memory)
    elif isinstance(value, str):
        _read_text(value, path, about, sign, verbs, memory)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and path:
        _state(" ".join(path), math.log1p(abs(value)) * (1 if value > 0 else 0.2), memory)


def _outcome(value: dict, sign: float) -> float:
    """Whether what stands in this object is told to have gone well."""
    for key, item in value.items():
        if OUTCOME.fullmatch(str(key)) and isinstance(item, (bool, int, float, str)):
            bad = words(item) & NEGATIVE if isinstance(item, str) else item < 0.5
            return -0.5 if bad else 1.0
    return sign


def _read_list(value: list, path, about, sign, verbs, memory) -> None:
    steps = [_step(item, verbs) for item in value]
    if _is_sequence(steps) and not _raw(" ".join(path)) & NEGATIVE:
        _tell(steps, about | words(" ".join(path)), sign, memory)
        value = [item for item, (action, _) in zip(value, steps, strict=True) if action is None]
        steps = [step for step in steps if step[0] is None]
    if any(isinstance(item, dict) and action for item, (action, _) in zip(value, steps, strict=True)):
        return
    for item in value:
        flat = isinstance(item, dict) and all(isinstance(part, (str, int, float)) for part in item.values())
        if flat and sum(len(str(part)) for part in item.values()) < 300:
            text = ", ".join(f"{key} {part}" for key, part in item.items())
            _state(f"{' '.join(path)} {text}", _outcome(item, 1.0), memory)
        else:
            _read(item, path, about, sign, verbs, memory)


def _is_sequence(steps: list[tuple[str | None, str]]) -> bool:
    """Whether these are commands to be given in order: two or more, and not one verb with many things."""
    told = [tokens(action) for action, _ in steps if action is not None]
    return len(told) >= 2 and (len({found[0] for found in told}) > 1 or min(map(len, told)) == 1)


def _step(item, verbs) -> tuple[str | None, str]:
    """An element of a list as (action, what was seen after it), as far as it has them."""
    if isinstance(item, str):
        return (item, "") if is_action(item, verbs) else (None, item)
    if not isinstance(item, dict):
        return None, ""
    texts = [part for part in item.values() if isinstance(part, str)]
    action = next((part for part in texts if is_action(part, verbs)), None)
    return action, "\n".join(part for part in texts if part is not action)


def is_action(text: str, verbs: frozenset[str]) -> bool:
    """Whether a text reads like a command: short, and begins as a known command does."""
    if len(text) > 80 or text.endswith("."):
        return False
    found = tokens(text)
    return bool(found) and len(found) <= 7 and found[0] in verbs and ":" not in text


def _read_text(text: str, path, about, sign, verbs, memory) -> None:
    """A string: a told sequence of commands, or sentences."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        parts = [part.strip(" .") for part in re.split(r"\s*(?:->|→|;|, then |, )\s*", text)]
    else:
        parts = [re.sub(r"^(?:[>*\-]|\d+[.):]|action:|step \d+:)\s*", "", line, flags=re.I) for line in lines]
    steps = [_step(part.removeprefix("then "), verbs) for part in parts]
    if _is_sequence(steps):
        _tell(steps, about | words(" ".join(path)), sign, memory)
        if len(lines) > 3:
            return
    title = " ".join(path)
    for line in lines:
        for sentence in re.split(r"(?<=[.;!?])\s+", line):
            if sentence and len(memory.statements) < 3 * STATEMENTS:
                _state(f"{title} {sentence}", sign, memory, _command(sentence, verbs))


def _state(text: str, sign: float, memory: Memory, command: tuple[str, ...] = ()) -> None:
    found = words(text) - NEGATIVE
    if 0 < len(found) <= 60:
        sign = -abs(sign) if _raw(text) & NEGATIVE else max(sign, 0.0)
        memory.statements.append(Statement(found, sign, frozenset(command[1:]), command[0] if command else ""))


def _command(sentence: str, verbs: frozenset[str]) -> tuple[str, ...]:
    """The words of the command that a sentence ends with, its verb first; none where it has no known verb."""
    found = tokens(sentence)
    return next((found[at:] for at, word in enumerate(found) if word in verbs), ())


def _raw(text: str) -> set[str]:
    return {word for word in WORD.findall(text.lower()) if word.isalpha()}


def _tell(steps: list[tuple[str | None, str]], about, sign: float, memory: Memory) -> None:
    actions, before, last = [], [], frozenset()
    for action, after in steps:
        if action is not None:
            actions.append(action.strip().lower())
            before.append(last)
        last = words(after[:4000]) if after else last
    kinds = tuple(words(action) for action in actions)
    if len(memory.stories) < STORIES:
        memory.stories.append(Story(frozenset(about), tuple(actions), kinds, tuple(before), sign))
