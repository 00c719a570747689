"""Whole runs against an endpoint that goes wrong: same archive, no score that a fault decided."""

import pytest

from tests.endpoint import FAULTS, ModelServer
from tests.runs import TOY, archive, finish, folder, models, played, start, writes_notes

# Enough steps for every fault of an answer with code. A call that never ends is given up after two seconds.
MANY = ["--steps", "4", "--tasks", "12", "--in-flight", "30", "--call-seconds", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run at an endpoint without faults."""
    runs = tmp_path_factory.mktemp("whole")
    with ModelServer(writes_notes) as server:
        finish(start("learn", *TOY, *MANY, *models(server), "--runs", runs))
    return runs


def test_a_run_through_hundreds_of_faults_of_every_kind_ends_in_the_same_archive(whole, tmp_path):
    with ModelServer(writes_notes, fault_rate=0.95, even=True, seed=3) as server:
        server.at[300] = lambda: server.go_away(0.5)
        finish(start("learn", *TOY, *MANY, *models(server), "--runs", tmp_path), seconds=300)
        faults = server.stats()["faults"]
    assert sum(faults.values()) >= 300 and set(faults) == {*FAULTS, "refused"}
    assert archive(tmp_path) == archive(whole)
    assert played(tmp_path) == played(whole)  # every observation, action and score of every episode
    for line in archive(whole):
        path = f"designs/{line['id']}/trajectories.jsonl.gz"
        assert (folder(tmp_path) / path).read_bytes() == (folder(whole) / path).read_bytes()
    assert max(line["score"] for line in archive(whole)) > 0
