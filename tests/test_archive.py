"""The archive: sampling probabilities against numbers worked out by hand, and what never changes."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from alma import SAMPLING_RULES, Archive, Design, draw, sample, weights
from errors import UserError
from harness.config import Config


def design(name: str, score: float, visits: int = 0, state: str = "evaluated") -> Design:
    return Design(name, f"1.{name}", (), 1, state, score=score, visits=visits)


def test_probabilities_are_those_worked_out_by_hand():
    # f0 = 0.3, λ = 1, α = 0.5, T = 0.5:
    # f 0.3, 0 visits: f̂ 0.5,      J  0.5,      exp(J/T) 2.718282
    # f 0.5, 1 visit:  f̂ 0.549834, J  0.203260, exp(J/T) 1.501587
    # f 0.1, 3 visits: f̂ 0.450166, J -0.242981, exp(J/T) 0.615105
    found = weights([design("a", 0.3), design("b", 0.5, 1), design("c", 0.1, 3)], 0.3, 1.0, 0.5, 0.5)
    probabilities = [weight / sum(found) for weight in found]
    assert probabilities == pytest.approx([0.562211, 0.310568, 0.127221], abs=2e-6)


def test_first_draws_follow_the_probabilities():
    designs = [design("a", 0.3), design("b", 0.5, 1), design("c", 0.1, 3)]
    rng, drawn = random.Random(1), Counter()
    for _ in range(20_000):
        drawn[draw(designs, weights(designs, 0.3, 1.0, 0.5, 0.5), rng, 1)[0].id] += 1
    assert [drawn[name] / 20_000 for name in "abc"] == pytest.approx([0.562, 0.311, 0.127], abs=0.012)


def test_second_draw_renormalizes_over_what_is_left():
    # weights 1, 2, 3: P(second is c | first is a) = 3/5
    designs, rng = [design(name, 0.0) for name in "abc"], random.Random(2)
    pairs = Counter(tuple(one.id for one in draw(designs, [1.0, 2.0, 3.0], rng, 2)) for _ in range(30_000))
    after_a = {pair[1]: count for pair, count in pairs.items() if pair[0] == "a"}
    assert after_a["c"] / sum(after_a.values()) == pytest.approx(0.6, abs=0.02)


def test_no_design_is_drawn_twice_in_a_step_and_none_is_left_out():
    designs = [design(str(number), 0.1 * number) for number in range(4)]
    drawn = draw(designs, weights(designs, 0.2, 1.0, 0.5, 0.5), random.Random(3))
    assert sorted(one.id for one in drawn) == ["0", "1", "2", "3"]


def test_visits_are_counted_and_dropped_candidates_are_never_drawn():
    archive = Archive(f0=0.2)
    archive.add(design("good", 0.4))
    archive.add(design("bad", 0.9, state="dropped"))
    drawn = sample(archive, Config(), random.Random(0))
    assert [[parent.id for parent in parents] for parents in drawn] == [["good"]]
    assert [(line["id"], line["visits"]) for line in archive.lines()] == [("good", 1), ("bad", 0)]


def test_greedy_takes_the_best_as_often_as_there_are_places():
    archive = Archive(f0=0.2)
    for name, score in (("a", 0.1), ("b", 0.5), ("c", 0.5)):
        archive.add(design(name, score))
    drawn = sample(archive, Config(sampling="greedy"), random.Random(0))
    assert [[parent.id for parent in parents] for parents in drawn] == [["b"], ["b"], ["b"]]
    assert [line["visits"] for line in archive.lines()] == [0, 3, 0]


def test_random_sampling_ignores_scores_and_visits():
    designs = [design("a", 0.0, 9), design("b", 1.0)]
    rng, drawn = random.Random(5), Counter()
    for _ in range(4000):
        archive = Archive(f0=0.2)
        archive.designs = list(designs)
        drawn[sample(archive, Config(sampling="random"), rng)[0][0].id] += 1
    assert drawn["a"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_the_learned_design_is_the_finalist_that_is_best_over_all_its_passes():
    archive = Archive(f0=0.2)
    for name, score in (("a", 0.5), ("b", 0.6), ("c", 0.4), ("d", 0.6)):
        archive.add(design(name, score))
    archive.add(replace(design("raced", 0.9), raced=8, difference=0.5))
    finalists = archive.finalists(3)
    assert [one.id for one in finalists] == ["b", "d", "a"] and archive.best().id == "b"
    for one, final in zip(finalists, (0.1, 0.15, 0.3), strict=True):
        archive.update(one, final=final)
    assert archive.best().id == "a"  # though it was the third of the search
    assert len(archive.finalists(9)) == 4 and archive.finalists(0) == []


def test_a_raced_design_is_drawn_by_its_difference_in_the_episodes_that_it_has_played():
    raced = replace(design("a", 0.9), raced=8, difference=0.1)  # its first episodes were easy ones
    assert weights([raced], 0.3, 1.0, 0.5, 0.5) == pytest.approx(weights([design("b", 0.4)], 0.3, 1.0, 0.5, 0.5))


def test_the_learned_design_is_the_first_of_the_best():
    archive = Archive(f0=0.2)
    assert archive.best() is None
    for name, score in (("a", 0.1), ("b", 0.5), ("c", 0.5)):
        archive.add(design(name, score))
    assert archive.best().id == "b"


@pytest.mark.parametrize("rule", SAMPLING_RULES)
def test_from_an_empty_archive_each_rule_has_one_design_written_from_scratch(rule):
    assert sample(Archive(f0=0.2), Config(sampling=rule), random.Random(0)) == [[]]


def test_an_unknown_sampling_rule_is_an_error():
    with pytest.raises(UserError, match="unknown sampling rule 'best': choose from archive, greedy, random"):
        sample(Archive(f0=0.2), Config(sampling="best"), random.Random(0))


def test_a_design_whose_code_is_known_enters_as_a_duplicate():
    archive = Archive(f0=0.2)
    archive.add(design("a", 0.1))
    archive.add(replace(design("a", 0.3), raced=4))  # another race has stopped it elsewhere
    assert [(line["state"], line["score"], line["raced"]) for line in archive.lines()] == [("evaluated", 0.1, 0), ("duplicate", 0.1, 0)]


@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 0.0007), (1.0, 1e-9), (50_000.0, 0.5)])
def test_extreme_settings_of_the_sampling_draw_the_best(scale, temperature):
    designs = [design(name, score) for name, score in (("a", 0.1), ("b", 1.0), ("c", 0.15))]
    found = weights(designs, 0.2, scale, 0.5, temperature)
    assert all(math.isfinite(one) for one in found) and max(found) == found[1] > 0
    assert draw(designs, found, random.Random(0), 1) == [designs[1]]
