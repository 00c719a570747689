"""The meta agent: what it is shown in each stage, and what is made of its answers.

A stage is a file `prompts/<stage>.md` and a method of `MetaAgent`. All stages begin with the same system message
(`Briefing`), so that a provider's prompt cache serves it. A prompt depends on the run's folder, its archive, its
episodes and its seed alone: a resumed run asks the same things again. What a design printed, raised or retrieved is
quoted as data. Whether an answer is any good is found out by verification and evaluation.
"""

import ast
import contextlib
import dataclasses
import inspect
import json
import random
from dataclasses import dataclass
from pathlib import Path

import envs
from agent import STYLES, opening
from errors import ContextOverflow, InfrastructureError
from jail.frames import Limits
from models import OFFLINE
from prompts import FOLDER, count_tokens, cut, evidence, fenced, quote, quote_cell, quote_lines, render
from score import paired_interval
from standins import agent as standin_agent
from standins import memory as standin_memory

INTERFACE = Path(__file__).parent / "memory_base.py"
INTERFACE_END = "\n# ----"  # the marker line: what stands below it is not for designs
MEMORY_HERE = "(HERE STANDS WHAT general_retrieve RETURNED, as JSON with an indent of 1)"
RETRIEVE_LIMIT = 1500  # tokens of retrieved memory that the meta agent is told are enough
EXAMPLE_TOKENS = 2000  # of the collected episode that is shown as Python data
LEAST_TOKENS = 500  # of evidence; a context that has no room for these is too short
EPISODE_TOKENS = 1200  # of a pair of episodes: with fewer there are fewer pairs
BEST, RELATIVES = 3, 12  # designs of the archive that are shown beside their scores


def plan_schema() -> dict:
    """The JSON schema of the meta agent's plan."""
    return json.loads((FOLDER / "plan.json").read_text(encoding="utf-8"))


# --------------------------------------------------------------------- what all stages have in common


@dataclass(frozen=True)
class Briefing:
    """What is the same for all candidates of a run."""

    system: str  # the system message, word for word the same in all stages
    without: list[dict]  # the deployed episodes without memory, in the form of the lines of trajectories.jsonl
    most_steps: int  # of an episode

    @classmethod
    async def of(cls, config, learning, pool) -> "Briefing":
        """From a run's settings, the evaluator of its learning set, and its workers (one starts an episode)."""
        domain, fold = envs.domain_class(config.env), learning.folds[0]
        families = {task.id: task.family for task in domain.tasks()}
        without, collected = [], []
        for one in learning.folds:
            for (task, number), played in zip(one.without, await one.without_memory(), strict=True):
                without.append(_line(played, task, families[task], number))
            for episode, played in zip(one.collection_episodes(), one.collected, strict=True):
                collected.append(_line(played, episode.task, families[episode.task], 0))
        place = next((n for n, played in enumerate(fold.collected) if played.success), 0)
        shown = dataclasses.replace(fold.collection_episodes()[place], memory=MEMORY_HERE)
        agent_sees, first_turn = await pool.run(opening, shown)
        stand_in = {"agent": standin_agent, "memory": standin_memory}
        system = render(
            "meta_system",
            interface=INTERFACE.read_text(encoding="utf-8").split(INTERFACE_END)[0].strip(),
            agent_sees=agent_sees,
            first_turn=first_turn,
            style=inspect.getdoc(STYLES[config.agent_style][1]),
            example=evidence.as_python(dataclasses.asdict(fold.collected[place].trajectory), EXAMPLE_TOKENS),
            task=shown.task,
            models=config.models(),
            read_by={role: inspect.getdoc(one) for role, one in stand_in.items() if config.models()[role] == OFFLINE},
            limits=Limits(),
            retrieve_limit=RETRIEVE_LIMIT,
            folds=len(learning.folds),
            protocol=fold.protocol,
            learned=len(fold.collected),
            deployed=len(without),
            without=evidence.by_kind({"no memory": without}, domain.max_steps),
            collected={row["kind"]: row for row in evidence.by_kind({"": collected}, domain.max_steps)},
            chance=evidence.chance(without),
            most_steps=domain.max_steps,
            allow_solvers=config.allow_solvers,
        )
        return cls(system, without, domain.max_steps)


def _line(played, task: str, family: str, number: int) -> dict:
    """An episode without memory in the form of a line of trajectories.jsonl."""
    trajectory = dataclasses.asdict(played.trajectory)
    known = {"task": task, "family": family, "number": number, "score": played.trajectory.reward}
    return {**known, "steps": len(played.trajectory.steps), "trajectory": trajectory, "invalid": played.invalid, "error": ""}


# --------------------------------------------------------------------------- what is known of a design


@dataclass(frozen=True)
class Evidence:
    """What is known of a design that is to be changed."""

    id: str
    candidate: str
    code: str
    score: dict  # a Score's summary
    deployed: list[dict]  # lines of trajectories.jsonl
    changes: list[dict]  # of the plan that it was made by; none for a design from scratch
    before: list[dict]  # the parent's lines of trajectories.jsonl; none for a design from scratch
    relatives: list[dict]  # its parents, siblings and children, and the best designs of the archive

    @classmethod
    def read(cls, folder, archive, design) -> "Evidence":
        """From the run's folder and the archive as it is when the design is drawn."""
        own = folder.design(design.id)
        plan = json.loads((own / "plan.json").read_text(encoding="utf-8"))
        best = sorted(archive.evaluated(), key=lambda one: -one.score)[:BEST]
        relatives = []
        for one in reversed(archive.designs):
            kin = {"parent": one.id in design.parents, "child": design.id in one.parents,
                   "sibling": set(one.parents) & set(design.parents), "among the best": one in best}  # fmt: skip
            relation = [name for name, holds in kin.items() if holds]
            if relation and one.candidate != design.candidate:
                relatives.append({**vars(one), "relation": ", ".join(relation), "what": _what(folder, one)})
        relatives.sort(key=lambda one: "best" not in one["relation"] and one["relation"] != "parent")
        return cls(
            design.id,
            design.candidate,
            (own / "design.py").read_text(encoding="utf-8"),
            json.loads((own / "score.json").read_text(encoding="utf-8")),
            _lines(own),
            (plan or {}).get("changes", []),
            _lines(folder.design(design.parents[0])) if design.parents else [],
            relatives[:RELATIVES],
        )


def _lines(design: Path) -> list[dict]:
    text = (design / "trajectories.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _what(folder, design) -> str:
    """What a design is, in one line: its plan's changes, else what its code says of itself."""
    if design.state == "duplicate":
        return "its code equals that of a design which was there before"
    place = folder.path / "dropped" / design.candidate if design.state == "dropped" else folder.design(design.id)
    plan = json.loads((place / "plan.json").read_text(encoding="utf-8"))
    if plan:
        return "; ".join(change["what"] for change in plan["changes"])
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        return ast.get_docstring(ast.parse((place / "design.py").read_text(encoding="utf-8"))) or ""
    return ""


# ------------------------------------------------------------------------------------- the stages


class MetaAgent:
    """Makes one candidate: asks the meta model stage by stage and keeps what was said.

    `candidate` is the name to which its calls are booked; it also tells apart questions that are asked twice.
    `known` has the code of each design in the archive, with its candidate's name: none is to be written again.
    """

    def __init__(self, models, briefing: Briefing, known: dict[str, str], prompt_tokens: int, seed: int, candidate: str):
        self._models, self._briefing, self._seed, self._candidate = models, briefing, seed, candidate
        self._known = {code.strip(): name for code, name in known.items()}
        self._prompt_tokens = prompt_tokens
        # stage, "prompt" or "answer", text
        self.transcript: list[tuple[str, str, str]] = [("all stages", "system message", briefing.system)]

    async def first(self) -> str:
        """The code of a design written from scratch."""
        return await self._ask_code("first")

    async def ideate_and_plan(self, parent: Evidence) -> dict:
        """Study a design and its logs; the plan for a new one, by the schema of prompts/plan.json.

        Where the prompt does not fit into the model's context, its evidence is cut further.
        """
        tokens = self._prompt_tokens
        while True:
            prompt = self.ideate_prompt(parent, tokens)
            try:
                plan = await self._models.ask_json("meta", self._messages(prompt), plan_schema(), **self._call("ideate"))
                break
            except ContextOverflow as error:
                tokens //= 2
                if tokens < LEAST_TOKENS:
                    raise InfrastructureError(f"the meta agent's prompt is too long: {error}") from None
        self._keep("ideate", prompt, json.dumps(plan, indent=1, ensure_ascii=False))
        return plan

    async def implement(self, parent: Evidence, plan: dict) -> str:
        """The code of the new design."""
        changes = json.dumps({"changes": plan["changes"]}, indent=1, ensure_ascii=False)
        return await self._ask_code("implement", code=parent.code, plan=changes)

    async def repair(self, code: str, error: str, attempt: int) -> str:
        """The code again, mended after a failed verification."""
        return await self._ask_code("repair", f" try {attempt}", code=code, error=quote_lines(error, 1500))

    async def _ask_code(self, stage: str, again: str = "", **shown) -> str:
        """The Python module that the model answers to `prompts/<stage>.md`.

        A module that equals one in the archive is asked for once more, with that said.
        """
        prompt = render(stage, **shown)
        messages = self._messages(prompt)
        try:
            code = await self._models.ask_code("meta", messages, **self._call(stage, again))
            self._keep(stage, prompt, code)
            if equal := self._known.get(code.strip()):
                said = render("unchanged", candidate=equal)
                messages += [{"role": "assistant", "content": fenced(code, "python")}, {"role": "user", "content": said}]
                code = await self._models.ask_code("meta", messages, **self._call(stage, f"{again} unchanged"))
                self._keep(stage, said, code)
        except ContextOverflow as error:
            raise InfrastructureError(f"the meta agent's prompt is too long: {error}") from None
        return code

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": self._briefing.system}, {"role": "user", "content": prompt}]

    def _call(self, stage: str, again: str = "") -> dict:
        sample = self._candidate + again
        seed = envs.derive_seed(self._seed, stage, sample)
        return {"stage": stage, "sample": sample, "design": self._candidate, "seed": seed}

    def _keep(self, stage: str, prompt: str, answer: str) -> None:
        self.transcript += [(stage, "prompt", prompt), (stage, "answer", answer)]

    def ideate_prompt(self, parent: Evidence, tokens: int) -> str:
        """The prompt with at most `tokens` tokens of evidence: tables and digests, and in the rest episodes."""
        most_steps, without, deployed = self._briefing.most_steps, self._briefing.without, parent.deployed
        lists = {"no memory": without, **({"parent": parent.before} if parent.before else {}), "this design": deployed}
        shown = {
            "schema": json.dumps(plan_schema()),
            "code": parent.code,
            "score": parent.score,
            "design": parent,
            "change": _change(parent),
            "kinds": evidence.by_kind(lists, most_steps),
            "lists": list(lists),
            "parts": evidence.parts(deployed),
            "errors": evidence.errors_by_kind(parent.code, deployed, parent.score["errors"]),
            "output": quote_lines(parent.score["output"], 300) if parent.score["output"] else "",
            "relatives": [{**one, "what": quote_cell(one["what"], 60), "error": quote_cell(one["error"], 40)} for one in parent.relatives],
        }
        marker = "\n## Score\n"  # what stands below it is evidence
        head, _, tables = render("ideate", pairs=[], **shown).rpartition(marker)
        left = tokens - count_tokens(tables)
        if left < LEAST_TOKENS // 2:
            return head + marker + cut(tables, tokens)
        rng = random.Random(envs.derive_seed(self._seed, parent.id, self._candidate, "episodes"))
        pairs = evidence.pairs(deployed, without, most_steps, rng)[: max(1, left // EPISODE_TOKENS)]
        told: dict[str, str] = {}
        return render("ideate", pairs=[evidence.episode(one, told, left // len(pairs)) for one in pairs], **shown)


def _change(design: Evidence) -> dict | None:
    """What the last change did to the score, episode by episode; None for a design from scratch."""
    if not design.before:
        return None
    before = {(one["task"], one["number"]): one["score"] for one in design.before}
    differences: dict[str, list[float]] = {}
    for one in design.deployed:
        differences.setdefault(one["task"], []).append(one["score"] - before[one["task"], one["number"]])
    mean, low, high = paired_interval(differences)
    told = [{key: quote(change.get(key, ""), 150) for key in ("what", "expected")} for change in design.changes]
    return {"changes": told, "difference": mean, "low": low, "high": high}
