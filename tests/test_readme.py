"""The README and docs/ do what they say: their Python runs, their commands, files and names are there, numbers hold."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import envs
from harness import cli, commands, config, estimate
from models import prices

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = README + "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md")) if path.stem != "forking")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGES, re.M | re.S)
LINES = [line for language, block in BLOCKS if not language for line in block.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python" and "memory_base" in block])
def test_a_learned_memory_works_in_ones_own_agent_as_shown(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'find pen': ['go to desk 1'" in done.stdout


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python alma.py")])
def test_every_command_line_is_one_that_there_is(line):
    command = cli.parse(shlex.split(line.partition("#")[0])[2:]).command
    assert callable(getattr(commands, command))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_function_and_the_readme_names_it(name):
    assert callable(getattr(commands, name)) and name in README


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_every_make_target_is_one_that_there_is(line):
    words = shlex.split(line.partition("#")[0])
    assert subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:\w+/)*[\w.]+\.(?:py|md|txt))`", PAGES))))
def test_every_file_that_is_named_is_there(name):
    made = ("design.py", "learned.py", "my.py", "report.md", "E.py", "log.txt", "designs/ENV/README.md")
    assert any((ROOT / folder / name).is_file() for folder in ("", "tests", "standins")) or name in made


@pytest.mark.parametrize(("module", "names"), re.findall(r"^\| [^|]* \| `(\w+)\.py`: ((?:`\w+(?:\.\w+)*`(?:, )?)+)", README, re.M))
def test_every_name_beside_the_paper_is_in_its_module(module, names):
    for name in re.findall(r"`([\w.]+)`", names):
        if name not in ("self", "general_retrieve"):
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!https?:)[^)#]+)\)", README))))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("env", envs.DOMAINS)
def test_the_cost_of_a_real_run_is_what_the_estimator_says(env):
    row = re.search(rf"^\| {env} \| ([\d,]+) \| ([\d.]+) billion \| (\d+) \| (\d+) \|$", README, re.M)
    calls, tokens, dollars, hours = (float(value.replace(",", "")) for value in row.groups())
    passes = dict.fromkeys(("test_passes", "final_passes"), config.PAPER["passes"])
    settings = config.Config(env=env, **passes, **config.PAPER, **config.PAPER_MODELS)
    planned = estimate.planned_calls(settings, commands.reproduced(settings), estimate.designs_of(settings.steps))
    found = prices.estimate(planned, {})
    assert round(found.calls, -3) == calls and f"{found.tokens / 1e9:.1f}" == f"{tokens:.1f}"
    assert round(found.usd) == dollars and round(found.calls * 3 / 10 / 3600) == hours
