"""The leaderboard: each design in `designs/ENV/` and each baseline by one protocol, and the page `designs/README.md`.

A contribution is one file in `designs/ENV/`, whose docstring has a line `Written by: NAME`. What was measured is kept
in `designs/ENV/leaderboard.json`, by agent. The page is written from these files, so the lines of other domains and
of other agents stay.

Promises: with the stand-in agent a line is the same on every machine; a line whose design has changed since, or is
gone, is left out of the page and of the file.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from alma import design_id
from errors import UserError
from harness.run_folder import write_atomic
from models import recorded
from report.words import line, templates

# Two passes over the test set, each design after no, one and all episodes. All else as in the paper, or for stand-ins.
PROTOCOL = {"seed": 42, "test_passes": 2, "experience": "all"}
FILE = "leaderboard.json"
NAMED = re.compile(r"Written by: *(.+?)(?: Labels of the run:.*)?$", re.M)


def contributed(env: str) -> list[str]:
    """The names of the designs in `designs/ENV/`, as `--design` takes them: `learned`, `seed-43/learned`, ..."""
    folder = recorded.DESIGNS / env
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py"))


def check() -> None:
    """Raises UserError where a kept board is damaged."""
    for path in recorded.DESIGNS.glob(f"*/{FILE}"):
        _read(path)


def keep(env: str, agent: str, dollars: float | None, result: dict, find: Callable[[str], str]) -> None:
    """Keep what was measured with this agent, and write the page.

    `result`: scores by name, as a comparison gives them, and its noise; `find`: the code of a design by its name.
    """
    path = recorded.DESIGNS / env / FILE
    known = _read(path) if path.exists() else {}
    rows = known.get(agent, {}).get("rows", {})
    names = ("id", "mean", "stderr", "difference", "interval", "retrieved_tokens", "steps", "experience")
    for name, score in result["scores"].items():
        written = NAMED.search(find(name))
        by = line(written[1], 120) if written else "not said" if name in contributed(env) else "baseline"
        rows[name] = {"by": by, **{key: score.get(key) for key in names}}
    known[agent] = {"noise": result["noise"]["noise"], "dollars": dollars, "rows": rows}
    for one in known.values():
        one["rows"] = {name: row for name, row in one["rows"].items() if row["id"] == _current(name, find)}
    boards = {one.parent.name: _read(one) for one in recorded.DESIGNS.glob(f"*/{FILE}")} | {env: known}
    boards = {name: {agent: _ranked(one) for agent, one in sorted(boards[name].items())} for name in sorted(boards)}
    shown = templates("md").get_template("leaderboard.md").render(boards=boards, protocol=PROTOCOL)
    write_atomic(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    write_atomic(recorded.DESIGNS / "README.md", shown)


def _current(name: str, find: Callable[[str], str]) -> str:
    """The id of the design that has this name now; empty where there is none."""
    try:
        return design_id(find(name))
    except UserError:
        return ""


def _read(path: Path) -> dict[str, dict]:
    """What is kept for a domain, by agent. Raises UserError where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for board in found.values():
            list(map(_rank, _ranked(board)["rows"]))
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{path} is damaged: restore it, or remove it and measure all designs again") from None


def _ranked(board: dict) -> dict:
    """A board with its rows best first."""
    rows = [{"name": name, **row} for name, row in board["rows"].items()]
    return {"noise": float(board["noise"]), "dollars": board["dollars"], "rows": sorted(rows, key=_rank)}


def _rank(row: dict) -> tuple:
    """By what experience gives, score, tokens, steps, name; those where it was not measured last."""
    gives = row["experience"]["gives"][0] if row["experience"] else 0.0
    return not row["experience"], -round(gives, 6), -row["mean"], row["retrieved_tokens"], row["steps"], row["name"]
