"""What a search finds for the agent calls that it spends: the paper's protocol beside cheaper ones.

Stand-ins play; a call is a step of an episode. Each protocol searches with the same seeds; `true` is the score of the
chosen design over others. Designs that retrieve the same thing share an episode: `shared` counts it once, `calls` each
time, for a language model's designs share few. `python -m bench.protocols --env babaisai --seeds 5` takes an hour.
"""

import argparse
import asyncio
import collections
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from unittest import mock

from alma import Archive, learn
from harness.commands import complete
from harness.config import Config
from harness.run import Run
from harness.run_folder import RunFolder
from models import RECORDED
from models.recorded import DESIGNS

PROTOCOLS = {  # what is changed in the settings
    "three passes, as in the paper": {"passes": 3, "finalists": 0},
    "one pass, finalists": {"passes": 1},
    "three passes, race": {"passes": 3, "finalists": 0, "race": True},
    "one pass, finalists, race": {"passes": 1, "race": True},
}


class SameDesigns(Run):
    """Replays a recording so that all protocols choose from its candidates, whatever parents are drawn."""

    def place(self, step: int, archive: Archive, drawn: Sequence) -> None:
        super().place(step, archive, drawn)
        for origin, answers in self._recording.candidates.items():
            self._origins[next(iter(answers.values()))["candidate"]] = origin


async def search(config: Config, path: Path, known: Path | None) -> dict[str, float]:
    """The agent calls of one search, and success and lead of the design that it chooses, in points."""
    async with SameDesigns(RunFolder.at(path, asdict(config)), plain=True) as run:
        if known:
            run.store.copy_episodes(known / "store.sqlite")
        with mock.patch.object(run.store, "get_episode", wraps=run.store.get_episode) as get_episode:
            archive = await learn(run)
        asked = collections.Counter(call.args[0] for call in get_episode.call_args_list)
        steps = {key: len(run.store.get_episode(key)["trajectory"]["steps"]) for key in asked}
        best, fresh = archive.best(), range(1000, 1020)  # passes over seeds that no search has used
        score = await run.score("learning", "true score", run.folder.code(best.id), passes=fresh)
        return {"calls": sum(asked[key] * steps[key] for key in asked), "shared": sum(steps.values()),
                "true": 100 * score.mean, "lead": 100 * score.difference,
                "found": 100 * (best.lead(archive.f0) if best.final is None else best.final)}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.protocols", description=__doc__.split("\n")[0])
    parser.add_argument("--env", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=7, help="learning steps (default 7: 23 designs)")
    parser.add_argument("--recorded", action="store_true", help="candidates are those of designs/ENV, not the sketch's")
    parser.add_argument("--first", type=int, default=len(PROTOCOLS), help="only so many protocols (default all)")
    given = parser.parse_args()
    writer = {"meta_model": RECORDED, "recording": str(DESIGNS / given.env)} if given.recorded else {}
    found: dict[str, list[dict]] = {name: [] for name in list(PROTOCOLS)[: given.first]}
    for seed in range(42, 42 + given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            known = None
            for name, rows in found.items():
                settings = complete(Config(env=given.env, seed=seed, steps=given.steps, **writer, **PROTOCOLS[name]))
                rows.append(asyncio.run(search(settings, Path(folder) / name, known)))
                known = Path(folder) / name
                print(f"{given.env} seed {seed} {name}: {rows[-1]}", flush=True)
    print(f"\n{'protocol':32}{'calls':>9}{'shared':>9}{'true %':>14}{'true lead':>12}{'lead found':>12}")
    for name, rows in found.items():
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        true = f"{mean['true']:.1f} ± {statistics.pstdev(row['true'] for row in rows):.1f}"
        print(f"{name:32}{mean['calls']:9,.0f}{mean['shared']:9,.0f}{true:>14}{mean['lead']:+12.1f}{mean['found']:+12.1f}")
