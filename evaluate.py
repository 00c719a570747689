"""What turns a memory design into a score: the collection phase and the deployment phase.

Every design meets the same collected trajectories in the same order, and the same episodes (task, seed). A design that
raises or breaks a limit scores 0 for that task, an invalid action costs the agent a step, and an infrastructure fault
stops the run and is never a score.

Try it: `python alma.py evaluate --env minihack --design no_memory --design trajectory_retrieval`
"""

import asyncio
import contextlib
import functools
import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import envs
from agent import Episode, Played, play
from errors import ContextOverflow, DesignError, UserError
from jail.template import TemplateDied, outlive
from memory_base import Trajectory
from models import MOST_OUTPUT
from prompts import count_tokens
from sandbox import CannotFork, Sandbox, Worker, side_by_side, uninterrupted
from score import Outcome, Score, experience, luck, score_of

NO_MEMORY = "no_memory"  # the baseline that all are compared with
ALL = slice(None)  # collected episodes that are learned from
EXPERIENCE = ", experience"  # the purpose of calls of a design that learns nothing or a single episode
SINGLES = 3  # different single episodes of which each is learned from alone, see `Evaluator.experience`
RACE_ROUNDS = 6  # parts of a deployment, after each of which a race may be over
MOST_LEARNED = 5  # times that a memory learns because its worker ended before it was forked


def halve(tasks: Sequence[envs.Task], seed: int) -> tuple[list[envs.Task], list[envs.Task]]:
    """A task set's collection half and deployment half, each with tasks of every family."""
    order = random.Random(envs.derive_seed("halve", seed))
    shuffled = sorted(order.sample(list(tasks), len(tasks)), key=lambda task: task.family)  # random within each family
    return tuple(order.sample(half, len(half)) for half in (shuffled[0::2], shuffled[1::2]))


def folds(config, split: str) -> list[tuple[list[envs.Task], list[envs.Task]]]:
    """For each fold of a task set: the tasks to collect on and the tasks to deploy on. Raises UserError."""
    tasks = [task for task in envs.domain_class(config.env).tasks() if task.split == split]
    chosen = tasks[: (config.tasks if split == "learning" else config.test_tasks) or None]
    if split == "shift" and chosen:  # deployed whole, as in the paper: collected on `valid_seen`, then `valid_unseen`
        return [(folds(config, "test")[0][0], chosen)]
    if len(chosen) < 2:
        why = ": a single task cannot be halved" if chosen else ""
        raise UserError(f"{config.env} has no {split} set to evaluate on{why}")
    halves = halve(chosen, config.seed)
    return [halves, halves[::-1]] if config.folds == 2 else [halves]


class DesignTools:
    """Answers `memory_base.Tools` for one memory, of which the n-th time that it asks one thing is one stored call:
    a memory that is built again asks the same things again, and they are not paid for twice."""

    def __init__(self, models, design: str, stage: str, asked: Counter[str] | None = None, keep_models: bool = False):
        self._models, self._keep_models = models, keep_models
        self._account = {"design": design, "stage": stage}  # whom calls are booked to
        self.asked = Counter(asked)  # how often each thing was asked so far

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        model = (model or "") if self._keep_models else ""
        question = json.dumps([messages, schema, model], sort_keys=True)
        self.asked[question] += 1
        call = {"schema": schema, "sample": f"memory {self.asked[question]}", "model": model, **self._account}
        try:
            return await self._models.chat("memory", messages, **call)
        except ContextOverflow:
            raise DesignError("error", f"a prompt of {len(user)} characters is too long for the model") from None

    async def embed(self, texts: list[str]) -> list[list[float]]:
        return await self._models.embed(texts, **self._account)


@dataclass(frozen=True)
class Protocol:
    """How designs are evaluated: the same for all that are compared."""

    domain: str
    agent_model: str
    seed: int
    passes: int = 3
    collection_passes: int = 1  # episodes of each collection task
    mode: str = "static"  # or "dynamic": each deployed trajectory is learned from
    show_admissible: bool = False
    keep_models: bool = False  # a design's calls go to the model that it names
    style: str = "act"  # how the agent answers
    tokens: int = MOST_OUTPUT["agent"]  # most of an answer of the agent
    constrain: bool = False  # the agent's answers to the listed actions


class Evaluator:
    """Evaluates designs on all folds of a task set; `async with` plays the collection phases, starts the sandboxes."""

    def __init__(self, folds: Sequence["Fold"]):
        self.folds = folds
        self.episodes = sum(len(fold.places()) for fold in folds)  # that are deployed of each design

    async def __aenter__(self) -> "Evaluator":
        async with contextlib.AsyncExitStack() as stack:  # where one fails, those before it are closed
            for fold in self.folds:
                await stack.enter_async_context(fold)
            self._stack = stack.pop_all()
        self.unsafe = any(fold.sandbox.unsafe for fold in self.folds)  # whether a layer of the sandbox is missing
        return self

    async def __aexit__(self, *exception) -> None:
        await self._stack.aclose()

    async def f0(self) -> float:
        """Score of no memory on all that is deployed on."""
        return float(np.mean([one.trajectory.reward for fold in self.folds for one in await fold.without_memory()]))

    async def luck(self) -> dict:
        """What chance alone does to a difference on this task set, see `score.luck`."""
        passes = range(2 * self.folds[0].protocol.passes)
        played = await side_by_side(fold.without_memory(passes) for fold in self.folds)
        scores = [{} for _ in passes]
        for fold, without in zip(self.folds, played, strict=True):
            for (task, number), one in zip(fold.places(passes), without, strict=True):
                scores[number][task.id] = one.trajectory.reward
        return luck(scores)

    async def evaluate(self, design: str, source: str, *, learned: slice = ALL, passes: range | None = None,
                       race: Callable[[list[Outcome], int], bool] | None = None, purpose: str = "") -> Score:
        """Deploy a design (its id and its code) on every task of each fold's deployment half, in every pass.

        `learned`: the collected episodes that it learns from. `passes`: other ones than the protocol's have other seeds.
        `race(outcomes, planned)` is asked after each of RACE_ROUNDS parts of them whether to stop (static mode alone).
        `purpose` is added to the stage under which the design's own model calls are booked."""
        passes = range(self.folds[0].protocol.passes) if passes is None else passes
        deployments = [Deployment(fold, design, source, learned, purpose) for fold in self.folds]
        rounds = RACE_ROUNDS if race else 1
        planned, outcomes, stopped = sum(len(fold.places(passes)) for fold in self.folds), [], False
        try:
            for number in range(rounds):
                played = await side_by_side(one.play(passes, number, rounds) for one in deployments)
                outcomes += [outcome for part in played for outcome in part]
                if stopped := number + 1 < rounds and race(outcomes, planned):
                    break
        finally:
            await uninterrupted(asyncio.gather(*(one.close() for one in deployments)))
        errors = sum((one.errors for one in deployments), Counter()).items()
        most = sorted(errors, key=lambda one: (-one[1], one[0]))[:10]  # by text too: which came first does not count
        texts, raced = tuple(f"{count} × {text}" for text, count in most), len(outcomes) if stopped else 0
        known = {"output": deployments[0].output, "update_seconds": deployments[0].update_seconds}
        return replace(score_of(outcomes), errors=texts, raced=raced, **known)

    async def experience(self, design: str, source: str, score: Score, purpose: str = EXPERIENCE) -> dict:
        """What a design with this score has from experience, in the same passes: see `score.experience`."""
        numbers = [one.number for one in score.outcomes]
        places = range(min(len(fold.collected) for fold in self.folds))
        rng = random.Random(envs.derive_seed("single episodes", self.folds[0].protocol.seed))
        singles = rng.sample(places, min(SINGLES, len(places)))
        slices = [slice(0), *(slice(place, place + 1) for place in singles)]
        how = {"passes": range(min(numbers), max(numbers) + 1), "purpose": purpose}
        none, *ones = await side_by_side(self.evaluate(design, source, learned=one, **how) for one in slices)
        return experience(none, ones, score)


class Fold:
    """A half to collect on and a half to deploy on. All designs share its collection and its episodes without memory.

    `async with Fold(...)` plays the collection phase and starts the sandbox that holds what was collected. The episodes
    without memory are played meanwhile; a deployed episode waits only for the same one without memory. Another `phase`
    collects other episodes of the same tasks; the designs' own model calls are booked under `stage`.
    """

    def __init__(self, protocol: Protocol, collection: Sequence[envs.Task], deployment: Sequence[envs.Task], *,
                 pool, store, models, gateway: str | None, unsafe_sandbox: bool, phase: str, stage: str, progress, log):
        self.protocol, self._collection, self.deployment = protocol, list(collection), list(deployment)
        self._pool, self._store, self.models, self._gateway = pool, store, models, gateway
        self._unsafe, self._phase, self.stage, self._progress, self.log = unsafe_sandbox, phase, stage, progress, log
        self._playing: dict[str, asyncio.Task[Played]] = {}  # by key of the episode
        self._played: set[str] = set()  # keys of those that this process has played
        self.collected: list[Played] = []
        self.sandbox: Sandbox | None = None  # once all is collected
        self._without: dict[tuple[str, int], asyncio.Task[Played]] = {}  # no memory, by task and pass

    async def __aenter__(self) -> "Fold":
        collecting = asyncio.gather(*map(self.play, self.collection_episodes()))
        for place in self.places():
            self.without(*place)
        try:
            self.collected = await collecting
            self.sandbox = Sandbox([one.trajectory for one in self.collected], unsafe=self._unsafe)
            await self.sandbox.__aenter__()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception) -> None:
        for playing in self._without.values():
            playing.cancel()
        await asyncio.gather(*self._without.values(), return_exceptions=True)
        if self.sandbox is not None:
            await self.sandbox.__aexit__(*exception)

    def places(self, passes: range | None = None) -> list[tuple[envs.Task, int]]:
        """Each deployed task in each pass, one pass after the other."""
        return [(task, number) for number in passes or range(self.protocol.passes) for task in self.deployment]

    def without(self, task: envs.Task, number: int) -> asyncio.Task[Played]:
        """A deployed task's episode without memory in one pass; it is played once."""
        key = task.id, number
        if key not in self._without:
            self._without[key] = asyncio.ensure_future(self.play(self.episode(task, number)))
        return self._without[key]

    async def without_memory(self, passes: range | None = None, most: int | None = None) -> list[Played]:
        """The deployment half's episodes without memory, or the first so many; the first error is raised."""
        return await asyncio.gather(*(asyncio.shield(self.without(*place)) for place in self.places(passes)[:most]))

    def tools(self, design: str, stage: str, asked: Counter[str] | None = None) -> DesignTools:
        return DesignTools(self.models, design, stage, asked, self.protocol.keep_models)

    def collection_episodes(self) -> list[Episode]:
        """The episodes of the collection phase, one pass after the other."""
        phases = [f"{self._phase} {number}" if number else self._phase for number in range(self.protocol.collection_passes)]
        return [self.episode(task, phase) for phase in phases for task in self._collection]

    def episode(self, task: envs.Task, phase: int | str, memory: str = "") -> Episode:
        protocol = self.protocol
        seed = envs.derive_seed(task.seed, protocol.seed, phase)
        shared = {name: getattr(protocol, name) for name in ("show_admissible", "style", "tokens", "constrain")}
        return Episode(protocol.domain, task.id, seed, protocol.agent_model, memory, str(phase), **shared)

    async def play(self, episode: Episode, design: str = NO_MEMORY, length: float = math.inf) -> Played:
        """The outcome of an episode: from the store, else played in a worker and stored. Of those that wait, the one
        with the greatest expected `length` in steps is played first; others wait for those without memory. Two designs
        that retrieve the same thing share an episode, which is played once."""
        key = episode.key()
        once = key if design == NO_MEMORY else ""  # several folds may have it
        if (known := self._store.get_episode(key)) is not None:
            self._progress(design, fresh=key in self._played, once=once)
            return Played(**{**known, "trajectory": Trajectory(**known["trajectory"])})
        if key not in self._playing:
            self._playing[key] = asyncio.ensure_future(self._play(key, episode, design, length))
        played = await self._playing[key]
        self._progress(design, once=once)
        return played

    async def _play(self, key: str, episode: Episode, design: str, length: float) -> Played:
        try:
            played = await self._pool.run(play, episode, self._gateway, design, length=length)
            self._store.put_episode(key, {**vars(played), "trajectory": vars(played.trajectory)})
            self._played.add(key)
        finally:
            del self._playing[key]
        return played


class Deployment:
    """One design on the deployment half of a fold."""

    def __init__(self, fold: Fold, design: str, source: str, learned: slice, purpose: str):
        self._fold, self._design = fold, design
        self._tools = functools.partial(fold.tools, design, fold.stage + purpose)
        self._worker = functools.partial(fold.sandbox.worker, source)
        self._learned_from = range(len(fold.collected))[learned]
        self._retrievals: dict[str, asyncio.Task] = {}  # by what is known of the task
        self._learning: asyncio.Task[tuple[Worker, Counter[str]]] | None = None
        self._learned = contextlib.AsyncExitStack()  # holds the worker that has learned
        self._times_learned, self._said = 0, set()  # what was said in the log about it
        self.errors, self.output, self.update_seconds = Counter(), "", 0.0

    async def play(self, passes: range, part: int, parts: int) -> list[Outcome]:
        """The outcomes of one of so many parts of the episodes of these passes, in the protocol's mode."""
        if self._fold.protocol.mode == "dynamic":
            return await self.dynamic(passes)
        places = self._fold.places(passes)
        return await self.static(places[len(places) * part // parts : len(places) * (part + 1) // parts])

    async def static(self, places: Sequence[tuple[envs.Task, int]]) -> list[Outcome]:
        """Each task meets the memory as it stood after the collection phase."""
        return await side_by_side(self._deploy(*place, self._frozen_retrieval, self.errors) for place in places)

    async def dynamic(self, passes: range) -> list[Outcome]:
        """Each pass has its own copy of the memory, which learns from each deployed trajectory in order."""
        by_pass = await side_by_side(outlive(lambda n=n: self._dynamic_pass(n)) for n in passes)
        return [outcome for outcomes in by_pass for outcome in outcomes]

    async def close(self) -> None:
        """End what still retrieves or learns."""
        tasks = [*self._retrievals.values(), *filter(None, [self._learning])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._learned.aclose()

    async def _dynamic_pass(self, number: int) -> list[Outcome]:
        outcomes, errors, worker, fault = [], Counter(), None, None

        async def retrieve(init: dict) -> Any:  # after a fault that ended its learning, each one fails by it
            if fault:
                raise fault
            return await worker.retrieve(init)

        async with contextlib.AsyncExitStack() as stack:
            try:
                worker = await stack.enter_async_context(self._worker(self._tools()))
                await self._learn(worker, errors if number == 0 else Counter())
            except DesignError as error:
                fault = error
            for task in self._fold.deployment:
                outcomes.append(outcome := await self._deploy(task, number, retrieve, errors))
                if outcome.trajectory is not None:
                    try:
                        await self._update(worker, outcome.trajectory, errors)
                    except DesignError as error:
                        fault = error
            if number == 0 and worker:
                self.output = worker.output
        self.errors.update(errors)
        return outcomes

    async def _deploy(self, task, number: int, retrieve, errors: Counter) -> Outcome:
        fold = self._fold
        without_memory = await asyncio.shield(fold.without(task, number))
        without = without_memory.trajectory.reward
        try:
            retrieved = await retrieve(without_memory.trajectory.init)
        except DesignError as error:
            message = f"{error.status}: {error}"
            errors[f"retrieve: {message}"] += 1
            return Outcome(task.id, task.family, number, 0.0, without, 0, None, 0, None, message)
        memory = memory_text(retrieved)
        episode, length = fold.episode(task, number, memory), len(without_memory.trajectory.steps)
        same = self._design == NO_MEMORY and not memory  # which has been counted
        played = without_memory if same else await fold.play(episode, self._design, length)
        trajectory, tokens = played.trajectory, count_tokens(memory)
        known = (task.id, task.family, number, trajectory.reward, without, len(trajectory.steps), retrieved, tokens)
        return Outcome(*known, trajectory, invalid=played.invalid, example=played.invalid_answer)

    async def _frozen_retrieval(self, init: dict) -> Any:
        """What a memory that has learned the collected trajectories, and nothing else, says of `init`; asked once."""
        key = hashlib.sha256(json.dumps(init, sort_keys=True).encode()).hexdigest()
        if key not in self._retrievals:
            self._retrievals[key] = asyncio.ensure_future(outlive(lambda: self._retrieve(init)))
        return await asyncio.shield(self._retrievals[key])

    async def _retrieve(self, init: dict) -> Any:
        """A retrieval in a fork of the worker that has learned, so that nothing that it writes reaches another task. A
        worker that ends before that, on a busy machine, learns anew a few times; where it cannot be forked, the memory
        is built again for the task."""
        while True:
            learning, again = self._learning, self._times_learned < MOST_LEARNED
            ended = learning is not None and learning.done() and not learning.exception() and learning.result()[0].ended
            if learning is None or (ended and again):
                learning = self._learning = asyncio.ensure_future(outlive(self._learn_once))
            worker, asked = await asyncio.shield(learning)
            try:
                async with worker.fork(self._tools(asked)) as memory:
                    return await memory.retrieve(init)
            except CannotFork as error:
                once = worker.ended and again
                what = f"learns again{'' if once else ' for each task, which takes longer'}: {error}"
                if (kind := what.partition("\n")[0]) not in self._said:  # what it printed may differ each time
                    self._said.add(kind)
                    self._fold.log(f"design {self._design} {what}")
                if not once:
                    break
        async with self._worker(self._tools()) as memory:
            await self._learn(memory, Counter())
            return await memory.retrieve(init)

    async def _learn_once(self) -> tuple[Worker, Counter[str]]:
        """A worker that has learned the collected trajectories, and what the design has asked of models until then."""
        errors, tools = Counter(), self._tools()
        await self._learned.aclose()
        worker = await self._learned.enter_async_context(self._worker(tools, forks=True))
        try:
            await self._learn(worker, errors)
        except TemplateDied:
            errors.clear()
            raise
        finally:
            if self._times_learned == 0:
                self.errors.update(errors)
            self.output = worker.output
        self._times_learned += 1
        return worker, Counter(tools.asked)

    async def _learn(self, worker: Worker, errors: Counter) -> None:
        before = worker.seconds
        for index in self._learned_from:
            await self._update(worker, index, errors)
        self.update_seconds = self.update_seconds or worker.seconds - before

    async def _update(self, worker: Worker, trajectory: int | Trajectory, errors: Counter) -> None:
        """An update that raises loses that trajectory for the design; one that kills the worker ends the learning."""
        try:
            await worker.update(trajectory)
        except DesignError as error:
            errors[f"update: {error.status}: {error}"] += 1
            if error.status != "error":
                raise


def memory_text(retrieved: Any) -> str:
    """What was retrieved, as JSON for the agent's prompt; empty where a design says nothing."""
    return "" if retrieved in (None, "", {}, []) else json.dumps(retrieved, indent=1, ensure_ascii=False)
