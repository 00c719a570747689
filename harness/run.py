"""A run: its folder, its models, its pool of workers, and the evaluators of its task sets.

What a run has done is on disk before it counts. A resumed run takes finished model calls and episodes from
the store and evaluated designs from their folders; all else follows from the settings.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import envs
from agent import prepare
from alma import Archive, Design, design_id
from evaluate import EXPERIENCE, NO_MEMORY, SINGLES, Evaluator, Fold, Protocol, folds
from harness.config import Config, from_json
from harness.pool import open_pool
from harness.progress import Display
from harness.run_folder import RunFolder, read_json, write_atomic, write_json, write_report
from llm import Keys, Models, ModelSpec, Patience
from meta import Briefing, Evidence, MetaAgent
from models import MANUAL, OFFLINE, RECORDED, ROLES, gateway
from models.prices import parse_price
from models.recorded import COPY, FILE, Origin, Recording
from models.store import Store
from prompts import quote
from prompts.evidence import EPISODES, read_episodes
from report.words import model_labels
from sandbox import side_by_side
from score import Score, hopeless


class Run:
    """`async with Run(folder) as run` starts a run, or goes on where it stopped."""

    def __init__(self, folder: RunFolder, plain: bool = False, budget: dict | None = None, command="learn"):
        folder.claim()
        self.folder, self._command = folder, command
        self.config: Config = replace(from_json(folder.config()), **(budget or {}))
        self.display = Display(folder.log, plain, output=folder.path / "output.txt")
        self._shared: dict[object, asyncio.Task] = {}  # evaluators and the briefing, for the whole run
        self._evaluations: dict[object, asyncio.Task[Score]] = {}  # of this learning step, or of what comes after
        self._unsafe = False  # a layer of the sandbox is missing
        self._origins: dict[str, Origin] = {}  # by candidate: its place in the search
        self._reported = time.monotonic()  # when the last report was written

    async def __aenter__(self) -> "Run":
        event = "resumed" if (self.folder.path / "history.jsonl").exists() else "started"
        self.folder.note({"event": event, "command": self._command, "why": ""})
        self._stack, config = contextlib.AsyncExitStack(), self.config
        try:
            self._stack.enter_context(self.display)
            self.store = self._stack.enter_context(Store(self.folder.path / "store.sqlite"))
            self._recording = Recording.of_run(self.folder.path)
            if config.recording and not self._recording.head:  # a run needs it to the end
                self._recording = Recording.read(path := Path(config.recording) / FILE)
                write_atomic(self.folder.path / COPY, path.read_bytes())
            models = Models(
                {role: ModelSpec.parse(getattr(config, f"{role}_model"), role) for role in ROLES}, self.store,
                in_flight=config.in_flight, log=self.display.log, budget_usd=config.budget_usd or None,
                budget_tokens=config.budget_tokens or None, prices=dict(parse_price(text) for text in config.price),
                keys=Keys.read(take=True),  # before any child is started
                patience=replace(Patience(), outage=config.outage_seconds, deadline=config.call_seconds))  # fmt: skip
            self.models = await self._stack.enter_async_context(models)
            self.display.cost_from(self._spent)
            self.pool = await asyncio.to_thread(open_pool, config.env, config.workers, config.scheduler, self.display.log)
            self._stack.callback(self.pool.close)
            await self.models.load()
            self.gateway = None
            if config.agent_model != OFFLINE:
                self.gateway = await self._stack.enter_async_context(gateway.serve(self.models, self.pool.host))
            return self
        except BaseException as error:  # else the display would keep the terminal to itself
            await self.__aexit__(type(error), error, None)
            raise

    async def __aexit__(self, kind, error, trace) -> None:
        try:
            at_work = [*self._evaluations.values(), *self._shared.values()]
            for task in at_work:
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)
            try:
                await self._stack.aclose()
            finally:
                interrupted = kind and issubclass(kind, asyncio.CancelledError | KeyboardInterrupt)
                why = "interrupted" if interrupted else (str(error) or kind.__name__) if kind else ""
                event = "stopped" if kind else "finished"
                self.folder.note({"event": event, "command": self._command, "why": quote(why, 200)})
        except Exception:
            if not kind:
                raise  # else what happened first is what counts

    def _spent(self) -> dict | str:
        totals = self.models.totals()
        tokens = totals["prompt_tokens"] + totals["completion_tokens"]
        if totals["unpriced"] and not totals["usd"]:
            return f"{tokens:,} tokens, price unknown"
        spent = {"tokens": tokens, "usd": totals["usd"], "budget_usd": self.config.budget_usd}
        return {"waiting": self.models.waiting, "in_flight": self.models.in_flight, **spent}

    def introduce(self) -> None:
        """Log the first lines of a run: who plays which roles, what the domain lacks, and the folder."""
        roles, first = self.config.models().items(), []
        if manual := [role for role, model in roles if model == MANUAL]:
            by = f"manual: whoever answers the files in {self.folder.path / 'inbox'}"
            self.display.log(f"{by} plays {', '.join(manual)}; tokens are estimated. How: docs/assistant.md")
        if self.config.meta_model == RECORDED:
            first.append(self._recording.introduction(self.config.seed))
        if offline := [role for role, model in roles if model == OFFLINE]:
            first.append(f"offline: stand-ins play {', '.join(offline)}; no key, no network. Environments, designs and scores "
                         "are real; stand-ins are not language models: these are not the paper's numbers.")  # fmt: skip
        if first:
            self.display.log(" ".join(first))
        for note in [*envs.domain_class(self.config.env).notes(), f"run folder: {self.folder.path}"]:
            self.display.log(note)

    def labels(self) -> list[str]:
        """The labels on every result of this run."""
        labels, domain = model_labels(self.config.models()), envs.domain_class(self.config.env)
        labels += ["partly by sketch"] * any(map(self._written_by, self._origins))
        labels += ["unsafe sandbox"] * self._unsafe
        return labels + [domain.substitute] * any(task.source == domain.substitute for task in domain.tasks())

    async def evaluator(self, split: str, mode: str = "static", code: str = "") -> Evaluator:
        """The evaluator of a task set, made once; with `--fresh-collection` once for each design's code."""
        config, pool, log = self.config, self.pool, self.display.log
        phase = f"collection {design_id(code)}" if code and config.fresh_collection else "collection"

        async def make() -> Evaluator:
            halves = folds(config, split)
            # Generate the games of all tasks, and show progress where that takes long.
            games = [asyncio.ensure_future(pool.run(prepare, config.env, task.id)) for half in halves[0] for task in half]
            made = asyncio.ensure_future(side_by_side(games))
            try:
                while not (await asyncio.wait([made], timeout=10))[0]:
                    done = f"{sum(one.done() for one in games)} of {len(games)}"
                    log(f"generating games, kept in {envs.cache_dir()}: {done}")
                await made
            finally:
                made.cancel()
                await asyncio.gather(made, return_exceptions=True)

            protocol = Protocol(
                config.env, config.agent_model, config.seed, config.passes_over(split), config.collection_passes, mode,
                show_admissible=config.show_admissible, keep_models=config.keep_models,
                style=config.agent_style, tokens=config.agent_tokens, constrain=config.constrain_actions)  # fmt: skip
            evaluator = Evaluator([Fold(
                protocol, *pair, pool=pool, store=self.store, models=self.models, gateway=self.gateway,
                unsafe_sandbox=config.unsafe_sandbox, phase=phase, stage=f"memory, {split} set",
                progress=self.display.episode, log=log) for pair in halves])  # fmt: skip
            self.display.expect(evaluator.episodes + sum(len(fold.collection_episodes()) for fold in evaluator.folds))
            await self._stack.enter_async_context(evaluator)
            self._unsafe = self._unsafe or evaluator.unsafe
            return evaluator

        return await _once(self._shared, (split, mode, phase), make)

    async def score(self, split: str, label: str, code: str, mode: str = "static", **how) -> Score:
        """A design's score on a task set; the same is evaluated once. `how`: of `Evaluator.evaluate`."""
        key = f"{split} {mode} {design_id(code)} {how}"
        return await _once(self._evaluations, key, lambda: self._evaluate(split, label, code, mode, how))

    async def _evaluate(self, split: str, label: str, code: str, mode: str, how: dict) -> Score:
        name, evaluator = NO_MEMORY if label == NO_MEMORY else design_id(code), await self.evaluator(split, mode, code)
        episodes = sum(len(fold.places(how.get("passes"))) for fold in evaluator.folds)
        self.display.expect(episodes)
        self.display.candidate(label, "evaluate", design=name, episodes=episodes)
        return await evaluator.evaluate(name, code, **how)

    async def experience(self, split: str, label: str, code: str, **how) -> dict:
        """What a design has from experience on a task set, see `score.experience`."""
        score, evaluator = await self.score(split, label, code, **how), await self.evaluator(split, code=code)
        self.display.expect(episodes := (1 + SINGLES) * len(score.outcomes))
        self.display.candidate(label, "experience", design=design_id(code), episodes=episodes + len(score.outcomes))
        return await evaluator.experience(design_id(code), code, score, how.get("purpose", EXPERIENCE))

    async def luck(self, split: str, mode: str = "static", code: str = "") -> dict:
        """What chance alone does to a difference on a task set, see `score.luck`; `code`: as of `evaluator`."""
        return await (await self.evaluator(split, mode, code)).luck()

    # What the learning loop (`alma.learn`) uses.

    def announce(self, stage: str, archive: Archive) -> None:
        """Show a learning step, or what comes after them, and the best score so far."""
        if best := archive.best():
            gives = f"{100 * best.lead(archive.f0):+.1f} from experience, " if self.config.objective == "experience" else ""
            self.display.best(f"best {gives}{best.score:.3f}, no memory {archive.f0:.3f}")
        self.display.stage(stage)

    def place(self, step: int, archive: Archive, drawn: Sequence[Sequence[Design]]) -> None:
        """Note the place in the search of each candidate of a learning step: by it a recording knows the candidate."""
        made = [one.parents for one in archive.designs]
        for place, parents in enumerate(drawn, 1):
            made.append(tuple(parent.id for parent in parents))
            self._origins[f"{step}.{place}"] = made[-1], made.count(made[-1])

    def _written_by(self, candidate: str) -> str:
        """Who wrote a candidate, where it is not the meta agent of this run but `sketch` in place of a recording."""
        missing = self._origins[candidate] not in self._recording.candidates
        return "sketch" if self.config.meta_model == RECORDED and missing else ""

    def show(self, candidate: str, stage: str, note: str = "") -> None:
        self.display.candidate(candidate, stage, note)

    async def meta_agent(self, learning: Evaluator, archive: Archive, candidate: str) -> MetaAgent:
        """The meta agent that makes one candidate."""
        briefing = await _once(self._shared, "briefing", lambda: Briefing.of(self.config, learning, self.pool))
        known = {self.folder.code(one.id): one.candidate for one in archive.evaluated()}
        if self._written_by(candidate):
            self.display.log(f"candidate {candidate} is by sketch: there is no recorded one in its place")
        about = (self.config.prompt_tokens, self.config.seed, candidate, self._origins[candidate])
        return MetaAgent(self.models, briefing, known, *about)

    def evidence(self, archive: Archive, design: Design) -> Evidence:
        """What is known of a design, read back from the run's folder."""
        return Evidence.read(self.folder, archive, design)

    def keep_dropped(self, candidate: str, code: str, plan: dict | None, transcript, error: str) -> dict:
        """Keep a candidate that failed under dropped/; returns the fields of its archive line."""
        folder = self.folder.path / "dropped" / candidate
        self.folder.write_candidate(folder, code, plan, transcript, error=error)
        write_json(folder / "error.json", {"error": error})
        self.show(candidate, "dropped", quote(error, 60))
        self.folder.log(f"candidate {candidate} dropped: {quote(error, 300)!r}")
        return {"state": "dropped", "error": quote(error, 500), "by": self._written_by(candidate)}

    def race(self, archive: Archive, parents: Sequence[Design]) -> Callable[[list, int], bool]:
        """Whether to stop a candidate's deployment, see `score.hopeless`."""
        scores = sorted((one.score for one in archive.evaluated() if not one.raced), reverse=True)
        rival = scores[9] if len(scores) >= 10 else 0.0  # it must have a chance to be among the ten best
        rows = read_episodes(self.folder.design(parents[0].id)) if parents else []
        parent = {(one["task"], one["number"]): one["score"] for one in rows}
        return lambda outcomes, planned: hopeless(outcomes, planned, rival, parent)

    async def measure_again(self, design: Design, lead: float) -> dict[str, float]:
        """What the search climbs, of a finalist that had `lead` of it: on fresh seeds, and over all its passes."""
        code, first, more = self.folder.code(design.id), self.config.passes, self.config.final_passes
        how = {"passes": range(first, first + more), "purpose": ", finalists"}
        if self.config.objective == "experience":
            fresh = (await self.experience("learning", design.candidate, code, **how))["gives"][0]
        else:
            fresh = (await self.score("learning", design.candidate, code, **how)).difference
        return {"fresh": fresh, "final": (first * lead + more * fresh) / (first + more)}

    async def evaluate(self, candidate: str, code: str, plan: dict | None, transcript, race=None) -> dict:
        """Evaluate a verified design on the learning set and keep it; returns the fields of its archive line.

        score.json is written last: where it exists, a resumed run does not evaluate the design again. Of candidates
        of one learning step with the same code the first is kept: a race may stop them at different episodes.
        """
        folder = self.folder.design(design_id(code))

        def kept() -> dict:
            known = read_json(folder / "score.json") if (folder / "score.json").exists() else {}
            first, own = ([int(part) for part in name.split(".")] for name in (known.get("candidate", "0.0"), candidate))
            return known if first <= own else {}

        if not (known := kept()):
            score = await (self._evaluate("learning", candidate, code, "static", {"race": race}) if race
                           else self.score("learning", candidate, code))  # fmt: skip
            summary = {"candidate": candidate, **score.summary()}
            if self.config.objective == "experience":
                summary["experience"] = await self.experience("learning", candidate, code)
            if not (known := kept()):
                texts = {"printed": score.output, "errors": "\n".join(score.errors)}
                self.folder.write_candidate(folder, code, plan, transcript, **texts)
                lines = (json.dumps(asdict(one), ensure_ascii=False, separators=(",", ":")) for one in score.outcomes)
                write_atomic(folder / EPISODES, "".join(f"{line}\n" for line in lines))
                write_json(folder / "score.json", known := summary)
        self.show(candidate, "archived", f"{known['mean']:.3f}, {known['difference']:+.3f} to no memory")
        experience = known.get("experience")
        return {"state": "evaluated", "score": known["mean"], "raced": known.get("raced", 0), "by": self._written_by(candidate),
                **{key: known[key] for key in ("stderr", "difference", "retrieved_tokens")},
                "experience": experience["gives"][0] if experience else None}  # fmt: skip

    def keep(self, archive: Archive) -> None:
        """Write the archive after a learning step, and the report, which takes a second, every half minute."""
        self._evaluations.clear()
        if self.folder.write_archive(archive.lines()) and time.monotonic() - self._reported > 30:
            write_report(self.folder.path, plots=False)
            self._reported = time.monotonic()

    def cost(self, design: str, candidate: str) -> float | None:
        """Dollars for a candidate until it is in the archive: meta agent and its own calls. None: a price is unknown."""
        # What comes later (finalists, the test set) is not in it, for a resumed run finds those calls in the store.
        own = [(design, "memory, learning set"), (design, f"memory, learning set{EXPERIENCE}")]
        rows = [row for row in self.models.usage() if row["role"] != "agent"]
        return _dollars([row for row in rows if row["design"] == candidate or (row["design"], row["stage"]) in own])

    def memory_cost(self, design: str, split: str) -> dict:
        """What a design's own model calls on a task set cost: calls, tokens, dollars."""
        own = (design, f"memory, {split} set")
        rows = [row for row in self.models.usage() if (row["design"], row["stage"]) == own]
        calls = sum(row["calls"] for row in rows)
        tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
        return {"memory_calls": calls, "memory_tokens": tokens, "usd": _dollars(rows)}


async def _once(known: dict[object, asyncio.Task], key: object, make: Callable[[], Coroutine]):
    """What `make` returns, made once for all who ask for `key`; it goes on where one of them is cancelled."""
    if key not in known:
        known[key] = asyncio.ensure_future(make())
    return await asyncio.shield(known[key])


def _dollars(rows: list[dict]) -> float | None:
    dollars = [row["usd"] for row in rows]
    return None if None in dollars else round(float(sum(dollars)), 9)  # in whatever order the calls ended
