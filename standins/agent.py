"""The stand-in for the agent: one policy for every domain.

The action follows from the text of the prompt and the seed alone, in every process. It knows no domain, no task and
no thing: it weighs each valid action by what was tried, by words shared with goal and observation, by the map of the
places seen and by what the memory says. Good memory helps it and bad memory misleads it.
"""

import math
from collections import Counter
from functools import lru_cache
from itertools import compress, pairwise

from standins.prompt import OUTCOME, Plan, command, noise, read_brief, read_memory, read_observation, words
from standins.state import UNKNOWN, Map, Progress, Thing, read_directions, ways


class W:
    """How much each kind of evidence counts. One setting for all domains."""

    plan = 4.0  # the next command of a plan of the memory: somebody has thought about the order
    directed = 3.0  # a step of directions in an observation: true, but terse
    fetch = 1.5  # to get what directions need
    spoil = 2.4  # against: what directions tell is done twice, too early or to other things
    goal = 2.0  # words shared with the goal
    notes = 1.6  # sentences and pairs of the memory: what they mean is guessed
    pointed = 1.0  # words shared with lines about what is wanted
    walk = 1.2  # ways to places that are unknown, or where something needed was seen
    news = 1.6  # commands whose verb has brought something new
    tried = 0.9  # against: each time that it was done in this situation
    idle = 0.9  # against: each time that it changed nothing there
    used = 0.2  # against: how often it was done anywhere
    leave = 1.0  # against: another command on a thing that commands have changed
    aside = 1.0  # against: a thing that is not of the goal with another, without directions
    chance = 0.2  # to break ties


def act(messages: list[dict], seed: int) -> str:
    """Choose the valid action with the most evidence for it and the least against it."""
    game = Game(messages)
    walk = ways(game)
    total = {action: -against for action, against in exploration(game, walk).items()}
    for weight, scores in ((W.plan, next_of_plans(game)), (1.0, follow(game)), (W.goal, shared_with_goal(game)),
                           (W.notes, noted(game)), (W.pointed, pointed_at(game)), (W.walk, walk)):  # fmt: skip
        for action, score in scores.items():
            total[action] += weight * score
    number, place = len(game.taken), " ".join(sorted(game.now.words))
    # Rounded, for sums over sets differ in their last digits from process to process.
    return max(game.actions, key=lambda one: round(total[one], 9) + W.chance * noise(seed, number, one, place))


class Game:
    """What the prompt of one turn says, made ready for weighing the actions."""

    def __init__(self, messages: list[dict]):
        self.goal, static, self.quoted, memory = read_brief(messages[0]["content"])
        self.turns = tuple(read_observation(m["content"]) for m in messages if m["role"] == "user")
        self.taken = tuple(m["content"].strip() for m in messages if m["role"] == "assistant")
        self.now = self.turns[-1]
        self.actions = self.now.actions or static or ("look",)
        self.listed = bool(self.now.actions) and set(self.now.actions) != set(static)  # each turn has its own
        self.commands = {action: command(action) for action in self.actions}
        self.rare = rarity(self.actions)
        self.mass = {one: sum([self.rare[word] for word in one.words]) for one in self.commands.values()}
        self.verbs = frozenset(command(one).verb for one in (*(static or self.quoted), *self.now.actions, *self.taken))
        self.memory = read_memory(memory, self.verbs)
        self.map = Map(self.turns, self.taken)
        self.context = dict.fromkeys(self.now.words, 0.6) | dict.fromkeys(self.goal, 1.0)  # what they speak of
        told = (read_directions(turn, self.verbs) for turn in reversed(self.turns) if self.listed)
        self.told = next(filter(None, told), None)
        # Whether each step brought a new place, a score or new words, with listed actions useful ones.
        useful = self.goal.union(*(command(action).words for action in (*self.taken, *self.actions)))
        useful = useful.union(*(self.told.things if self.told else ())) - self.verbs
        self.seen, places, self.news = set(self.turns[0].words), {self.map.places[0]}, []
        for turn, place in zip(self.turns[1:], self.map.places[1:], strict=True):
            fresh = turn.words - self.seen
            scored = any(OUTCOME.fullmatch(word) for word in fresh)
            self.news.append(scored or place not in places or bool(fresh & useful if self.listed else fresh))
            self.seen |= fresh
            places.add(place)
        self.progress = Progress(self) if self.told else None
        # How often each was done lately: less where it brought news, or before something new for the goal.
        self.counts, left = Counter(), 1.0
        for number, action in reversed(list(enumerate(self.taken))):
            self.counts[action] += left * (0.3 if self.news[number] else 1.0)
            one = command(action)
            left *= 0.3 if one.others and one.thing & self.goal and action not in self.taken[:number] else 0.97


@lru_cache(maxsize=512)
def rarity(actions: tuple[str, ...]) -> dict[str, float]:
    """How much each word tells about which of the actions is meant."""
    count = Counter(word for action in actions for word in command(action).words)
    return {word: 0.1 + math.log(len(actions) / n) for word, n in count.items()}


def shared_with_goal(game: Game) -> dict[str, float]:
    """Words that an action shares with the goal; less the more was done with a word."""
    worth = {word: game.rare.get(word, 2.0) for word in game.goal & game.seen.union(game.rare)}
    aims = sum(worth.values())
    for action, count in game.counts.items() if game.listed else ():
        for word in command(action).words & worth.keys():
            worth[word] /= 1 + 0.3 * count
    scores = {}
    for action, one in game.commands.items():
        common = sum(worth[word] for word in one.words & worth.keys()) / math.sqrt(game.mass[one] * aims or 1.0)
        scores[action] = common * (0.2 ** game.counts[action] if game.listed else 1.0)
    top = max([1.0, *scores.values()])  # so that none is beyond 1
    return {action: score / top for action, score in scores.items()}


def pointed_at(game: Game) -> dict[str, float]:
    """Words that an action shares with lines about what the goal or advice names."""
    clauses = dict(game.now.clauses)
    count = Counter(word for clause in clauses for word in clause)
    named = game.goal & count.keys() - game.rare.keys()
    wanted = {word: 1 / math.sqrt(len(named)) for word in named}
    # Advice names things too: it counts as far as goal and observation have its words.
    context, weight = game.context, game.memory.weight
    for note in game.memory.notes:
        if note.sign > 0 and not note.words.isdisjoint(context):
            hit = sum(weight[word] * context.get(word, 0.0) for word in note.words)
            share = math.sqrt(hit / sum(weight[word] for word in note.words))
            for word in note.words & count.keys() - game.verbs:
                wanted[word] = max(wanted.get(word, 0.0), 2 * share)
    worth = {word: value * math.log(1 + len(clauses) / count[word]) for word, value in wanted.items()}
    mass = {}  # of each clause: its best word counts, most at the head
    for clause, head in clauses.items():
        if best := max((worth[word] * (1.0 if word == head else 0.5) for word in clause & worth.keys()), default=0.0):
            mass[clause] = best / math.sqrt(len(clause))
    top, scores = max([0.3, *mass.values()]), {}
    for action, one in game.commands.items():
        got = (share * sum([game.rare[word] for word in one.words & clause]) for clause, share in mass.items())
        scores[action] = max(got, default=0.0) / top / (game.mass[one] or 1.0)
    return scores


def follow(game: Game) -> dict[str, float]:
    """For the next steps of directions and what they take; against steps too early, twice, on other things."""
    told, progress, scores = game.told, game.progress, {}
    if not told:
        return scores
    left, done, work, tools, held = progress.left, progress.done, progress.work, progress.tools, progress.held
    missing = {Thing(step[1:]) for step in left}.union(told.listed) - held if left else set()
    # How far each command does each step, in [0, 1]: by its own words, or by notes that have the step's verb.
    does, weight = {action: dict.fromkeys(progress.ready, 0.0) for action in game.actions}, game.memory.weight
    for action, one in game.commands.items():
        own_step = any(one.verb == step[0] for step in told.steps)
        for step in progress.ready:
            if one.words.issuperset(step[1:]) and (one.verb == step[0] or not own_step):
                own, share = (one.words - set(step)) | {one.verb}, float(one.verb == step[0])
                for note in progress.short[step[0]] if not share else ():
                    rest = note.words - {step[0]}
                    if sum(weight[word] for word in own & rest) >= 0.6 * sum(weight[word] for word in rest):
                        share += note.sign * len(own & rest) / len(own)
                does[action][step] = max(0.0, min(1.0, share))
    # Hands are full where something listed, or the tool of a step that nothing does, is at hand and cannot be got.
    stuck = {step for step in progress.ready if Thing(step[1:]) in held and not any(one[step] for one in does.values())}
    lacking = Thing().union(*(progress.explained[step[0]] for step in stuck)) - game.verbs
    full = any(one & lacking or one in missing.intersection(told.listed) for one in progress.out_of_reach - held)
    for action, one in game.commands.items():
        best = max((0.97**n * share for n, share in enumerate(does[action].values())), default=0.0)
        early = any(one.verb == step[0] and one.words.issuperset(step) for step in left)
        if best and action not in done:
            scores[action] = W.directed * best / (1 + game.counts[action])
        elif action in done or early or (one.verb in work and any(thing <= one.words for thing in told.things)):
            scores[action] = -W.spoil  # done before, too early, or told of other things
        elif one.thing in held:
            named = one.thing in told.things
            if (named or one.thing & tools) and not (full and (one.verb in progress.letting or not named)):
                scores[action] = -W.spoil  # it is needed, and hands are free
        elif one.thing in missing or one.thing & tools:
            scores[action] = W.fetch if one.verb in progress.getting or not progress.getting else 0.0
    return scores


def next_of_plans(game: Game) -> dict[str, float]:
    """For each action how far the memory's plans would do it next; plans of tasks like this one count most."""
    if not game.memory.plans:
        return {}
    steps = zip(game.taken, pairwise(game.turns), strict=False)
    done = tuple(action for action, (before, after) in steps if not before.is_like(after))
    fits = [(fitting(plan, game.goal, game.turns[0].words), plan) for plan in game.memory.plans]
    best = sorted(fits, key=lambda one: -one[0])[:6]
    trust = 0.6 + 0.4 * min(1.0, 2 * best[0][0])  # of another task's is hearsay
    total = sum(0.02 + fit**2 for fit, _ in best)
    scores = dict.fromkeys(game.actions, 0.0)
    for fit, plan in best:
        behind = carried_out(plan, done)
        coming = [step for number, step in enumerate(plan.steps) if number not in behind]
        for action in game.actions:
            likes = (soon * alike(action, step) for soon, step in zip((1.0, 0.4, 0.2, 0.1), coming, strict=False))
            scores[action] += trust * plan.sign * (0.02 + fit**2) / total * max(likes, default=0.0)
    return scores


@lru_cache(maxsize=4096)
def fitting(plan: Plan, goal: frozenset[str], first: frozenset[str]) -> float:
    """How like this task a plan's is: by what stands around it, or by what it does."""
    pairs = ((plan.about, goal | first), (frozenset().union(*map(words, plan.steps)), goal))
    return max(len(a & b) / math.sqrt(len(a) * len(b) or 1) for a, b in pairs)


@lru_cache(maxsize=4096)  # the next turn asks for one action more
def carried_out(plan: Plan, taken: tuple[str, ...]) -> frozenset[int]:
    """The steps of a plan that are done; what comes after a step that was done again is to be done again."""
    if not taken:
        return frozenset()
    done = carried_out(plan, taken[:-1])
    likes = [alike(taken[-1], step) - 0.01 * (number in done) for number, step in enumerate(plan.steps)]
    at = likes.index(max(likes))
    return frozenset(number for number in done if number < at) | {at} if likes[at] > 0.5 else done


@lru_cache(maxsize=100_000)
def alike(action: str, told: str) -> float:
    """How far an action is the told command, which may be told in short: 1 exactly, less in kind."""
    mine, theirs = command(action), command(told)
    things, wanted = mine.words - {mine.verb}, theirs.words - {theirs.verb}
    common = len(things & wanted)
    if action.lower() == told:
        return 1.0
    if mine.verb != theirs.verb:
        return 0.15 * common / len(wanted | things) if common else 0.0
    if not wanted:
        return 0.3 if things else 0.9
    if (things and not common) or (mine.thing and theirs.thing and not mine.thing & theirs.thing):
        return 0.0  # the same done to something else
    return 0.15 + 0.55 * common / len(wanted) + 0.25 * common / len(wanted | things)


def noted(game: Game) -> dict[str, float]:
    """What notes say for and against each action: as far as they name it and the rest of them holds here."""
    memory, scores = game.memory, {}
    known = game.seen.union(game.rare, game.goal)
    for one in set(game.commands.values()) if memory.notes else ():
        mass, total = game.mass[one] or 1.0, 0.0
        notes = (note for word in sorted(one.words & memory.having.keys()) for note in memory.having[word])
        for note in dict.fromkeys(notes):  # each once, in one order in every process
            told = note.command
            if told and told.verb == one.verb and told.rest and not told.rest & one.words:
                continue  # the same done to something else
            shared = sum(game.rare[word] for word in one.words & note.words)
            named = sum(game.rare.get(word, 0.0) for word in note.words)  # of all the actions
            met = missed = 0.0
            for word in note.words - one.words:
                share = game.context.get(word, 0.0)
                met += memory.weight[word] * share
                missed += memory.weight[word] * (1 - share) * (1.0 if word in known else 0.3)
            total += note.sign * max(shared / mass, 0.8 * shared / named) ** 2 * (met + 0.18) / (met + missed + 0.3)
        scores[one] = total
    top = max([1.0, *map(abs, scores.values())])  # so that none is beyond 1 or -1
    return {action: scores[one] / top for action, one in game.commands.items() if one in scores}


def exploration(game: Game, walk: dict[str, float]) -> dict[str, float]:
    """The case against each action: done before in this situation, in vain, or often; less where its kind is new."""
    scores, verbs = dict.fromkeys(game.actions, 0.0), [command(action).verb for action in game.taken]
    tries, news = Counter(verbs), Counter(compress(verbs, game.news))
    here = Counter(action for action, place in zip(game.taken, game.map.places, strict=False) if place == game.map.here)
    for action, (before, after) in zip(game.taken, pairwise(game.turns), strict=False) if not game.listed else ():
        if action in scores and before.is_like(game.now):
            scores[action] += W.tried + W.idle * before.is_like(after)
    # What was done and cannot be done now has changed something; what has no name is not told apart.
    changed = Counter(command(one).name for one in game.taken if game.listed and one not in game.commands)
    directed = game.told and game.told.listed
    for action, one in game.commands.items():
        if not (walk and one.verb in game.map.moving):
            share = (news[one.verb] + 0.5) / (tries[one.verb] + 1)
            scores[action] += W.used * math.log1p(game.counts[action]) - W.news * share
            if one.name and changed[one.name] > 1 and not directed:
                scores[action] += W.leave * (1 - share)
        if game.listed and here[action]:
            there = game.map.leads.get((game.map.here, action))
            been = game.map.visits[there] if there else here[action]
            scores[action] += math.log1p(been) * (1 - min(1.0, walk.get(action, 0.0) / UNKNOWN))
        if one.others and one.thing and not directed and not one.thing & game.goal:
            scores[action] += W.aside
    return scores
