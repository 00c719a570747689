"""Makes a run folder in the real formats without playing anything: a test fixture, no result of a run.

Try it: `python -m tests.synthetic_run /tmp/run --steps 11`
"""

import argparse
import hashlib
import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from harness.config import Config
from harness.run_folder import RunFolder, about, write_atomic, write_json
from memory_base import Trajectory
from models.store import Call, Store
from score import Outcome, Score

FAMILIES = {"navigation": 0.45, "boxoban": 0.08, "skill with an item": 0.3, "fighting": 0.2}
NOISE = {"difference": 0.004, "interval": (-0.031, 0.038), "noise": 0.038}
NEWER = ("objective", "experience", "finalists", "final_passes", "race")  # settings that an older run lacks
RACED = 14  # episodes of the design that a race stopped
HOSTILE = (
    "<script>alert(1)</script></script><img src=x onerror=alert(2)>\x1b[31mred\x1b[0m\x07"
    "\u202egnp.exe\u2066 {{ 7*7 }} `]](javascript:alert(3)) \ud800 \u0000 a" + "\u0301" * 50
)
CODE = '''"""Rules from finished episodes{variant}.

Keeps what an action did for each kind of thing, and says what helped.
"""

from collections import Counter

import networkx as nx

from memory_base import Embedding, MemoryDesign, MemoryLayer


class WhatHelped(MemoryLayer):
    """Counts of actions in episodes that went well."""

    def __init__(self):
        self.counts = Counter()
        self.graph = nx.DiGraph()

    async def update(self, steps, reward):
        for step in steps[-{window}:]:
            self.counts[step["action_took"]] += reward  # weight by reward
        return len(self.counts)

    async def retrieve(self, limit={limit}):
        return [action for action, _ in self.counts.most_common(limit)]


class Design{number}(MemoryDesign):
    """Learns rules, says at most {limit} of them."""

    def __init__(self):
        self.layer = WhatHelped()
        self.embedding = Embedding()
{more}
    async def general_update(self, trajectory):
        await self.layer.update(trajectory.steps, trajectory.reward)

    async def general_retrieve(self, trajectory):
        return {{"rules": await self.layer.retrieve(), "note": "{note}"}}
'''
MORE = '''
    def helper_{place}(self, texts: list[str], weight: float = {place}.5) -> dict[str, float]:
        """Weigh each text; longer ones count less."""
        return {{text: weight / (1 + len(text)) for text in texts if text != "{place}"}}
'''


def design_id(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()[:12]


class SyntheticRun:
    """A run of so many learning steps whose numbers are drawn, with every kind of candidate in it."""

    def __init__(self, path: Path, *, steps=3, planned=None, tasks=12, passes=3, length=30, width=300, hostile=False,
                 seed=0, sampling="archive", lines_of_code=0, objective="score", older=False):
        self.rng, self.steps, self.passes, self.length = random.Random(seed), steps, passes, length
        self.objective, self.older = objective, older  # an older run has no finalists, races, noise, experience
        self.hostile, self.width, self.functions = hostile, width, lines_of_code // 4
        config = Config(env="minihack", seed=seed, folds=1, collection_passes=1, steps=planned or steps, passes=passes, test_passes=passes,
                        sampling=sampling, objective=objective, agent_model="gpt-5-nano:low", meta_model="offline", memory_model="gpt-4o-mini",
                        embedding_model="text-embedding-3-small", unsafe_sandbox=hostile)
        self.folder = RunFolder(path)
        settings = {key: value for key, value in asdict(config).items() if not (older and key in NEWER)}
        write_json(path / "config.json", {**settings, "about": {**about(), "labels": ["generated"]}})
        families = list(FAMILIES)
        self.tasks = [(f"MiniHack-Task-{place}-v0", families[place % len(families)]) for place in range(tasks)]
        self.without = {(task, number): float(self.rng.random() < FAMILIES[family])
                        for task, family in self.tasks for number in range(passes)}
        self.f0 = sum(self.without.values()) / len(self.without)
        self.lines: list[dict] = []  # of archive.jsonl
        self.quality: dict[str, float] = {}

    def write(self) -> Path:
        path = self.folder.path
        self._history("started")
        with Store(path / "store.sqlite") as self.store:
            for step in range(1, self.steps + 1):
                self.folder.log(f"learning step {step}/{self.steps}")
                known = [one for one in self.lines if one["state"] == "evaluated"]
                drawn = self.rng.sample(known, min(5, len(known))) if known else [None]
                for parent in filter(None, drawn):
                    parent["visits"] += 1
                made = [self._candidate(parent, step, place) for place, parent in enumerate(drawn, 1)]
                if step > 2 and len(made) > 1:
                    made[1]["parents"].append(drawn[0]["id"])  # recombined from two
                self.lines += made
            if not self.older:
                self._finalists()
            write_atomic(path / "archive.jsonl", "".join(f"{json.dumps(one)}\n" for one in self.lines))
        self._results()
        self._history("finished")
        return path

    def _candidate(self, parent: dict | None, step: int, place: int) -> dict:
        name = f"{step}.{place}"
        quality = self.quality.get(parent["id"], 0.0) + self.rng.gauss(0.04, 0.08) if parent else 0.0
        code = self._code(name)
        line = {"id": design_id(code), "candidate": name, "parents": [parent["id"]] if parent else [], "step": step,
                "state": "evaluated", "visits": 0, "tries": 1, "cost": 0.02 * step, "error": ""}
        if (step, place) in ((2, 1), (4, 3)):
            return line | {"state": "dropped", "tries": 3, "error": self._dropped(name, code)[:500]}
        if (step, place) == (4, 1):
            return line | {"state": "duplicate", "id": parent["id"], "score": parent["score"], "parents": parent["parents"]}
        self.quality[line["id"]] = quality
        score = self._score(quality)
        more = {"raced": 0, "experience": None, "fresh": None, "final": None}
        if not self.older and self.objective == "score" and (step, place) == (4, 2):
            score = replace(score, outcomes=score.outcomes[:RACED], raced=RACED)
            more["raced"] = RACED
        if self.objective == "experience":
            more["experience"] = self._experience(score)["gives"][0]
        self._write(self.folder.design(line["id"]), code, score, name)
        return line | {"score": score.mean, "stderr": score.stderr, "difference": score.difference,
                       "retrieved_tokens": score.retrieved_tokens} | ({} if self.older else more)

    def _finalists(self) -> None:
        """The five best are measured again; a good part of their lead is luck."""
        whole = [one for one in self.lines if one["state"] == "evaluated" and not one["raced"]]
        leads = {one["id"]: one["score"] - self.f0 if self.objective == "score" else one["experience"] for one in whole}
        for one in sorted(whole, key=lambda one: -leads[one["id"]])[:5]:
            one["fresh"] = max(-1.0, min(1.0, leads[one["id"]] * 0.7 + self.rng.gauss(0.0, 0.04)))
            one["final"] = (leads[one["id"]] + one["fresh"]) / 2

    def _experience(self, score: Score) -> dict:
        """As of a memory: the code brings little along."""
        gives, brought = score.mean - self.f0 - 0.01, 0.01
        differences = {key: (value, value - 0.05, value + 0.06)
                       for key, value in (("gives", gives), ("brought", brought), ("wakes", brought))}
        return {"none": self.f0, "one": self.f0 + brought, "all": score.mean, **differences}

    def _code(self, name: str) -> str:
        note = HOSTILE.encode("utf-8", "replace").decode() if self.hostile else f"from candidate {name}"
        more = "".join(MORE.format(place=place) for place in range(self.functions))
        return CODE.format(number=name.replace(".", "_"), variant=f", variant {name}", note=note, more=more,
                           window=self.rng.randint(3, 9), limit=self.rng.randint(4, 20))

    def _dropped(self, name: str, code: str) -> str:
        error = f"error: Traceback\n  File \"design.py\", line 3\nNameError: name 'graph' is not defined{self._bad()}"
        folder = self.folder.path / "dropped" / name
        self._texts(folder, code)
        write_json(folder / "error.json", {"error": error})
        self._call("meta", "implement", name)
        return error

    def _score(self, quality: float) -> Score:
        outcomes = [self._outcome(task, family, number, quality)
                    for number in range(self.passes) for task, family in self.tasks]
        passes = [sum(one.score for one in outcomes if one.number == number) / len(self.tasks)
                  for number in range(self.passes)]
        mean = sum(passes) / len(passes)
        difference = mean - self.f0
        tokens = sum(one.tokens for one in outcomes) / len(outcomes)
        errors = (f"2 × retrieve: error: KeyError: 'goal'{self._bad()}",) if self.rng.random() < 0.3 else ()
        return Score(mean, 0.02, tuple(passes), difference, (difference - 0.08, difference + 0.09), tokens,
                     float(self.length), tuple(outcomes), errors, f"printed by the design{self._bad()}", 0.2)

    def _outcome(self, task: str, family: str, number: int, quality: float) -> Outcome:
        score = float(self.rng.random() < FAMILIES[family] + quality)
        retrieved = {"rules": [f"when you see a {thing}, go {self.rng.choice('NESW')} first" for thing in
                               ("door", "boulder", "potion")], "note": f"seen {number} times{self._bad()}"}
        steps = [{"action_took": self.rng.choice(("north", "east", "apply key", "search")),
                  "long_term_context": f"You see a closed door {place} far east.{self._bad()} " + "." * self.width,
                  "short_term_context": "a: pick-axe (weapon in hand)", "scores": 0.0, "dones": False}
                 for place in range(self.length)]
        init = {"goal": f"Reach the stairs down.{self._bad()}", "long_term_context": "You wake up.", "action_dict": {}}
        size = self.rng.randint(50, 900) + int(2000 * abs(quality))
        return Outcome(task=task, family=family, number=number, score=score, without=self.without[task, number],
                       steps=self.length, retrieved=retrieved, tokens=size, trajectory=Trajectory(init, steps, score))

    def _write(self, folder: Path, code: str, score: Score, name: str) -> None:
        self._texts(folder, code)
        lines = []
        for one in score.outcomes:
            lines.append(json.dumps(asdict(one), ensure_ascii=not self.hostile).encode("utf-8", "replace").decode() + "\n")
        write_atomic(folder / "trajectories.jsonl.gz", "".join(lines))
        experience = {"experience": self._experience(score)} if self.objective == "experience" else {}
        write_json(folder / "score.json", {**score.summary(), **experience})
        for stage in ("ideate", "implement"):
            self._call("meta", stage, name)
        for _ in range(2):
            self._call("memory", "memory", folder.name)
            self._call("agent", "agent", folder.name)

    def _texts(self, folder: Path, code: str) -> None:
        why = f"They won nothing.{self._bad()}"
        plan = {"worked": ["Short rules were followed."], "problems": [f"The same rule came five times.{self._bad()}"],
                "verdicts": [{"item": "when you see a door, go E first", "verdict": "misled", "why": why}],
                "changes": [{"what": f"Weigh rules by reward.{self._bad()}", "why": why},
                            {"what": "Say fewer of them.", "why": "Long memories were not read."}]}
        write_atomic(folder / "design.py", code)
        write_json(folder / "plan.json", plan)
        log = f"=== ideate: prompt\nStudy this design.{self._bad()}\n\n=== ideate: answer\n{json.dumps(plan)}\n"
        write_atomic(folder / "log.txt.gz", log + "x " * self.width)

    def _call(self, role: str, stage: str, design: str) -> None:
        key = f"{role} {stage} {design} {self.rng.random()}"
        usd = {"meta": 0.04, "agent": 0.002, "memory": None}[role]
        self.store.put_call(Call(key, role, "gpt-5:medium", design, stage, prompt_tokens=9000, completion_tokens=800,
                                 usd=usd, seconds=8.0))

    def _results(self) -> None:
        evaluated = [one for one in self.lines if one["state"] == "evaluated"]
        best = max(evaluated, key=lambda one: one["score"])["id"]
        if again := [one for one in evaluated if one.get("final") is not None]:
            best = max(again, key=lambda one: one["final"])["id"]
        names = {"no_memory": 0.0, "trajectory_retrieval": -0.04, "reasoning_bank": 0.02, "g_memory": 0.03}
        noise = {} if self.older else {"noise": NOISE}
        for split, shrink in (("learning", 1.0), ("test", 0.5)):
            qualities = names | {"learned design": self.quality[best] * shrink}
            scores = {name: self._result(name, quality, best) for name, quality in qualities.items()}
            if split == "learning":
                del scores["learned design"]  # the archive has it
            write_json(self.folder.path / f"results-{split}-static.json", {"labels": ["offline"], **noise, "scores": scores})
        if not self.older:
            printed = {"learned": best, "no_memory": self.f0, "noise": {"learning": NOISE, "test": NOISE}}
            write_json(self.folder.path / "score.json", printed)

    def _result(self, name: str, quality: float, best: str) -> dict:
        score = self._score(quality)
        if name == "no_memory":
            score = Score(self.f0, 0.01, (), 0.0, (0.0, 0.0), 0.0, 20.0, score.outcomes)
        tasks = [{"task": one.task, "family": one.family, "number": one.number, "score": one.score,
                  "without": self.without[one.task, one.number], "tokens": one.tokens} for one in score.outcomes]
        more = {"invalid": 0.62, "example": f"I think I should{self._bad()}"} if name == "g_memory" else {}
        if name == "learned design" and not self.older:
            more = {"experience": self._experience(score)}
        code = {"id": best if name == "learned design" else design_id(name), "usd": 0.01, "tasks": tasks, **more}
        return {**score.summary(), **code}

    def _bad(self) -> str:
        return HOSTILE.encode("utf-8", "replace").decode() if self.hostile else ""

    def _history(self, event: str, why: str = "") -> None:
        times = {"started": "2026-01-01T10:00:00Z", "finished": "2026-01-01T12:34:56Z"}
        with open(self.folder.path / "history.jsonl", "a", encoding="utf-8") as file:
            row = {"time": times.get(event, "2026-01-01T11:00:00Z"), "event": event, "command": "reproduce", "why": why}
            file.write(json.dumps(row) + "\n")


class Runs:
    """Run folders for tests, made once for each set of arguments."""

    def __init__(self, tmp_path_factory):
        self._temporary, self._known = tmp_path_factory, {}

    def __call__(self, copy: bool = False, **arguments) -> Path:
        """A run's folder; with `copy` one that the test may change."""
        key = json.dumps(arguments, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._temporary.mktemp("runs") / "20260101T100000-minihack-offline"
            self._known[key].mkdir()
            SyntheticRun(self._known[key], **arguments).write()
        return shutil.copytree(self._known[key], self._temporary.mktemp("copies") / "run") if copy else self._known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--length", type=int, default=30, help="steps of an episode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--objective", choices=("score", "experience"), default="score")
    options = parser.parse_args()
    options.path.mkdir(parents=True)
    run = SyntheticRun(options.path, steps=options.steps, length=options.length, hostile=options.hostile,
                       seed=options.seed, lines_of_code=200, width=900, objective=options.objective)
    print(run.write())


if __name__ == "__main__":
    main()
