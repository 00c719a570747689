"""The meta agent: what it is shown in each stage, and what is made of its answers.

A stage is a file `prompts/<stage>.md` and a method of `MetaAgent`. A prompt depends on the run's folder and seed
alone, so a resumed run asks the same things again; what a design printed, raised or retrieved is quoted as data.
Whether an answer is any good is found out by verification and evaluation.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import envs
from errors import ContextOverflow, InfrastructureError
from prompts import FOLDER, count_tokens, cut, fenced, quote, render

SCORE_BINS = ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.01))
EPISODES_IN_BIN = 2
RETRIEVE_LIMIT = 1500  # tokens of retrieved memory that the meta agent is told are enough
LEAST_TOKENS = 500  # of trajectories; a context that has no room for these is too short
UNCHANGED = "This module equals the one that was to be changed. Carry out the plan, and write the whole changed module."
INTERFACE = Path(__file__).parent / "memory_base.py"


def plan_schema() -> dict:
    """The JSON schema of the meta agent's plan."""
    return json.loads((FOLDER / "plan.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Evidence:
    """What is known of a design that is to be changed."""

    id: str
    code: str
    score: dict  # a Score's summary
    deployed: list[dict]  # lines of trajectories.jsonl
    last_change: dict | None  # {"changes": [str], "difference": float}; None for a design from scratch

    @classmethod
    def read(cls, folder: Path, parent: Path | None) -> "Evidence":
        """From the design's folder in the run, and the folder of the design that it was made from."""
        score = json.loads((folder / "score.json").read_text(encoding="utf-8"))
        lines = (folder / "trajectories.jsonl").read_text(encoding="utf-8").splitlines()
        last_change = None
        if parent:
            before = json.loads((parent / "score.json").read_text(encoding="utf-8"))
            plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
            changes = [change["what"] for change in plan["changes"]]
            last_change = {"changes": changes, "difference": score["mean"] - before["mean"]}
        code = (folder / "design.py").read_text(encoding="utf-8")
        return cls(folder.name, code, score, [json.loads(line) for line in lines], last_change)


class MetaAgent:
    """Makes one candidate: asks the meta model stage by stage and keeps what was said.

    `candidate` is the name to which its calls are booked; it also tells apart questions that are asked twice.
    `example` is a collected trajectory, as a dict: the keys of its `init` and steps are told.
    """

    def __init__(self, models, domain: str, example: dict, prompt_tokens: int, seed: int, candidate: str):
        self._models, self._seed, self._candidate = models, seed, candidate
        self._prompt_tokens = prompt_tokens
        self._shown = {
            "interface": INTERFACE.read_text(encoding="utf-8").strip(),
            "domain": envs.domain_class(domain).description(),
            "retrieve_limit": RETRIEVE_LIMIT,
            "init_keys": sorted(example["init"]),
            "step_keys": sorted(example["steps"][0]),
        }
        self.transcript: list[tuple[str, str, str]] = []  # stage, "prompt" or "answer", text

    # The stages.

    async def first(self) -> str:
        """The code of a design written from scratch."""
        return await self._ask_code("first")

    async def ideate_and_plan(self, parent: Evidence) -> dict:
        """Study a design and its logs; the plan for a new one, by the schema of prompts/plan.json.

        Where the prompt does not fit into the model's context, its trajectories are cut further.
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
        plan_text = json.dumps(plan, indent=1, ensure_ascii=False)
        return await self._ask_code("implement", unlike=parent.code, code=parent.code, plan=plan_text)

    async def repair(self, code: str, error: str, attempt: int) -> str:
        """The code again, mended after a failed verification."""
        return await self._ask_code("repair", f" try {attempt}", code=code, error=quote(error, 1500))

    # Asking.

    async def _ask_code(self, stage: str, again: str = "", unlike: str = "", **shown) -> str:
        """The Python module that the model answers to `prompts/<stage>.md`.

        A module that equals `unlike` is asked for once more, with that said.
        """
        prompt = render(stage, **self._shown, **shown)
        messages = self._messages(prompt)
        try:
            code = await self._models.ask_code("meta", messages, **self._call(stage, again))
            self._keep(stage, prompt, code)
            if unlike and code.strip() == unlike.strip():
                messages += [{"role": "assistant", "content": fenced(code, "python")}, {"role": "user", "content": UNCHANGED}]
                code = await self._models.ask_code("meta", messages, **self._call(stage, f"{again} unchanged"))
                self._keep(stage, UNCHANGED, code)
        except ContextOverflow as error:
            raise InfrastructureError(f"the meta agent's prompt is too long: {error}") from None
        return code

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": render("meta_system")}, {"role": "user", "content": prompt}]

    def _call(self, stage: str, again: str = "") -> dict:
        sample = self._candidate + again
        seed = envs.derive_seed(self._seed, stage, sample)
        return {"stage": stage, "sample": sample, "design": self._candidate, "seed": seed}

    def _keep(self, stage: str, prompt: str, answer: str) -> None:
        self.transcript += [(stage, "prompt", prompt), (stage, "answer", answer)]

    # The evidence.

    def ideate_prompt(self, parent: Evidence, tokens: int) -> str:
        """The prompt with at most `tokens` tokens of trajectories and what was retrieved for them."""
        score, change = parent.score, parent.last_change
        return render(
            "ideate",
            code=parent.code,
            score=score["mean"],
            stderr=score["stderr"],
            f0=score["mean"] - score["difference"],
            retrieved_tokens=score["retrieved_tokens"],
            last_change=change and {**change, "changes": [quote(text, 200) for text in change["changes"]]},
            errors=[quote(error, 500) for error in score["errors"]],
            output=quote(score["output"], 500),
            episodes=self._episodes(parent, tokens),
            schema=(FOLDER / "plan.json").read_text(encoding="utf-8").strip(),
            **self._shown,
        )

    def _episodes(self, parent: Evidence, tokens: int) -> list[dict]:
        """Deployed episodes from each score bin, cut to `tokens` in all."""
        rng = random.Random(envs.derive_seed(self._seed, parent.id, self._candidate, "episodes"))
        chosen = []
        for low, high in SCORE_BINS:
            within = [one for one in parent.deployed if low <= one["score"] < high]
            chosen += rng.sample(within, min(EPISODES_IN_BIN, len(within)))
        share = tokens // max(1, len(chosen))
        return [_episode(one, share) for one in chosen]


def _episode(deployed: dict, tokens: int) -> dict:
    """One deployed episode for the prompt: half of the tokens for what was retrieved, half for goal and steps."""
    retrieved = json.dumps(deployed["retrieved"], indent=1, ensure_ascii=False)
    goal_tokens = min(200, tokens // 8)
    trajectory = deployed["trajectory"] or {"init": {}, "steps": []}
    return {
        "task": deployed["task"],
        "score": deployed["score"],
        "retrieved": quote(retrieved, tokens // 2),
        "goal": quote(str(trajectory["init"].get("goal", "")), goal_tokens),
        "steps": _steps(trajectory, tokens // 2 - goal_tokens) or [f"(not played: {quote(deployed['error'], 300)})"],
    }


def _steps(trajectory: dict, tokens: int) -> list[str]:
    """An episode's actions and observations, cut to `tokens`: the oldest observations go first, and only where not
    even all actions fit, the oldest actions."""
    steps, lines, left = trajectory["steps"][::-1], [], tokens
    for step in steps:
        action = f"> {quote(' '.join(str(step['action_took']).split()), 50)}"
        left -= count_tokens(action) + 1
        if left < 0:
            lines.append("(earlier steps cut)")
            break
        lines.append(action)
    for place, step in enumerate(steps[: len(lines)]):
        texts = [value for key, value in step.items() if isinstance(value, str) and key != "action_took"]
        seen = quote(cut("\n".join(texts), 400), 150)
        left -= count_tokens(seen) + 1
        if left < 0:
            break
        lines[place] += f"\n{seen}"
    return lines[::-1]
