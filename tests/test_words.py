"""What the tables and sentences of a run say of experience, of luck and of how the learned design was chosen."""

import random
import re

import pytest

from report import words

NOTHING = (0.0, 0.0, 0.0)


def found(no_memory, none, one, every, spread=0.05):
    """As `score.experience` of these success rates in percent, with intervals of `spread` to each side."""

    def difference(value):
        return value / 100, value / 100 - spread, value / 100 + spread

    return {"none": none / 100, "one": one / 100, "all": every / 100, "gives": difference(every - one),
            "brought": difference(one - no_memory), "wakes": difference(one - none)}


@pytest.mark.parametrize(  # SPEC.md section 4: no memory, after no episode, one, all
    ("rates", "said"),
    [
        ((16, 74, 74, 74), "58 of 58 points come from the code: this is a solver"),
        ((18, 18, 51, 50), "33 points come from the code (+32 in all): this is a solver behind a check for an empty memory"),
        ((37, 35, 35, 59), "24 points come from experience (+22 in all): this is a memory"),
        ((25, 25, 51, 90), "39 of 65 points come from experience, 26 from the code: this is a memory that also brings something along"),
    ],
)  # fmt: skip
def test_a_memory_is_told_from_a_solver(rates, said):
    assert words.experience_words(found(*rates), noise=0.04) == said


def test_what_experience_takes_away_and_what_is_not_shown_is_said_as_it_is():
    assert words.experience_words(found(10, 40, 40, 30)) == "30 points come from the code (+20 in all): this is a solver"
    assert words.experience_words(found(40, 25, 25, 60)) == "35 points come from experience (+20 in all): this is a memory"
    nothing = "neither a memory nor a solver is shown: +3.0 points from experience, +2.0 from the code"
    assert words.experience_words(found(10, 12, 12, 15)) == nothing
    assert words.experience_words(found(10, 10, 10, 10)).endswith("+0.0 points from experience, +0.0 from the code")
    noise = "neither a memory nor a solver is shown: +9.0 (noise) points from experience, -1.0 (noise) from the code"
    assert words.experience_words(found(10, 9, 9, 18), noise=0.1) == noise
    assert words.experience_words(found(20, 5, 5, 5)).endswith("+0.0 points from experience, -15.0 from the code")


@pytest.mark.parametrize("seed", range(20))
def test_the_points_of_a_memory_and_its_code_add_up_to_what_both_give(seed):
    rng = random.Random(seed)
    none, one, every = sorted(rng.uniform(0, 100) for _ in range(3))
    said = words.experience_words(found(none, none, one, every, spread=0.0))
    given, total, code = map(int, re.match(r"(\d+) of (\d+) points come from experience, (\d+) from the code", said).groups())
    assert given + code == total == round(every - none)


def test_a_difference_that_chance_alone_makes_is_called_noise_wherever_it_is_shown():
    assert words.points(0.03, 0.04) == "+3.0 (noise)" and words.points(-0.05, 0.04) == "-5.0"
    assert words.points(0.0, 0.04) == words.points(1e-17, 0.04) == "+0.0" and words.points(None, 0.04) == "–"
    assert words.verdict((0.01, 0.05), 0.03, 0.04) == "noise" and words.verdict((0.01, 0.05), 0.03) == "better"
    assert words.verdict((0.0, 0.0), 0.0, 0.04) == "no difference shown"
    assert "No more than noise apart from no memory (95 % interval" in words.shrinkage_words(0.1, 0.03, (0.01, 0.05), 0.04)
    assert words.noise_words(None) == ""
    said = words.noise_words({"difference": 0.01, "interval": (-0.02, 0.04), "noise": 0.04})
    assert "+1.0 [-2.0, +4.0] points; a difference of less than 4.0 points is called noise" in said


SCORE = {"mean": 0.4, "stderr": 0.02, "difference": 0.03, "interval": [0.01, 0.05], "retrieved_tokens": 9, "steps": 3,
         "memory_calls": 12, "usd": 0.0}
LUCK = {"difference": 0.01, "interval": [-0.02, 0.04], "noise": 0.04}


def test_below_a_design_stand_its_three_scores_and_whether_it_is_a_memory_and_below_the_table_what_chance_does():
    scores = {"no_memory": {**SCORE, "difference": 0.0}, "mine.py": {**SCORE, "experience": found(37, 35, 36, 59)}}
    head, _, mine, none, one, every, said, chance = words.table(scores, LUCK).splitlines()
    assert re.match(r"mine +40\.0 ±  2\.0  noise +\+3\.0 \[", mine) and head.startswith("memory ")
    assert none.split() == ["after", "no", "episode", "35.0"]
    assert re.fullmatch(r"  after one episode +36\.0 +-1\.0 \(noise\) \[-6\.0, \+4\.0\] to no memory: the code", one)
    assert re.fullmatch(r"  after all episodes +59\.0 +\+23\.0 \[\+18\.0, \+28\.0\] to one episode: experience", every)
    assert said == "  23 points come from experience (+22 in all): this is a memory"
    assert chance == words.noise_words(LUCK)


def test_memories_with_whom_most_answers_were_no_actions_share_one_line():
    bad = {**SCORE, "invalid": 0.7, "example": "I think"}
    [line] = words.notes({"a": bad, "b": {**bad, "invalid": 0.6, "example": ""}, "c": SCORE}, {"a": "a", "b": "b", "c": "c"})
    assert line == 'a: 70.0 %, b: 60.0 % of the agent\'s answers were no valid actions, for example "I think"'


def finalists(*rows):
    return [dict(zip(("id", "search", "fresh", "final"), row, strict=True)) for row in rows]


RESULT = {"labels": [], "models": {"agent": "offline"}, "learned": "bbb", "designs": 7, "score": 0.44, "no_memory": 0.3,
          "folder": "runs/x", "objective": "score", "noise": {"learning": LUCK, "test": LUCK},
          "finalists": finalists(("aaa", 0.2, 0.02, 0.11), ("bbb", 0.14, 0.12, 0.13), ("ccc", 0.14, 0.08, 0.11))}


def test_a_run_says_that_the_finalists_chose_the_learned_design_and_what_was_left_of_their_leads():
    lines = words.summary({**RESULT, "test": {"no_memory": SCORE, "learned design": SCORE}}).splitlines()
    assert (
        "learned design: bbb, chosen from 7 designs as the best of 3 finalists over all passes; learning set: "
        "44.0 %, no memory 30.0 % (+14.0 points, over all passes +13.0)"
    ) in lines
    assert any("+3.0 points on the test set and +13.0 on the learning set" in one and "No more than noise" in one for one in lines)
    start = next(place for place, one in enumerate(lines) if one.startswith("finalists, measured again"))
    assert "lead over no memory in points, learning set" in lines[start]
    assert lines[start + 2].split() == ["aaa", "+20.0", "+2.0", "(noise)", "+11.0"]
    assert lines[start + 3].split() == ["bbb", "+14.0", "+12.0", "+13.0", "learned"]
    # 18, 2 and 6 points less; one of three is better
    last = "on fresh seeds the finalists have 8.7 points less on average, the best of the search 18.0 points less; over all passes it is number 2 of 3"
    assert lines[start + 5] == last and lines[start + 6] == words.noise_words(LUCK)


def test_a_search_for_experience_says_so_and_one_without_finalists_has_no_table():
    text = words.summary({**RESULT, "objective": "experience"})
    assert "as the best of 3 finalists over all passes by what experience gives; learning set" in text
    assert "fresh seeds; what experience gives in points" in text and "over all passes +13.0" not in text
    text = words.summary({**RESULT, "finalists": []})
    assert "learned design: bbb, the best of 7; learning set" in text and "finalists" not in text


def test_finalists_that_are_equal_share_a_place():
    same = finalists(("aaa", 0.2, 0.2, 0.2), ("bbb", 0.2, 0.2, 0.2))
    said = "on fresh seeds the finalists have as much on average, the best of the search as much; over all passes it is still the best"
    assert words.fresh_words(same) == said


def test_a_design_that_failed_is_named_below_the_table_with_its_error():
    scores = {"a.py": {"errors": ['27 × retrieve: error: File "design.py", line 4\n  them in\n  ^^^\nSyntaxError: invalid syntax']}, "b": {"errors": []}}
    (note,) = words.notes(scores, {"a.py": "a.py", "b": "b"})
    assert note.startswith("a.py failed") and "27 × retrieve" in note and note.endswith("SyntaxError: invalid syntax")
