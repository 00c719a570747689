"""What turns a memory design into a score: the collection and the deployment phase.

Promises: every design meets the same collected trajectories in the same order and the same
episodes (task, seed); scores are means of episodes that were really played; a fault of the design,
of the agent and of the infrastructure are three different things (SPEC: failures). It does not
promise that a difference is no luck: that is what the interval is for.

Try it: `python alma.py evaluate --env minihack --design no_memory --design trajectory_retrieval`
"""

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

import envs
from episodes import Episode, Played, play
from errors import DesignError
from llm import ContextOverflow
from memory_base import Trajectory
from pool import Cluster, Pool
from prompting import count_tokens
from sandbox import Sandbox, TemplateDied, Worker, outlive

BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True)
class Outcome:
    """One deployed episode: a task in one pass."""

    task: str
    family: str
    number: int  # of the pass, from 0
    score: float  # of the task, in [0, 1]; 0 where the design failed, see `error`
    without: float  # score of the same episode without memory
    steps: int
    retrieved: Any  # what the design returned, JSON; None where it failed
    tokens: int  # of what was retrieved
    trajectory: Trajectory | None  # None where the design failed: the episode was not played
    error: str = ""  # the design's fault


@dataclass(frozen=True)
class Score:
    """What a design is worth on a task set."""

    mean: float  # over passes of the mean task score, in [0, 1]
    stderr: float  # standard error over the passes
    passes: tuple[float, ...]  # mean task score of each pass
    difference: float  # paired, to no memory on the same tasks, passes and seeds
    interval: tuple[float, float]  # bootstrap 95 % interval of the difference, over tasks
    retrieved_tokens: float  # mean for a task
    steps: float  # mean for an episode
    outcomes: tuple[Outcome, ...] = field(repr=False)
    errors: tuple[str, ...] = ()  # each of the design's errors once, with how often it came
    output: str = ""  # what the design printed, cut
    update_seconds: float = 0.0  # of the sandbox, for one memory

    def summary(self) -> dict:
        """All but the single outcomes."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "outcomes"}

    def tasks(self) -> list[dict]:
        """The single outcomes without what was retrieved and played."""
        names = ("task", "family", "number", "score", "without", "tokens")
        return [{name: getattr(one, name) for name in names} for one in self.outcomes]


def paired_interval(differences: dict[str, list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean paired difference and its bootstrap 95 % interval, tasks resampled (passes stay together).

    Tasks are what one generalises over, and the passes of one task are not independent.
    """
    means = np.array([np.mean(values) for values in differences.values()])
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(means), size=(BOOTSTRAP_SAMPLES, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), [2.5, 97.5])
    return float(means.mean()), float(low), float(high)


def halve(tasks: Sequence[envs.Task], seed: int) -> tuple[list[envs.Task], list[envs.Task]]:
    """A task set's collection half and deployment half, each spread over the families of task."""
    order = random.Random(envs.derive_seed("halve", seed))
    shuffled = order.sample(list(tasks), len(tasks))
    shuffled.sort(key=lambda task: task.family)  # stable: random within each family
    halves = shuffled[0::2], shuffled[1::2]
    return tuple(order.sample(half, len(half)) for half in halves)


class DesignTools:
    """The host's side of the tools of one memory: its model calls, counted and stored.

    A memory that is built again (a fresh worker for each task) asks the same things again: the
    n-th time that it asks one thing is the same call, and is not paid for twice.
    """

    def __init__(self, models, design: str):
        self._models, self._design, self._asked = models, design, Counter()

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        question = json.dumps([messages, schema], sort_keys=True)
        self._asked[question] += 1
        call = {"sample": f"memory {self._asked[question]}", "design": self._design, "stage": "memory"}
        try:
            return await self._models.chat("memory", messages, schema=schema, **call)
        except ContextOverflow:
            raise DesignError("error", f"a prompt of {len(user)} characters is too long for the model") from None

    async def embed(self, texts: list[str]) -> list[list[float]]:
        return await self._models.embed(texts, design=self._design, stage="memory")


@dataclass(frozen=True)
class Protocol:
    """How designs are evaluated: the same for all that are compared."""

    domain: str
    agent_model: str
    seed: int
    passes: int = 3
    mode: str = "static"  # or "dynamic": each deployed trajectory is learned from
    show_admissible: bool = False


class Evaluator:
    """Evaluates designs on one task set; collects once and measures no memory once.

    `async with Evaluator(...)` plays the collection phase and the episodes without memory, then
    starts the sandbox that holds the collected trajectories.
    """

    def __init__(
        self,
        protocol: Protocol,
        collection: Sequence[envs.Task],
        deployment: Sequence[envs.Task],
        *,
        pool: Pool | Cluster,
        store,
        models,
        gateway: str | None,
        unsafe_sandbox: bool = False,
        phase: str = "collection",  # another phase collects other episodes of the same tasks
        progress=lambda design, fresh=True: None,
    ):
        self.protocol, self._collection, self._deployment = protocol, list(collection), list(deployment)
        self._pool, self._store, self.models, self._gateway = pool, store, models, gateway
        self._unsafe, self._phase, self._progress = unsafe_sandbox, phase, progress
        self._playing: dict[str, asyncio.Task] = {}  # by key of the episode
        self.collected: list[Played] = []
        self.baseline: dict[tuple[str, int], Played] = {}  # without memory, by task and pass

    async def __aenter__(self) -> "Evaluator":
        episodes = [self._episode(task, self._phase) for task in self._collection]
        pairs = [(task, number) for number in range(self.protocol.passes) for task in self._deployment]
        episodes += [self._episode(task, number) for task, number in pairs]
        played = await asyncio.gather(*(self.play(episode, "no_memory") for episode in episodes))
        self.collected = played[: len(self._collection)]
        without = played[len(self._collection) :]
        self.baseline = {(task.id, number): one for (task, number), one in zip(pairs, without, strict=True)}
        self.sandbox = Sandbox([one.trajectory for one in self.collected], unsafe=self._unsafe)
        await self.sandbox.__aenter__()
        return self

    async def __aexit__(self, *exception) -> None:
        await self.sandbox.__aexit__(*exception)

    @property
    def f0(self) -> float:
        """Score of no memory on the deployment half."""
        return float(np.mean([played.trajectory.reward for played in self.baseline.values()]))

    def _episode(self, task: envs.Task, phase: int | str, memory: str = "") -> Episode:
        protocol = self.protocol
        return Episode(
            domain=protocol.domain,
            task=task.id,
            seed=envs.derive_seed(task.seed, protocol.seed, phase),
            agent_model=protocol.agent_model,
            memory=memory,
            sample=str(phase),
            show_admissible=protocol.show_admissible,
        )

    async def play(self, episode: Episode, design: str = "", length: float = 0.0) -> Played:
        """The outcome of an episode: from the store, else played in a worker and stored.

        Of those that wait, the one of the greatest expected `length` in steps is played first. Two
        designs that retrieve the same thing want the same episode, which is played once.
        """
        key = episode.key()
        known = self._store.get_episode(key)
        if known is not None:
            self._progress(design, fresh=False)
            return Played.from_json(known)
        if key not in self._playing:
            self._playing[key] = asyncio.ensure_future(self._play(key, episode, design, length))
        played = await asyncio.shield(self._playing[key])
        self._progress(design)
        return played

    async def _play(self, key: str, episode: Episode, design: str, length: float) -> Played:
        try:
            played = await self._pool.run(play, episode, self._gateway, design, length=length)
            self._store.put_episode(key, played.to_json())
        finally:
            del self._playing[key]
        return played

    async def evaluate(self, design: str, source: str) -> Score:
        """Deploy a design (its id and its code) on every task of the deployment half, in every pass."""
        deployment = Deployment(self, design, source)
        run = deployment.static if self.protocol.mode == "static" else deployment.dynamic
        outcomes = await run()
        return self._score(outcomes, deployment)

    def _score(self, outcomes: list[Outcome], deployment: "Deployment") -> Score:
        passes = [
            float(np.mean([one.score for one in outcomes if one.number == number]))
            for number in range(self.protocol.passes)
        ]
        differences: dict[str, list[float]] = {}
        for one in outcomes:
            differences.setdefault(one.task, []).append(one.score - one.without)
        mean, low, high = paired_interval(differences)
        spread = float(np.std(passes, ddof=1) / np.sqrt(len(passes))) if len(passes) > 1 else 0.0
        played = [one.steps for one in outcomes if not one.error]
        return Score(
            mean=float(np.mean(passes)),
            stderr=spread,
            passes=tuple(passes),
            difference=mean,
            interval=(low, high),
            retrieved_tokens=float(np.mean([one.tokens for one in outcomes])),
            steps=float(np.mean(played)) if played else 0.0,
            outcomes=tuple(outcomes),
            errors=tuple(f"{count} × {error}" for error, count in deployment.most_common_errors(10)),
            output=deployment.output,
            update_seconds=deployment.update_seconds,
        )


class Deployment:
    """One design meeting the deployment half."""

    def __init__(self, evaluator: Evaluator, design: str, source: str):
        self._evaluator, self._design, self._source = evaluator, design, source
        self._retrievals: dict[str, asyncio.Task] = {}
        self.errors: Counter[str] = Counter()
        self.output = ""
        self.update_seconds = 0.0

    def most_common_errors(self, most: int) -> list[tuple[str, int]]:
        """In an order that does not depend on which came first."""
        return sorted(self.errors.items(), key=lambda one: (-one[1], one[0]))[:most]

    async def static(self) -> list[Outcome]:
        """Each task meets the memory as it stood after the collection phase."""
        evaluator = self._evaluator
        return await asyncio.gather(
            *(
                self._deploy(task, number, self._frozen_retrieval, self.errors)
                for number in range(evaluator.protocol.passes)
                for task in evaluator._deployment
            )
        )

    async def dynamic(self) -> list[Outcome]:
        """Each pass has a memory of its own, which learns from each deployed trajectory in order."""
        passes = range(self._evaluator.protocol.passes)
        by_pass = await asyncio.gather(*(outlive(lambda n=n: self._dynamic_pass(n)) for n in passes))
        return [outcome for outcomes in by_pass for outcome in outcomes]

    async def _dynamic_pass(self, number: int) -> list[Outcome]:
        evaluator, outcomes, errors = self._evaluator, [], Counter()
        tools = DesignTools(evaluator.models, self._design)
        async with evaluator.sandbox.worker(self._source, tools) as worker:
            await self._learn(worker, errors if number == 0 else Counter())
            for task in evaluator._deployment:
                outcome = await self._deploy(task, number, worker.retrieve, errors)
                outcomes.append(outcome)
                if outcome.trajectory is not None:
                    await self._update(worker, outcome.trajectory, errors)
            if number == 0:
                self.output = worker.output
        self.errors.update(errors)
        return outcomes

    async def _deploy(self, task, number: int, retrieve, errors: Counter) -> Outcome:
        evaluator = self._evaluator
        baseline = evaluator.baseline[task.id, number].trajectory
        without = baseline.reward
        try:
            retrieved = await retrieve(baseline.init)
        except DesignError as error:
            errors[f"retrieve: {error.status}: {error}"] += 1
            message = f"{error.status}: {error}"
            return Outcome(task.id, task.family, number, 0.0, without, 0, None, 0, None, message)
        memory = memory_text(retrieved)
        episode = evaluator._episode(task, number, memory)
        played = await evaluator.play(episode, self._design, length=len(baseline.steps))
        trajectory, steps = played.trajectory, len(played.trajectory.steps)
        tokens = count_tokens(memory)
        score = trajectory.reward
        return Outcome(task.id, task.family, number, score, without, steps, retrieved, tokens, trajectory)

    async def _frozen_retrieval(self, init: dict) -> Any:
        """What a memory that has learned the collected trajectories, and nothing else, says of `init`.

        The memory is built anew for each retrieval, so that nothing a retrieval writes can reach
        another task. Equal observations get one retrieval.
        """
        key = hashlib.sha256(json.dumps(init, sort_keys=True).encode()).hexdigest()
        if key not in self._retrievals:
            first = not self._retrievals  # the same one in every run: what it prints is shown to the meta agent
            work = outlive(lambda: self._retrieve_from_fresh_memory(init, first))
            self._retrievals[key] = asyncio.ensure_future(work)
        return await asyncio.shield(self._retrievals[key])

    async def _retrieve_from_fresh_memory(self, init: dict, first: bool) -> Any:
        errors: Counter[str] = Counter()
        tools = DesignTools(self._evaluator.models, self._design)
        async with self._evaluator.sandbox.worker(self._source, tools) as worker:
            try:
                await self._learn(worker, errors)
                return await worker.retrieve(init)
            except TemplateDied:
                errors.clear()
                raise
            finally:
                if first:  # all memories learn the same, so the errors of one are those of all
                    self.errors.update(errors)
                    self.output = worker.output

    async def _learn(self, worker: Worker, errors: Counter) -> None:
        before = worker.seconds
        for index in range(len(self._evaluator.collected)):
            await self._update(worker, index, errors)
        self.update_seconds = self.update_seconds or worker.seconds - before

    async def _update(self, worker: Worker, trajectory: int | Trajectory, errors: Counter) -> None:
        """An update that raises costs the design that trajectory; one that kills it costs the rest."""
        try:
            await worker.update(trajectory)
        except DesignError as error:
            errors[f"update: {error.status}: {error}"] += 1
            if error.status != "error":
                raise


def memory_text(retrieved: Any) -> str:
    """What was retrieved as it stands in the prompt; empty where a design says nothing."""
    if retrieved is None or retrieved == "" or retrieved == {} or retrieved == []:
        return ""
    return json.dumps(retrieved, indent=1, ensure_ascii=False)


def with_difference_to(score: Score, other: Score) -> Score:
    """The same score, its paired difference taken to another design on the same episodes."""
    theirs = {(one.task, one.number): one.score for one in other.outcomes}
    differences: dict[str, list[float]] = {}
    for one in score.outcomes:
        differences.setdefault(one.task, []).append(one.score - theirs[one.task, one.number])
    mean, low, high = paired_interval(differences)
    return replace(score, difference=mean, interval=(low, high))
