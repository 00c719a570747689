"""The bench measures what it says: a whole evaluation, which cannot beat its floor."""

from bench.latency import Endpoint, Setting, measure


def test_no_evaluation_is_faster_than_its_calls_allow():
    setting = Setting(latency=0.05, in_flight=2, steps=3, tasks=4, passes=1, designs=2)
    with Endpoint("babaisai", setting.latency) as url:
        row = measure("babaisai", setting, url)
    assert row["ratio"] >= 1
    assert setting.episodes == 8 and 8 <= row["calls"] <= 8 * 3
