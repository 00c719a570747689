"""The leaderboard: a run on the toy domain in the command's own process, with a `designs/` of this test."""

import json
import shutil

import pytest

from errors import UserError
from harness import commands
from harness.cli import parse
from models import recorded

ENV = "tests.toy:Doors"
LEARNS = '''"""Which door led to which gem.

Written by: A. Tester
"""

from memory_base import MemoryDesign


class Doors(MemoryDesign):
    def __init__(self):
        self.seen = {}

    async def general_update(self, trajectory):
        if trajectory.reward:
            self.seen[trajectory.init["goal"]] = trajectory.steps[-1]["action_took"]

    async def general_retrieve(self, trajectory):
        return {"plan": self.seen.get(trajectory.init["goal"])}
'''
# Knows the doors without having learned anything.
SOLVES = (
    LEARNS.replace("self.seen = {}", "self.seen = BEHIND")
    .replace("class", "DOORS = (('ruby', 'red'), ('emerald', 'green'), ('sapphire', 'blue'), ('amber', 'yellow'), ('pearl', 'white'), ('jet', 'black'))\nBEHIND = {f'Find the {gem}.': f'open {door}' for gem, door in DOORS}\n\n\nclass")
    .replace("Written by: A. Tester\n", "")
)  # fmt: skip


@pytest.fixture(scope="module")
def designs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("designs")
    (folder / ENV / "seed-43").mkdir(parents=True)
    (folder / ENV / "learns.py").write_text(LEARNS)
    (folder / ENV / "seed-43" / "learned.py").write_text(SOLVES)
    return folder


@pytest.fixture(autouse=True)
def _designs(designs, monkeypatch):
    monkeypatch.setattr(recorded, "DESIGNS", designs)


def leaderboard(tmp_path, *flags) -> None:
    assert (
        commands.leaderboard(parse(["leaderboard", "--env", ENV, "--plain", "--runs", str(tmp_path), *flags]))
        == 0
    )


@pytest.fixture(scope="module")
def whole(designs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "DESIGNS", designs)
        leaderboard(tmp_path_factory.mktemp("runs"))
    return (designs / "README.md").read_text()


def row(page: str, name: str) -> list[str]:
    return next(
        cells for line in page.splitlines() if name in (cells := [cell.strip() for cell in line.split(" | ")])
    )


def test_a_memory_is_ranked_above_a_solver_and_each_line_says_who_wrote_it(whole):
    memory, solver, none = row(whole, "learns"), row(whole, "seed-43/learned"), row(whole, "no\\_memory")
    assert solver[2].startswith("+0.0 ") and memory[2].startswith("+") and memory[2] > "+1"
    assert int(memory[0].strip("| ")) < int(solver[0].strip("| ")) and none[0].strip("| ") == ""
    assert float(solver[3].split()[0]) == 100
    assert memory[-1].strip("| ") == "A. Tester" and solver[-1].strip("| ") == "not said"
    assert len([line for line in whole.splitlines() if line.startswith("| ") and "baseline" in line]) == len(
        commands.baselines()
    )


def test_one_design_alone_gets_the_same_line_and_the_others_stay(whole, designs, tmp_path):
    leaderboard(tmp_path, "--design", "learns")
    assert (designs / "README.md").read_text() == whole


def test_a_design_that_has_changed_or_is_gone_leaves_the_board_and_other_agents_keep_their_lines(
    whole, designs, tmp_path
):
    path = designs / ENV / "leaderboard.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "gpt-5-nano:low": {**known["offline"], "dollars": 1.5}}))
    shutil.copy(designs / ENV / "learns.py", designs / ENV / "other.py")
    (designs / ENV / "learns.py").write_text(LEARNS.replace('"plan"', '"first"'))
    leaderboard(tmp_path, "--design", "other")
    page = (designs / "README.md").read_text()
    paid, _, offline = page.partition("agent gpt-5-nano:low")[2].partition("\n## ")
    assert "| learns |" not in page and "| other |" in offline and "| other |" not in paid
    assert "| seed-43/learned |" in paid and "$1.50" in paid and "$" not in offline


def test_its_protocol_is_fixed_and_a_wrong_name_is_one_line(tmp_path):
    with pytest.raises(UserError, match="one protocol: leave out --seed"):
        leaderboard(tmp_path, "--seed", "3")
    with pytest.raises(UserError, match="no design 'nobody' in designs/"):
        leaderboard(tmp_path, "--design", "nobody")
    with pytest.raises(UserError, match=r"no design '\.\./\.\./x' in designs/"):
        leaderboard(tmp_path, "--design", "../../x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"offline": 3}', '{"offline": {"rows": {"x": {}}, "noise": 0, "dollars": 0}}'])
def test_a_damaged_board_is_one_line_before_anything_is_measured(text, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "DESIGNS", tmp_path / "designs")
    (tmp_path / "designs" / ENV).mkdir(parents=True)
    (tmp_path / "designs" / ENV / "leaderboard.json").write_text(text)
    with pytest.raises(UserError, match="is damaged: restore it"):
        leaderboard(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "why"), [("g_memory", "has the name of a baseline"), ("a | b", "a design's name has letters")])
def test_a_name_that_is_taken_or_breaks_the_table_is_one_line(name, why, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "DESIGNS", tmp_path / "designs")
    (tmp_path / "designs" / ENV).mkdir(parents=True)
    (tmp_path / "designs" / ENV / f"{name}.py").write_text(LEARNS)
    with pytest.raises(UserError, match=why):
        leaderboard(tmp_path / "runs")


def test_a_design_that_fails_says_so_in_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "DESIGNS", tmp_path / "designs")
    (tmp_path / "designs" / ENV).mkdir(parents=True)
    (tmp_path / "designs" / ENV / "broken.py").write_text('"""Nothing."""\n1 / 0\n')
    leaderboard(tmp_path / "runs", "--design", "broken")
    assert "broken (fails: " in (tmp_path / "designs" / "README.md").read_text()


def test_a_run_of_another_command_does_not_become_a_board(tmp_path):
    run = ["evaluate", "--env", ENV, "--design", "no_memory", "--seed", "5", "--plain", "--runs", str(tmp_path)]
    assert commands.evaluate(parse(run)) == 0
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UserError, match="is no run of a leaderboard"):
        commands.leaderboard(parse(["leaderboard", "--resume", str(folder), "--plain"]))
