"""The layers that the stand-in meta agent writes memory designs from.

Promises: each layer here learns from the words of finished episodes and from nothing else; it knows no
domain. `offline_grammar` copies the chosen layers, with what they use of `offline_parts.py`, into a module of
its own: what is here is what a design's reader sees. It does not promise that a layer helps: that is
what the search is to find out.

Try it: `python -c "import offline_grammar as g; print(g.write(g.Blueprint(('Places',))))"`
"""

import itertools
import re
from collections import Counter, defaultdict

from memory_base import Embedding, MemoryLayer, Trajectory, VectorStore
from standins.parts import (
    DANGERS_RATE,
    DANGERS_TOP,
    EPISODES_STEPS,
    EPISODES_TOP,
    EPISODES_WON_ONLY,
    LAST,
    LIKE,
    MEANINGS_SEEN,
    MEANINGS_SHARE,
    PATTERNS_LIFT,
    PATTERNS_SHARE,
    PATTERNS_TOP,
    PLACES_LIFT,
    PLACES_SHARE,
    PLACES_TOP,
    PLANS_LIFT,
    PLANS_STEPS,
    PLANS_TOP,
    RATE,
    REACTIONS_RATE,
    REACTIONS_TOP,
    SOURCES_RATE,
    SOURCES_TOP,
    TARGETS_RATE,
    TARGETS_TOP,
    TRUST,
    USES_THINGS,
    USES_TOP,
    WASTE_RATE,
    WASTE_TRIES,
    WON,
    Roles,
    Support,
    Tally,
    adapt,
    closeness,
    context,
    decisive,
    discoveries,
    distinct,
    goal_of,
    kind,
    last_taken,
    lasting,
    listed,
    moments,
    offered,
    path_of,
    possible,
    situation,
    task_of,
    text_of,
    thing_of,
    words,
)  # fmt: skip


class Episodes(MemoryLayer):
    """Whole episodes; tells those whose beginning is most like the task's."""

    def __init__(self):
        self.store = VectorStore(Embedding())
        self.kept: list[Trajectory] = []

    async def update(self, trajectory):
        if trajectory.reward >= WON or not EPISODES_WON_ONLY:
            self.store.add_texts([situation(trajectory.init)], metadatas=[{"number": len(self.kept)}])
            self.kept.append(trajectory)

    async def retrieve(self, init):
        if not self.kept:
            return []
        found = self.store.similarity_search(situation(init), k=EPISODES_TOP)
        return [self.tell(self.kept[item.metadata["number"]]) for item in found]

    def tell(self, trajectory):
        steps = [
            {"action": step.get("action_took", ""), "observation": text_of(step)}
            for step in trajectory.steps[-EPISODES_STEPS:]
        ]
        return {"goal": goal_of(trajectory.init), "steps": steps, "reward": trajectory.reward}


class Plans(MemoryLayer):
    """What was done in won episodes, step by step; tells it for the goal of the task, the likest first."""

    def __init__(self):
        self.kept: list[tuple[str, list]] = []
        self.roles = Roles()
        self.moving: set[str] = set()  # verbs that changed what can be done
        self.used: Counter[str] = Counter()  # episodes in which a verb dealt with the goal; "" is always there
        self.won: Counter[str] = Counter()  # the same of won ones

    async def update(self, trajectory):
        goal, records = goal_of(trajectory.init), [trajectory.init, *trajectory.steps]
        taken = [str(step.get("action_took", "")) for step in trajectory.steps]
        self.roles.add({kind(command) for record in records for command in listed(record)}.union(map(kind, taken)))
        for (before, after), action in zip(itertools.pairwise(records), taken, strict=True):
            self.moving.update(action.split()[:1] if offered(before) != offered(after) else ())
        verbs = {"", *(action.split()[0] for action in taken if {*words(action)[1:]} & {*words(goal)})}
        self.used.update(verbs)
        if trajectory.reward >= WON:
            self.won.update(verbs)
            self.kept.append((goal, possible(trajectory)))

    def counts(self, verb, goal):
        """Whether a verb changes what can be done, is what the goal asks for, or speaks for a won episode."""
        often = self.won[verb] * self.used[""] >= PLANS_LIFT * self.used[verb] * self.won[""]
        return verb in self.moving or verb in words(goal) or often

    async def retrieve(self, init):
        goal, near = goal_of(init), []
        for old, steps in self.kept:
            path = path_of(old, [step for step in steps if self.counts(step[0].split()[0], old)])
            plan = adapt(path[-PLANS_STEPS:], old, goal, self.roles)
            near.append((closeness(old, goal, self.roles), " -> ".join(plan), -len(plan)))
        told = Counter(plan for like, plan, length in near if like >= LIKE and length < -1)
        best = sorted(near, key=lambda item: (item[0], told[item[1]], item[2]), reverse=True)
        return list(dict.fromkeys(plan for _, plan, _ in best if plan in told))[:PLANS_TOP]


class Patterns(MemoryLayer):
    """What won episodes with goals of one form have in common and others lack: commands, the goal's words open."""

    def __init__(self):
        self.won: Counter[str] = Counter()  # by form of the goal
        self.places: dict[str, dict[str, list[float]]] = defaultdict(dict)  # form: command: where in the episodes
        self.late: dict[str, set[str]] = defaultdict(set)  # form: last commands
        self.usual: Counter[str] = Counter()  # episodes that have a command, whatever came of them
        self.episodes = 0

    async def update(self, trajectory):
        actions = last_taken(trajectory)
        named = {word for action in actions for word in words(action)[1:]}
        things = [word for word in distinct(goal_of(trajectory.init)) if word in named]
        commands = [self.opened(action, things) for action in actions]
        self.episodes += 1
        self.usual.update(dict.fromkeys(commands, 1))
        if trajectory.reward >= WON:
            form = self.opened(" ".join(words(goal_of(trajectory.init))), things)
            self.won[form] += 1
            self.late[form].update(commands[-LAST:])
            for at, command in enumerate(commands):
                self.places[form].setdefault(command, []).append(at / len(commands))

    def opened(self, text, things):
        """A text with a number in the place of each of the things."""
        return " ".join(f"_{things.index(word)}" if word in things else word for word in text.lower().split())

    async def retrieve(self, init):
        goal = words(goal_of(init))
        form = max((form for form in self.won if self.fits(form, goal)), key=lambda form: (self.won[form], form), default="")
        things = {slot: word for slot, word in zip(form.split(), goal, strict=False) if slot.startswith("_")}
        found = self.places[form]
        common = [command for command, at in found.items() if self.telling(command, len(at), form)]
        ordered = sorted(common, key=lambda command: sum(found[command]) / len(found[command]))
        return [" ".join(things.get(word, word) for word in command.split()) for command in ordered[-PATTERNS_TOP:]]

    def fits(self, form, goal):
        """Whether a goal has a form: the same words but where they are open."""
        slots = form.split()
        pairs = zip(slots, goal, strict=False)
        return len(slots) == len(goal) and all(slot == word or slot.startswith("_") for slot, word in pairs)

    def telling(self, command, count, form):
        """Whether most won episodes of a form have a command, oftener than others and not by chance."""
        share = count / self.won[form]
        often = share >= PATTERNS_SHARE and share >= PATTERNS_LIFT * self.usual[command] / self.episodes
        return often and (count > 1 or command in self.late[form])


class Places(MemoryLayer):
    """Where each kind of thing was found: the action that brought it into sight."""

    def __init__(self):
        self.found: dict[str, Counter[str]] = defaultdict(Counter)
        self.done: Counter[str] = Counter()
        self.support = Support()

    async def update(self, trajectory):
        taken, task = set(), task_of(trajectory.init)
        for action, new in discoveries(trajectory):
            if action not in taken:
                taken.add(action)
                self.done[kind(action)] += 1
                for word in new:
                    self.found[word][kind(action)] += 1
                    self.support.add(task, word, kind(action))

    async def retrieve(self, init):
        told = {word: self.places(word) for word in distinct(goal_of(init)) if word in self.found}
        return {word: places[:PLACES_TOP] for word, places in told.items() if places}

    def places(self, word):
        """The places, the likeliest first, each with one of the commands that deal with it."""
        found, usual = self.found[word], sum(self.found[word].values()) / sum(self.done.values())
        rates = {place: n / (self.done[place] + TRUST) for place, n in found.items() if self.support.enough(word, place)}
        least = max(PLACES_SHARE * max(rates.values(), default=0.0), PLACES_LIFT * usual)
        rated = sorted((rate, place) for place, rate in rates.items() if rate >= least)
        by_things = {words(place)[1:]: place for _, place in rated}
        return [place for _, place in reversed(rated) if place in by_things.values()]


class Uses(MemoryLayer):
    """Which command goes with which word: what was decisive where that word was around."""

    def __init__(self):
        self.tally = Tally()

    async def update(self, trajectory):
        init = trajectory.init
        steps = [(context(init, before), action) for before, action, _, _ in moments(trajectory)]
        good = [(context(init, before), action) for before, action in decisive(trajectory)]
        self.tally.add(task_of(init), steps, good)

    async def retrieve(self, init):
        here, told = set(words(situation(init))), {}
        for rate, word, action in self.tally.best():
            if rate >= RATE and word in here and (word in told or len(told) < USES_THINGS):
                told.setdefault(word, []).append(action)
        return {word: actions[:USES_TOP] for word, actions in told.items()}


class Reactions(MemoryLayer):
    """Commands that had a lasting effect, and what had come up before: the word that speaks for each."""

    def __init__(self):
        self.tally = Tally()

    async def update(self, trajectory):
        start, seen, steps = text_of(trajectory.init), set(), []
        for before, action, _, _ in moments(trajectory):
            seen.update(set(words(before)) - set(words(start)))
            steps.append((sorted(seen), action))
        good = [step for step, lasted in zip(steps, lasting(trajectory), strict=True) if lasted]
        self.tally.add(task_of(trajectory.init), steps, good)

    async def retrieve(self, init):
        known = [(action, good[""]) for action, good in self.tally.good.items() if self.tally.support.enough(action, "")]
        rated = [(n / (self.tally.tried[action][""] + TRUST), action) for action, n in known]
        best = [action for rate, action in sorted(rated)[::-1] if rate >= REACTIONS_RATE]
        return [f"{self.sign(action)}: {action}".removeprefix(": ") for action in best[:REACTIONS_TOP]]

    def sign(self, action):
        """The word that preceded most uses of a command which lasted, and oftener than its other uses."""
        tried, good = self.tally.tried[action], self.tally.good[action]
        return max(sorted(good), key=lambda word: good[word] ** 2 / (tried[word] + TRUST))


class Meanings(MemoryLayer):
    """What a word means as a command: what all commands with this verb have in common, or what answers call one."""

    def __init__(self):
        self.common: dict[str, set[str]] = {}  # verb: words that all its commands have
        self.commands: dict[str, set[str]] = defaultdict(set)  # verb: the commands that were offered
        self.uses: Counter[str] = Counter()  # by a command without the thing
        self.called: dict[str, Counter[str]] = defaultdict(Counter)  # the same: words that answers had for it
        self.support = Support()

    async def update(self, trajectory):
        task = task_of(trajectory.init)
        for record in (trajectory.init, *trajectory.steps):
            for command in map(kind, listed(record)):
                verb, *rest = command.split() or [""]
                self.commands[verb].add(command)
                self.common[verb] = self.common.get(verb, set(rest)) & set(rest)
                self.support.add(task, verb)
        for _, action, after, _ in moments(trajectory):
            form = " ".join(word for word in kind(action).split() if word not in thing_of(action))
            self.uses[form] += 1
            for word in self.names(action, after):
                self.called[form][word] += 1
                self.support.add(task, word, form)

    def names(self, action, after):
        """What sentences that tell of a command's thing, and of one thing more, call the command."""
        thing, found = thing_of(action), [distinct(sentence) for sentence in re.split(r"[.!?\n]", after)]
        others = [set(sentence) - set(words(action)) for sentence in found if thing and set(thing) <= set(sentence)]
        return sorted({word for one in others if len(one) == 1 for word in one})

    async def retrieve(self, init):
        told = {verb: [form] for verb in sorted(self.commands) if self.support.enough(verb) for form in self.shared(verb)}
        for form, called in sorted(self.called.items()):
            for word, n in sorted(called.items()):
                often = n >= MEANINGS_SHARE * self.uses[form] and self.support.enough(word, form)
                if often and word not in self.commands:
                    told.setdefault(word, []).append(form)
        return {word: forms for word, forms in told.items() if len(forms) == 1}  # else it means none of them

    def shared(self, verb):
        """What all commands with a verb have in common, if that is more than the verb."""
        keep, commands = {verb, *self.common[verb]}, self.commands[verb]
        form = " ".join(word for word in min(commands).split() if word in keep)
        return [form] if len(commands) >= MEANINGS_SEEN and len(words(form)) > 1 else []


class Sources(MemoryLayer):
    """Commands whose answers named, in a line of its own, what scored later."""

    def __init__(self):
        self.uses: Counter[str] = Counter()
        self.named: Counter[str] = Counter()
        self.support = Support()

    async def update(self, trajectory):
        source, named = {}, set()  # by the words of a line: the command that was answered with it
        for _, action, after, gain in moments(trajectory):
            if gain > 0 and thing_of(action) in source:
                named.add(source[thing_of(action)])
            for line in map(words, after.splitlines()):
                if line and not set(line) <= set(words(action)):
                    source.setdefault(line, kind(action))
        self.uses.update({kind(step["action_took"]) for step in trajectory.steps})
        self.named.update(named)
        for command in named:
            self.support.add(task_of(trajectory.init), command)

    async def retrieve(self, init):
        rated = [(n / (self.uses[command] + TRUST), command) for command, n in self.named.items() if self.support.enough(command)]
        return [command for rate, command in sorted(rated)[::-1][:SOURCES_TOP] if rate >= SOURCES_RATE]


class Waste(MemoryLayer):
    """Verbs that hardly ever brought anything new and decided nothing."""

    def __init__(self):
        self.tries: Counter[str] = Counter()
        self.news: Counter[str] = Counter()
        self.good: set[str] = set()

    async def update(self, trajectory):
        for action, new in discoveries(trajectory):
            self.tries[kind(action).split()[0]] += 1
            self.news[kind(action).split()[0]] += bool(new)
        self.good.update(kind(action).split()[0] for _, action, _, gain in moments(trajectory) if gain > 0)

    async def retrieve(self, init):
        often = [verb for verb, n in self.tries.items() if n >= WASTE_TRIES and verb not in self.good]
        bad = [verb for verb in often if self.news[verb] <= WASTE_RATE * self.tries[verb]]
        return [f"avoid {verb}" for verb in sorted(bad)]


class Dangers(MemoryLayer):
    """Commands after which lost episodes ended early."""

    def __init__(self):
        self.tries: Counter[str] = Counter()
        self.last: list[tuple[int, list[str]]] = []  # length of a lost episode, names of its last command
        self.won: set[str] = set()  # names of last commands of won ones

    async def update(self, trajectory):
        for _, action, _, _ in moments(trajectory):
            self.tries.update(self.names(action))
        last = self.names(str(trajectory.steps[-1].get("action_took", ""))) if trajectory.steps else []
        if trajectory.reward >= WON:
            self.won.update(last)
        elif last:
            self.last.append((len(trajectory.steps), last))

    def names(self, action):
        """A command and its verb."""
        return list(dict.fromkeys((kind(action), kind(action).split()[0])))

    async def retrieve(self, init):
        longest = max((length for length, _ in self.last), default=0)
        ends = Counter(name for length, names in self.last if length < longest for name in names if name not in self.won)
        risks = [(n / (self.tries[name] + TRUST), name) for name, n in ends.items()]
        return [f"never {name}" for risk, name in sorted(risks, reverse=True) if risk >= DANGERS_RATE][:DANGERS_TOP]


class Targets(MemoryLayer):
    """Which thing to reach: what the first observation says of things that were gone when an episode was won."""

    def __init__(self):
        self.told: Counter[str] = Counter()  # forms of lines about things
        self.good: Counter[str] = Counter()  # the same, of things that were reached

    async def update(self, trajectory):
        if trajectory.reward < WON or not trajectory.steps:
            return
        before, _, after, _ = moments(trajectory)[-1]
        taken = {word for step in trajectory.steps for word in words(step["action_took"])}
        gone = {word for word in distinct(before) if self.lines(word, after) < self.lines(word, before)}
        for form, thing in self.forms(trajectory.init):
            self.told[form] += 1
            self.good[form] += thing in gone - taken

    def lines(self, word, text):
        """Number of lines that have a word."""
        return sum(word in words(line) for line in text.splitlines())

    def forms(self, init):
        """Lines of the first observation with one of their words left open, and that word."""
        return [
            (re.sub(rf"\b{thing}\b", "_", line.lower()), thing)
            for line in dict.fromkeys(text_of(init).splitlines())
            for thing in distinct(line)
        ]

    async def retrieve(self, init):
        told: Counter[str] = Counter()
        for form, thing in self.forms(init):
            told[thing] = max(told[thing], self.good[form] / (self.told[form] + TRUST))
        return [thing for thing, rate in told.most_common(TARGETS_TOP) if rate >= TARGETS_RATE]
