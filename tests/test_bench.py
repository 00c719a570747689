"""The bench measures what it says: engines, the stand-in agent, and a whole evaluation, which cannot beat its floor."""

from bench import engines, standin_episodes
from bench.latency import Setting, endpoint, measure


def test_no_evaluation_is_faster_than_its_calls_allow():
    setting = Setting(latency=0.05, in_flight=2, steps=3, tasks=4, passes=1, designs=2)
    with endpoint("babaisai", setting.latency) as url:
        row = measure("babaisai", setting, url)
    assert row["ratio"] >= 1
    assert setting.episodes == 8 and 8 <= row["calls"] <= 8 * 3


def test_each_layer_of_baba_is_ai_is_measured():
    speeds = engines.babaisai(0.01)
    assert set(speeds) == {"nothing", "world", "environment", "domain"}
    assert all(speed > 0 for speed in speeds.values())


def test_a_domain_is_measured_beside_its_bare_engine():
    rates = engines.minihack(0.01)
    assert set(rates) == {"ours", "raw", "ratio", "ours_reset_ms", "raw_reset_ms", "reset_ratio"}
    assert rates["ratio"] == rates["ours"] / rates["raw"] > 0


def test_an_episode_of_the_stand_in_agent_is_measured_without_and_with_a_memory():
    costs = standin_episodes.measure("babaisai", 0.01)
    assert costs["episodes"] >= 1
    for kind in ("", "memory_"):
        assert costs[f"{kind}episode_ms"] >= costs[f"{kind}agent_ms"] >= costs[f"{kind}action_ms"] > 0
