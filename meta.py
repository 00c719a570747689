"""The meta agent: what it is shown in each stage, and what is made of its answers.

A stage is a file `prompts/<stage>.md` and a method of `MetaAgent`. All stages begin with the same system message
(`Briefing`), so that a provider's prompt cache serves it. A prompt depends on the run's folder, its archive, its
episodes and its seed alone: a resumed run asks the same things again.
"""

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import envs
from agent import opening
from errors import ContextOverflow, InfrastructureError
from jail.frames import Limits
from models import OFFLINE
from prompts import count_tokens, cut, evidence, fenced, plan_schema, quote_cell, quote_lines, render
from prompts.evidence import Evidence

INTERFACE_END = "\n# ----"  # the marker line of memory_base.py: what stands below it is not for designs
MEMORY_HERE = "(HERE STANDS WHAT general_retrieve RETURNED, as JSON with an indent of 1)"
RETRIEVE_LIMIT = 1500  # tokens of retrieved memory that the meta agent is told are enough
EXAMPLE_TOKENS = 2500  # of the collected episode that is shown as Python data
GOALS, GOAL_TOKENS = 2, 60  # goals of a kind of task that are shown, and tokens of each
LEAST_TOKENS = 500  # of evidence; a context that has no room for these is too short
PAIR_TOKENS = 900  # of two episodes side by side: where there is less room, fewer pairs are shown


@dataclass(frozen=True)
class Briefing:
    """What is the same for all candidates of a run."""

    system: str  # the system message, word for word the same in all stages
    without: list[dict]  # the deployed episodes without memory, in the form of the lines of trajectories.jsonl.gz
    most_steps: int  # of an episode

    @classmethod
    async def of(cls, config, learning, pool) -> "Briefing":
        """From a run's settings, the evaluator of its learning set, and its pool: a worker starts one episode."""
        domain, fold = envs.domain_class(config.env), learning.folds[0]
        families = {task.id: task.family for task in domain.tasks()}

        def line(played, task: str, number: int = 0) -> dict:
            known = {"task": task, "family": families[task], "number": number, "invalid": played.invalid}
            steps, score = len(played.trajectory.steps), played.trajectory.reward
            return {**known, "steps": steps, "score": score, "trajectory": vars(played.trajectory)}

        without, collected = [], []
        for one in learning.folds:
            for (task, number), played in zip(one.places(), await one.without_memory(), strict=True):
                without.append(line(played, task.id, number))
            for episode, played in zip(one.collection_episodes(), one.collected, strict=True):
                collected.append(line(played, episode.task))
        goals: dict[str, list[str]] = {}  # a few of each kind of task: each goal with its kinds
        for one in sorted(without, key=lambda one: one["family"]):
            kinds = goals.setdefault(quote_cell(one["trajectory"]["init"].get("goal", ""), GOAL_TOKENS), [])
            if one["family"] not in kinds and sum(one["family"] in others for others in goals.values()) < GOALS:
                kinds.append(one["family"])
        place = next((number for number, played in enumerate(fold.collected) if played.success), 0)
        example = replace(fold.collection_episodes()[place], memory=MEMORY_HERE)
        agent_sees, first_turn = await pool.run(opening, example)
        interface = Path(__file__).with_name("memory_base.py").read_text(encoding="utf-8")
        system = render(
            "meta_system",
            interface=interface.split(INTERFACE_END)[0].strip(),
            task=example.task, agent_sees=agent_sees, first_turn=first_turn,
            trajectory=evidence.as_python(vars(fold.collected[place].trajectory), EXAMPLE_TOKENS),
            models={role: name.partition("@")[0] for role, name in config.models().items()},
            stand_ins=[role for role, model in config.models().items() if model == OFFLINE],
            limits=Limits(), retrieve_limit=RETRIEVE_LIMIT, allow_solvers=config.allow_solvers, protocol=fold.protocol,
            objective=config.objective, folds=len(learning.folds), learned=len(fold.collected), deployed=len(without),
            collected={row["kind"]: row for row in evidence.by_kind({"": collected}, domain.max_steps)},
            without=evidence.by_kind({"": without}, domain.max_steps),
            goals={goal: kinds for goal, kinds in goals.items() if kinds},
            chance=evidence.chance(without), most_steps=domain.max_steps,
        )
        return cls(system, without, domain.max_steps)


class MetaAgent:
    """Makes one candidate: asks the meta model stage by stage and keeps what was said. Calls are booked to `candidate`,
    which also tells apart questions that are asked twice. `known`: the code of each design in the archive, with its
    candidate's name. `origin`: the ids of its parents, and which of their children it is."""

    def __init__(self, models, briefing: Briefing, known: dict[str, str], prompt_tokens: int, seed: int,
                 candidate: str, origin=()):
        self._models, self._briefing, self._seed, self._candidate = models, briefing, seed, candidate
        self._known, self._origin = {code.strip(): name for code, name in known.items()}, origin
        self._prompt_tokens = prompt_tokens
        # stage, "prompt" or "answer", text
        self.transcript: list[tuple[str, str, str]] = [("all stages", "system message", briefing.system)]

    async def first(self) -> str:
        """The code of a design written from scratch."""
        return await self._ask_code("first")

    async def ideate_and_plan(self, parent: Evidence) -> dict:
        """Study a design and its logs; the plan for a new one, by the schema of prompts/plan.json."""
        tokens, call = self._prompt_tokens, {"least": plan_schema(strict=False), **self._call("ideate")}
        while True:
            prompt = self.ideate_prompt(parent, tokens)
            try:
                plan = await self._models.ask_json("meta", self._messages(prompt), plan_schema(), **call)
                break
            except ContextOverflow as error:  # its evidence is cut further
                if (tokens := tokens // 2) < LEAST_TOKENS:
                    raise InfrastructureError(f"the meta agent's prompt is too long: {error}") from None
        plan["changes"] = plan["changes"][: plan_schema()["properties"]["changes"]["maxItems"]]
        answer = json.dumps(plan, indent=1, ensure_ascii=False)
        self.transcript += [("ideate", "prompt", prompt), ("ideate", "answer", answer)]
        return plan

    async def implement(self, parent: Evidence, plan: dict) -> str:
        """The code of the new design."""
        changes = json.dumps({"changes": plan["changes"]}, indent=1, ensure_ascii=False)
        return await self._ask_code("implement", code=parent.code, plan=changes)

    async def repair(self, code: str, error: str, attempt: int) -> str:
        """The code again, mended after a failed verification."""
        return await self._ask_code("repair", f" try {attempt}", code=code, error=quote_lines(error, 1500))

    async def _ask_code(self, stage: str, again: str = "", **shown) -> str:
        """The module that the model answers to `prompts/<stage>.md`; one of the archive is asked for once more."""
        prompt = render(stage, **shown)
        messages = self._messages(prompt)
        try:
            code = await self._models.ask_code("meta", messages, **self._call(stage, again))
            self.transcript += [(stage, "prompt", prompt), (stage, "answer", code)]
            if equal := self._known.get(code.strip()):
                said = render("unchanged", candidate=equal)
                messages += [{"role": "assistant", "content": fenced(code, "python")}, {"role": "user", "content": said}]
                code = await self._models.ask_code("meta", messages, **self._call(stage, f"{again} unchanged"))
                self.transcript += [(stage, "prompt", said), (stage, "answer", code)]
        except ContextOverflow as error:
            raise InfrastructureError(f"the meta agent's prompt is too long: {error}") from None
        return code

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": self._briefing.system}, {"role": "user", "content": prompt}]

    def _call(self, stage: str, again: str = "") -> dict:
        sample = self._candidate + again
        seed = envs.derive_seed(self._seed, stage, sample)
        return {"stage": stage, "sample": sample, "design": self._candidate, "seed": seed, "origin": self._origin}

    def ideate_prompt(self, parent: Evidence, tokens: int) -> str:
        """The prompt with at most `tokens` tokens of evidence: tables and digests, and in the rest episodes."""
        before = {"parent": parent.before} if parent.before else {}
        lists = {"no memory": self._briefing.without, **before, "this design": parent.deployed}
        changes = [{key: quote_cell(one.get(key, ""), 150) for key in ("what", "expected")} for one in parent.changes]
        relatives = [one | {key: quote_cell(one[key], 60) for key in ("what", "error")} for one in parent.relatives]
        printed, kept = parent.score["output"], parent.score["errors"]
        shown = {"plan": plan_schema()["properties"], "design": parent, "changes": changes, "relatives": relatives,
                 "lists": list(lists), "kinds": evidence.by_kind(lists, self._briefing.most_steps),
                 "keys": evidence.by_key(parent.deployed), "output": quote_lines(printed, 300) if printed else "",
                 "errors": evidence.errors_by_kind(parent.code, parent.deployed, kept)}  # fmt: skip
        # What stands below the score is evidence. The texts in it are quoted: none of their lines equals this one.
        head, below, tables = render("ideate", pairs=[], **shown).rpartition("\n## Score\n")
        left = tokens - count_tokens(tables)
        if left < LEAST_TOKENS // 2:
            return head + below + cut(tables, tokens)
        rng = random.Random(envs.derive_seed(self._seed, parent.id, self._candidate, "episodes"))
        pairs = evidence.pairs(parent.deployed, self._briefing.without, self._briefing.most_steps, rng)
        pairs, told = pairs[: max(1, left // PAIR_TOKENS)], {}
        return render("ideate", pairs=[evidence.pair_as_text(one, told, left // len(pairs)) for one in pairs], **shown)
