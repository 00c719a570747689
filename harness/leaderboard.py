"""The leaderboard: each design in `designs/ENV/` and each baseline by one protocol, and the page `designs/README.md`.

What was measured is kept in `designs/ENV/leaderboard.json`, by agent. The page is written from these files, so the
lines of other domains and agents stay; one whose design has changed or is gone is left out of page and file.
"""

import ast
import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from alma import design_id
from errors import UserError
from harness.run_folder import write_atomic
from models import recorded
from report.words import line, templates

# Two passes over the test set, each design after no, one and all episodes. All else as in the paper, or for stand-ins.
PROTOCOL = {"seed": 42, "test_passes": 2, "experience": "all"}
FILE = "leaderboard.json"
AUTHOR = re.compile(r"Written by: *(.+?)(?: Labels of the run:.*)?$", re.M)  # in a design's docstring


def contributed(env: str) -> dict[str, Path]:
    """The files in `designs/ENV/` by name, as `--design` takes it: `learned`, `seed-43/learned`, ... Raises UserError."""
    folder, found = recorded.DESIGNS / env, {}
    for path in sorted(path for path in folder.rglob("*.py") if path.is_file()):
        name = str(path.relative_to(folder).with_suffix(""))
        if not re.fullmatch(r"[\w./-]{1,60}", name):
            raise UserError(f"{path}: a design's name has letters, digits, '-', '_' and '.', at most 60")
        found[name] = path
    return found


def check() -> dict[str, dict[str, dict]]:
    """The kept boards by domain and agent. Raises UserError where one is damaged."""
    boards = {}
    for path in recorded.DESIGNS.glob(f"*/{FILE}"):
        try:
            boards[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
            for board in boards[path.parent.name].values():
                _ranked(board)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise UserError(f"{path} is damaged: restore it, or remove it and measure all designs again") from None
    return boards


def keep(env: str, agent: str, dollars: float | None, result: dict, known: Mapping[str, str]) -> None:
    """Keep what was measured with this agent, and write the page. `result`: scores by name, as a comparison gives them,
    and its noise; `known`: the code of each design of the domain and of each baseline, by name."""
    boards, own = check(), contributed(env)
    kept = boards.setdefault(env, {})
    rows = kept.get(agent, {}).get("rows", {})
    names = ("id", "mean", "stderr", "difference", "interval", "retrieved_tokens", "steps", "experience")
    for name, score in result["scores"].items():
        by, error = "not said" if name in own else "baseline", line((score.get("errors") or [""])[0], 100)
        with contextlib.suppress(SyntaxError, ValueError):
            if name in own and (written := AUTHOR.search(ast.get_docstring(ast.parse(known[name])) or "")):
                by = line(written[1], 120)
        rows[name] = {"by": by, "error": error, **{key: score.get(key) for key in names}}
    kept[agent] = {"noise": result["noise"]["noise"], "dollars": dollars, "rows": rows}
    current = {name: design_id(code) for name, code in known.items()}
    for one in kept.values():
        one["rows"] = {name: row for name, row in one["rows"].items() if row["id"] == current.get(name)}
    boards = {name: {agent: _ranked(one) for agent, one in sorted(boards[name].items())} for name in sorted(boards)}
    shown = templates("md").get_template("leaderboard.md").render(boards=boards, protocol=PROTOCOL)
    write_atomic(recorded.DESIGNS / env / FILE, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    write_atomic(recorded.DESIGNS / "README.md", shown)


def _ranked(board: dict) -> dict:
    """A board with its rows best first: by what experience gives, score, tokens, steps, name; without the first: last."""

    def rank(row: dict) -> tuple:
        gives = row["experience"]["gives"][0] if row["experience"] else 0.0
        return not row["experience"], -round(gives, 6), -row["mean"], row["retrieved_tokens"], row["steps"], row["name"]

    rows = [{"error": "", "name": name, **row} for name, row in board["rows"].items()]
    return {"noise": float(board["noise"]), "dollars": board["dollars"], "rows": sorted(rows, key=rank)}
