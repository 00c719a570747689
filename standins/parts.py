"""What the layers of written memory designs have in common: constants, ways of reading episodes, counting.

Promises: all of it works on the words of finished episodes and knows no domain. `offline_grammar` copies what
the chosen layers of `offline_layers.py` use, with the imports, into a module of its own: what is here is what a
design's reader sees.

Try it: `python -c "import offline_grammar as g; print(g.write(g.Blueprint(('Places',))))"`
"""

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from functools import lru_cache

from memory_base import Trajectory

# Constants: a written design has those that its layers use, with the values that were chosen.
WON = 0.5  # reward from which an episode counts as won
LIKE = 0.0  # closeness from which another task counts as alike
LAST = 3  # last steps of a won episode that count as decisive
TRUST = 2.0  # doubtful tries that every count starts with
TASKS = 2  # different tasks that must speak for what is told of any task
RATE = 0.1  # share of tries that must have been good
TALLY_LIFT = 1.5  # how much oftener a command must decide where a word is around than elsewhere
EPISODES_TOP = 1  # episodes told
EPISODES_STEPS = 40  # steps told of each
EPISODES_WON_ONLY = True  # tell won episodes alone
PLANS_TOP = 1  # plans told
STRAY = 0.3  # what a word of a goal counts that no command has
PLANS_USUAL = 0.7  # share of commands with a verb that have a word in a place, for it to be usual there
PLANS_LIFT = 1.5  # how much oftener won episodes must have used a verb that changes nothing
PLANS_STEPS = 12  # last steps told of a plan
PATTERNS_SHARE = 0.5  # share of won episodes that must have a command
PATTERNS_LIFT = 1.5  # how much oftener they must have it than all episodes
PATTERNS_TOP = 5  # last commands told
PLACES_TOP = 4  # places told for each thing
PLACES_SHARE = 0.3  # how likely a place must be, beside the likeliest
PLACES_LIFT = 1.5  # how much oftener it must have been found there than elsewhere
USES_TOP = 2  # commands told for each thing
USES_THINGS = 8  # things told of
REACTIONS_TOP = 3  # commands told
REACTIONS_RATE = 0.1  # share of episodes with a command in which it had a lasting effect
SELDOM = 0.3  # share of steps at which a text may change whose changes last
MEANINGS_SEEN = 3  # commands with a verb that must have been offered
MEANINGS_SHARE = 0.5  # share of a command's answers that must call it so
SOURCES_TOP = 1  # commands told
SOURCES_RATE = 0.3  # share of episodes with a command in which what it named scored
WASTE_TRIES = 10  # times that a verb must have been tried
WASTE_RATE = 0.1  # share of tries that brought something, at most
DANGERS_TOP = 6  # dangers told
DANGERS_RATE = 0.2  # share of tries that must have ended an episode
TARGETS_TOP = 2  # things told
TARGETS_RATE = 0.5  # share of won episodes in which things of which the same is said were reached

GRAMMAR = {
    *("a", "an", "the", "of", "to", "in", "into", "on", "onto", "at", "by", "for", "from", "with", "and", "or", "but"),
    *("is", "are", "was", "were", "be", "it", "its", "this", "that", "you", "your", "i"),
}


def text_of(record: dict) -> str:
    """What the agent saw: all texts of a record but the goal, the action and lists."""
    skip = ("goal", "action_took")
    return "\n".join(value for key, value in record.items() if isinstance(value, str) and key not in skip)


@lru_cache(maxsize=10_000)
def words(text: str) -> tuple[str, ...]:
    """Lower-case words without numbers and grammar, in order."""
    return tuple(word for word in re.findall(r"[a-z]+", text.lower()) if word not in GRAMMAR)


@lru_cache(maxsize=10_000)
def distinct(text: str) -> tuple[str, ...]:
    """The words of a text, each once, in order."""
    return tuple(dict.fromkeys(words(text)))


def kind(action: str) -> str:
    """An action without the numbers of things: what is done to which kind of thing."""
    return " ".join(re.sub(r"\d+", " ", action.lower()).split()) or action


def thing_of(action: str) -> tuple[str, ...]:
    """The words of the thing that is acted on: those after the first, up to the first word of grammar."""
    return tuple(itertools.takewhile(lambda word: word not in GRAMMAR, kind(action).split()[1:]))


def things(action: str) -> tuple[str, ...]:
    """The things that a command names, each with its number."""
    found = re.findall(r"[^\s\d]+(?: \d+)?", action.lower())[1:]
    return tuple(thing for thing in found if thing not in GRAMMAR)


def goal_of(init: dict) -> str:
    """The goal as it is told, else the last sentence of the first observation."""
    return str(init.get("goal") or text_of(init).strip().split("\n")[-1])


def situation(init: dict) -> str:
    """The goal and the first observation."""
    return goal_of(init) + "\n" + text_of(init)


def situation_goal(init: dict) -> str:
    """The goal alone."""
    return goal_of(init)


def task_of(init: dict) -> str:
    """What tells a task from others: its goal and its first observation, in short."""
    return hashlib.blake2b((goal_of(init) + text_of(init)).encode("utf-8", "replace"), digest_size=4).hexdigest()


def closeness(old: str, new: str, roles: "Roles") -> float:
    """Share of words of two goals that are the same or take each other's place; a word of no command counts less."""
    other = roles.exchange(words(old), words(new))
    every = {*words(old), *words(new)} - {two for one, two in other.items() if one != two}
    weight = {word: 1.0 if word in roles.places else STRAY for word in sorted(every)}
    return sum(weight[word] for word in other) / (sum(weight.values()) or 1)


def closeness_in_order(old: str, new: str, roles: "Roles") -> float:
    """Share of places at which two goals have the same word, in [0, 1]."""
    mine, theirs = words(old), words(new)
    return sum(x == y for x, y in zip(mine, theirs, strict=False)) / (max(len(mine), len(theirs)) or 1)


def adapt(plan: list[str], old: str, new: str, roles: "Roles") -> list[str]:
    """A plan for another goal: its words by role, others as usual in such commands; what is open is left out."""
    goal = roles.exchange(words(old), words(new))
    other, told = dict(goal), []
    for verb, *rest in map(str.split, reversed(plan)):
        named = [word for word in rest if word not in GRAMMAR]
        if verb in words(old) and verb not in goal:
            continue
        alone = len(named) == 1
        usual = {word: roles.usual(other.get(verb, verb), at) for at, word in enumerate(named) if word not in goal}
        known = other if alone else goal | {word: found for word, found in usual.items() if found}
        other |= known
        closed = list(itertools.takewhile(lambda word, known=known: word in GRAMMAR or word in known, rest))
        said = " ".join(other.get(word, word) for word in (verb, *closed))
        said = re.sub(rf"(?: (?:{'|'.join(sorted(GRAMMAR))}))+$", "", said)
        if (set(closed) - GRAMMAR or not named) and not (alone and roles.strange(said)):
            # What leads up to a thing comes right before the command on it, also where it led up to more.
            later = [at for at, one in enumerate(told, 1) if alone and said.split()[-1] in one.split()]
            told.insert(later[-1] if later else len(told), said)
    return [command for command, _ in itertools.groupby(told[::-1])]


def adapt_nothing(plan: list[str], old: str, new: str, roles: "Roles") -> list[str]:
    """A plan as it was carried out."""
    return plan


def moments(trajectory: Trajectory) -> list[tuple[str, str, str, float]]:
    """Each step as (text before, action, text after, gain in score)."""
    before, score, found = text_of(trajectory.init), 0.0, []
    for step in trajectory.steps:
        after, now = text_of(step), float(step.get("scores") or 0.0)
        found.append((before, str(step.get("action_took", "")), after, now - score))
        before, score = after, now
    return found


def discoveries(trajectory: Trajectory) -> list[tuple[str, list[str]]]:
    """Each step as (action, words that came up for the first time in what can be done)."""
    known, found = set(words(offered(trajectory.init))), []
    for step in trajectory.steps:
        action, now = str(step.get("action_took", "")), distinct(offered(step))
        known.update(words(action))
        found.append((action, [word for word in now if word not in known]))
        known.update(now)
    return found


def offered(record: dict) -> str:
    """The commands that a record lists; its text where it lists none."""
    return "\n".join(listed(record)) or text_of(record)


def listed(record: dict) -> list[str]:
    """The commands that a record lists."""
    return [str(command) for item in record.values() if isinstance(item, list) for command in item]


def decisive(trajectory: Trajectory) -> list[tuple[str, str]]:
    """(text before, action) where the score rose, and of the last steps of a won episode."""
    steps = moments(trajectory)
    tail = len(steps) - LAST if trajectory.reward >= WON else len(steps)
    return [(before, action) for at, (before, action, _, gain) in enumerate(steps) if gain > 0 or at >= tail]


def decisive_for_goal(trajectory: Trajectory) -> list[tuple[str, str]]:
    """(text before, action) where a new line with a word of the goal came up that did not name the action."""
    goal, found = set(words(goal_of(trajectory.init))), []
    for before, action, after, gain in moments(trajectory):
        new = set(after.splitlines()) - set(before.splitlines())
        told = any(goal & set(words(line)) for line in new)
        if gain > 0 or (told and not set(words(action)) <= set(words(before))):
            found.append((before, action))
    return found


def lasting(trajectory: Trajectory) -> list[bool]:
    """For each step: did the score rise, or a text get more lines that seldom changes?"""
    records = [trajectory.init, *trajectory.steps]
    lines = [{key: len(text.splitlines()) for key, text in one.items() if isinstance(text, str)} for one in records]
    texts = [key for key in lines[0] if sum(a.get(key) != b.get(key) for a, b in itertools.pairwise(records)) <= SELDOM * len(records)]
    grown = [any(b.get(key, 0) > a.get(key, 0) for key in texts) for a, b in itertools.pairwise(lines)]
    return [gain > 0 or more for (*_, gain), more in zip(moments(trajectory), grown, strict=True)]


def last_taken(trajectory: Trajectory) -> list[str]:
    """The actions that changed something, each where it was last taken."""
    steps = [kind(action) for before, action, after, _ in moments(trajectory) if before != after]
    return [action for at, action in enumerate(steps) if action not in steps[at + 1 :]]


def possible(trajectory: Trajectory) -> list[tuple[str, frozenset[str] | None]]:
    """The actions that changed a text, each with the commands that it made possible; None where none are listed."""
    can = [frozenset(listed(record)) for record in (trajectory.init, *trajectory.steps)]
    steps = zip(moments(trajectory), itertools.pairwise(can), strict=True)
    return [(action, now - then if now else None) for (old, action, new, _), (then, now) in steps if old != new]


def path_of(goal: str, steps: list) -> list[str]:
    """What was done to the goal's things, those that the last command names, and what made that possible."""
    wanted, path, done, aims = set(words(goal)), [], set(), set()
    whats = [(action.split()[0], things(action)[:1]) for action, _ in steps]
    for at in reversed(range(len(steps))):
        (action, opened), what, named = steps[at], whats[at], things(steps[at][0])
        aim = set(words(named[0] if named else action))
        ours = aims & {*named[:1]} or not aim & set(words(" ".join(aims)))
        led = path and (opened is None or path[-1] in opened) and named and {*named} <= {*things(path[-1])}
        first = what not in whats[:at]  # later on it was done again to what had been laid aside
        if not path or (what not in done and (led or (first and aim & wanted and ours))):
            aims |= set() if led else {*named[:1]} if path else {*named}
            chance = [thing for thing in named[1:] if path and wanted & {*words(thing)}]  # where the other lay
            done.add(what)
            path.append(action.partition(chance[0])[0].strip() if chance else action)
    return [kind(action) for action in path[::-1]]


def path_of_all(goal: str, steps: list[tuple[str, frozenset[str]]]) -> list[str]:
    """All actions that changed something, each where it was last taken."""
    actions = [kind(action) for action, _ in steps]
    return [action for at, action in enumerate(actions) if action not in actions[at + 1 :]]


class Support:
    """How many different tasks speak for what is to be told: what holds in one alone is its own affair."""

    def __init__(self):
        self.tasks: dict[tuple[str, ...], set[str]] = defaultdict(set)

    def add(self, task: str, *names: str) -> None:
        self.tasks[names].add(task)

    def enough(self, *names: str) -> bool:
        return len(self.tasks.get(names, ())) >= TASKS


class Roles:
    """Where words stand in commands: which can take each other's place, and which is usual in a place."""

    def __init__(self):
        self.places: dict[str, set[tuple]] = defaultdict(set)
        self.words: dict[tuple, Counter[str]] = defaultdict(Counter)

    @staticmethod
    def parts(command: str) -> list[str]:
        """The words of a command but those of grammar, its verb first."""
        return [word for word in command.split() if word not in GRAMMAR] or [command]

    def add(self, commands) -> None:
        for command in sorted(commands):
            verb, *rest = self.parts(command)
            self.places[verb].add((len(rest), *(word for word in command.split() if word in GRAMMAR)))
            for at, word in enumerate(rest):
                self.places[word].add((verb, at))
                self.words[verb, at][word] += 1

    def likeness(self, one: str, other: str) -> float:
        """Share of common places of two words, in [0, 1]."""
        mine, theirs = self.places.get(one, set()), self.places.get(other, set())
        return len(mine & theirs) / (len(mine | theirs) or 1)

    def exchange(self, old, new) -> dict[str, str]:
        """For each word of the old goal that of the new one: the same, or the likest of those that have come."""
        other = {word: word for word in old if word in new}
        gone, come = ([word for word in dict.fromkeys(a) if word not in b] for a, b in ((old, new), (new, old)))
        for like, one, two in sorted(((self.likeness(a, b), a, b) for a in gone for b in come), reverse=True):
            if like and one not in other and two not in other.values():
                other[one] = two
        left = [word for word in gone if word not in other and self.is_thing(word)]
        strangers = [word for word in come if word not in self.places]
        return other | (dict(zip(left, strangers, strict=True)) if len(left) == len(strangers) else {})

    def is_thing(self, word: str) -> bool:
        """Whether something was done to what a word names."""
        return any(isinstance(verb, str) for verb, *_ in self.places.get(word, ()))

    def strange(self, command: str) -> bool:
        """Whether a command on a thing never came up, though others on the same did."""
        verb, *rest = self.parts(command)
        return any(self.places.get(word) and (verb, at) not in self.places[word] for at, word in enumerate(rest))

    def usual(self, verb: str, at: int) -> str | None:
        """The word that most commands with a verb have in a place."""
        found = self.words.get((verb, at), Counter())
        return next((word for word, n in found.most_common(1) if n >= PLANS_USUAL * sum(found.values())), None)


def context(init: dict, before: str) -> tuple[str, ...]:
    """Words that a command may have to do with: those of the goal."""
    return distinct(goal_of(init))


def context_in_sight(init: dict, before: str) -> tuple[str, ...]:
    """Words that a command may have to do with: those of the goal and of what was in sight."""
    return distinct(goal_of(init) + "\n" + before)


class Tally:
    """In how many episodes a command was used with a word around, and in how many it was decisive."""

    def __init__(self):
        self.tried: dict[str, Counter[str]] = defaultdict(Counter)
        self.good: dict[str, Counter[str]] = defaultdict(Counter)
        self.support = Support()

    def add(self, task: str, steps, decisive) -> None:
        """An episode's steps, and those that were decisive, each as (words around, action)."""
        for words_around, action in decisive:
            for word in ("", *words_around):
                self.support.add(task, kind(action), word)
        for counts, pairs in ((self.tried, steps), (self.good, decisive)):
            around = defaultdict(set)
            for words_around, action in pairs:
                around[kind(action)].update(("", *words_around))  # "" is always there
            for action, seen in around.items():
                counts[action].update(sorted(seen))

    def best(self) -> list[tuple[float, str, str]]:
        """(share of tries that were decisive; word; command), best first, where the word makes a difference."""
        rated = [
            (n / (self.tried[action][word] + TRUST), word, action)
            for action, seen in self.good.items()
            for word, n in seen.items()
            if n / self.tried[action][word] >= TALLY_LIFT * seen[""] / self.tried[action][""]
            and self.support.enough(action, word)
        ]
        return sorted(rated, key=lambda item: (-item[0], item[1], item[2]))


def shape(told: dict):
    """An object, as it is."""
    return told


def shape_sentences(told: dict):
    """A list of sentences."""
    said = []
    for title, found in told.items():
        pairs = found.items() if isinstance(found, dict) else [("", item) for item in found]
        for name, item in pairs:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            said.append(f"{title}: {name}: {text}" if name else f"{title}: {text}")
    return said
