"""Renders the meta agent's prompts: one request of each stage out of a short search in Baba Is AI, as it is sent.

`python -m tests.prompt_samples` writes them to docs/prompts/; `--tokens RUNS...` prints their sizes instead.
"""

import re
import sys
import tempfile
from pathlib import Path

from prompts import count_tokens
from tests.endpoint import ModelServer, stand_in
from tests.runs import ROOT, finish, models, start

SEARCH = ["--env", "babaisai", "--steps", "4", "--folds", "1", "--passes", "2", "--collection-passes", "6"]
STAGE = re.compile(r"# Stage: (\w+)")


def search(arguments: list[str], runs: Path, broken: bool = True) -> list[list[dict]]:
    """The messages of every request to the meta agent, which the stand-in answers; `broken`: its first child fails."""
    asked: list[list[dict]] = []

    def answer(role: str, body: dict) -> str:
        said = stand_in(role, body)
        asked.append(body["messages"])
        if broken and stage(asked[-1]) == "implement" and sum(stage(one) == "implement" for one in asked) == 1:
            said = said.replace("async def general_update(self, trajectory):", "async def general_update(self, trajectory, reward):")
        return said

    with ModelServer(answer) as server:
        finish(start("learn", *arguments, "--plain", "--yes", *models(server, "meta"), "--runs", runs))
    return asked


def stage(messages: list[dict]) -> str:
    return STAGE.match(messages[1]["content"])[1]


def samples(asked: list[list[dict]]) -> dict[str, str]:
    """One request of each stage by the name of its file; of several the longest about a design that has a parent."""
    found = {"system": asked[0][0]["content"]}
    for messages in sorted(asked, key=lambda one: ("score difference:" in one[1]["content"], len(one[1]["content"]), one[1]["content"])):
        found[stage(messages)] = messages[1]["content"]
    return found


def sizes(asked: list[list[dict]]) -> str:
    """Input tokens of each stage, and the share that the longest common prefix with the request before makes."""
    last: dict[str, str] = {}
    rows: dict[str, list[tuple[int, int]]] = {}
    for messages in asked:
        text = "\n\n".join(message["content"] for message in messages)
        common = next((n for n, (a, b) in enumerate(zip(text, last.get(stage(messages), ""), strict=False)) if a != b), 0)
        rows.setdefault(stage(messages), []).append((count_tokens(text), count_tokens(text[:common])))
        last[stage(messages)] = text
    lines = [f"{name}: {len(ones)} requests, {sum(one for one, _ in ones) // len(ones)} tokens" for name, ones in rows.items()]
    every = [one for ones in rows.values() for one in ones]
    return "\n".join([*lines, f"common with the request before: {sum(c for _, c in every) / sum(n for n, _ in every):.1%} of all"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if "--tokens" in sys.argv:
            print(sizes(search(sys.argv[sys.argv.index("--tokens") + 1 :], Path(folder), broken=False)))
        else:
            for name, text in samples(search(SEARCH, Path(folder))).items():
                (ROOT / "docs" / "prompts" / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
