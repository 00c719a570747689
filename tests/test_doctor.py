"""What `alma.py doctor` says of this machine and of real local endpoints."""

import json
import os
import subprocess
import sys

import pytest

from tests.endpoint import ModelServer
from tests.runs import ROOT

TOY = ["--env", "tests.toy:Doors"]
KEY = "sk-never-shown-1234567890"


def doctor(*arguments, limit: str = "", **environment) -> tuple[int, dict[str, dict]]:
    """Exit code and lines by name, of `doctor --json`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ALMA_"))}
    command = [sys.executable, str(ROOT / "alma.py"), "doctor", *map(str, arguments), "--json"]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "bash", *command]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=200, env={**clean, **environment}
    )
    assert not done.stderr and KEY not in done.stdout
    said = json.loads(done.stdout)
    assert said["ok"] == (done.returncode == 0) == all(line["status"] != "missing" for line in said["checks"])
    assert all(line["do"] for line in said["checks"] if line["status"] != "ok")
    return done.returncode, {line["check"]: line for line in said["checks"]}


def test_a_machine_on_which_a_run_can_start(tmp_path):
    code, lines = doctor(*TOY)
    assert code == 0
    assert {lines[f"{role} model"]["status"] for role in ("agent", "meta", "memory", "embedding")} == {"ok"}
    assert "seccomp" in lines["sandbox"]["found"] and lines["python"]["found"].startswith("3.")
    assert lines["data: tests.toy:Doors"]["found"] == "42 tasks generated"
    assert {"compiler", "worker processes", "memory", "disk: runs", "disk: games", "descriptors"} <= set(lines)


def test_every_endpoint_is_asked_once_and_says_its_price_and_where_its_key_is_from():
    with ModelServer(key=KEY) as server:
        models = [part for role in ("agent", "memory") for part in (f"--{role}-model", f"{role}@{server.url}")]
        models += ["--embedding-model", f"embedding@{server.url}", "--meta-model", "offline"]
        code, lines = doctor(*TOY, *models, "--price", "agent=1,0.1,2", OPENAI_API_KEY_127_0_0_1=KEY)
        asked = sorted(body["model"] for body in server.bodies)
    assert code == 0, lines
    assert asked == ["agent", "embedding", "memory"]
    assert "$0.0" in lines["agent model"]["found"] and "key from OPENAI_API_KEY_127_0_0_1" in lines["agent model"]["found"]
    assert lines["agent model"]["status"] == "ok"
    assert lines["memory model"]["status"] == "warning" and "price unknown" in lines["memory model"]["found"]
    assert "no call" in lines["meta model"]["found"]


def test_a_wrong_key_an_absent_key_and_a_dead_endpoint_are_missing():
    with ModelServer(key="another") as server:
        models = ["--agent-model", f"agent@{server.url}", "--memory-model", "m@mistral"]
        models += ["--meta-model", "m@http://127.0.0.1:9/v1", "--embedding-model", "offline"]
        code, lines = doctor(*TOY, *models, OPENAI_API_KEY_127_0_0_1=KEY)
    assert code == 1
    assert [lines[f"{role} model"]["status"] for role in ("agent", "memory", "meta")] == ["missing"] * 3
    assert "MISTRAL_API_KEY" in lines["memory model"]["found"] and "127.0.0.1:9" in lines["meta model"]["found"]


@pytest.mark.parametrize(
    ("disabled", "code", "status"), [("seccomp", 1, "missing"), ("landlock namespaces", 1, "missing"), ("landlock", 0, "ok")]
)
def test_missing_layers_of_the_sandbox_are_named(disabled, code, status):
    found, lines = doctor(*TOY, ALMA_SANDBOX_DISABLE=disabled)
    assert found == code and lines["sandbox"]["status"] == status
    assert all(lines[f"sandbox: {name}"]["status"] == "warning" for name in disabled.split())


def test_an_unsafe_sandbox_that_is_wanted_is_a_warning():
    code, lines = doctor(*TOY, "--unsafe-sandbox", ALMA_SANDBOX_DISABLE="seccomp")
    assert code == 0 and lines["sandbox"]["status"] == "warning"


def test_few_descriptors_and_no_place_for_games_are_named():
    code, lines = doctor("--env", "textworld", limit="ulimit -n 100", HOME="/proc/nowhere")
    assert code == 1
    assert "ALMA_CACHE" in lines["data: textworld"]["found"] and lines["disk: games"]["status"] == "missing"
    code, lines = doctor(*TOY, "--workers", 60, limit="ulimit -n 300")
    assert code == 0 and "ulimit -n 650" in lines["descriptors"]["do"]


def test_a_domain_that_is_none_is_missing():
    code, lines = doctor("--env", "chess")
    assert code == 1 and "unknown environment" in lines["data: chess"]["found"]
