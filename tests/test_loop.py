"""The whole loop in real processes, on a small domain: bad candidates and a dead endpoint."""

from tests.endpoint import ModelServer, stand_in
from tests.runs import TOY, archive, finish, models, start

BROKEN = "```python\nfrom memory_base import MemoryDesign\n\n\nclass Broken(MemoryDesign):\n    pass\n```"


def test_a_candidate_that_fails_three_times_or_has_no_code_is_dropped_and_the_run_goes_on(tmp_path):
    written = []

    def answer(role: str, body: dict) -> str:
        prompt = body["messages"][1]["content"]
        if not prompt.startswith(("# Stage: repair", "# Stage: implement")):
            return stand_in(role, body)
        written.append(prompt)
        return BROKEN if len(written) <= 3 else "I would rather not."

    with ModelServer(answer) as server:
        said = finish(start("learn", *TOY, *models(server, "meta"), "--runs", tmp_path))
    lines = archive(tmp_path)
    assert [line["state"] for line in lines] == ["evaluated", "dropped", "dropped"]
    assert lines[1]["tries"] == 3 and "general_update" in lines[1]["error"]
    assert "2.1 dropped" in said and "3.1 dropped" in said
    (run,) = tmp_path.iterdir()
    assert "Broken" in (run / "dropped" / "2.1" / "design.py").read_text()


def test_a_dead_endpoint_stops_the_run_with_one_line_and_a_way_on(tmp_path):
    dead = "x@http://127.0.0.1:9/v1"
    arguments = [*TOY, "--agent-model", dead, "--outage-seconds", "0.2", "--runs", tmp_path]
    said = finish(start("learn", *arguments), 3).strip().splitlines()
    assert said[-2].startswith("alma: stopped: ") and "127.0.0.1:9" in said[-2]
    assert said[-1].startswith("resume with: ")
