"""Baba Is AI: the engine against recorded traces and hand-made grids, and the 53 levels."""

import gzip
import json
import pickle
import random
import re
from collections import Counter
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from domains.babaisai import BROKEN, BabaIsAIEnv
from domains.babaisai_levels import LEVEL_COLOURS, LEVELS, ONE_ROOM_SPOTS, UNPUSHABLE, draw_level
from domains.babaisai_world import ACTIONS, KINDS, World, picture

IDLE, UP, RIGHT, DOWN, LEFT = range(5)
YOU = "t:baba t:is p:you"  # a row that makes baba YOU


def rows_of(*lines: str) -> list[list[str]]:
    """Rows with a border around them; cells are separated by spaces, "." is an empty one."""
    width = max(len(line.split()) for line in lines)
    cells = [["" if cell == "." else cell for cell in line.split()] for line in lines]
    inside = [["#", *row, *[""] * (width - len(row)), "#"] for row in cells]
    return [["#"] * (width + 2), *inside, ["#"] * (width + 2)]


def level(*lines: str) -> BabaIsAIEnv:
    return BabaIsAIEnv.from_rows(rows_of(*lines))


def play(env: BabaIsAIEnv, *actions: int):
    """Step through the actions; what the last step returned."""
    for action in actions:
        result = env.step(action)
    return result


# ------------------------------------------------------------------------------- recorded traces


@pytest.fixture(scope="module")
def traces(shared: Path) -> list[dict]:
    with gzip.open(shared / "baba_traces.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def compare(env: BabaIsAIEnv, step: dict) -> None:
    _, reward, terminated, truncated, info = env.step(ACTIONS.index(step["action"]))
    assert env.rows() == step["rows"]
    assert env.rules() == info["rules"] == step["rules"]
    assert reward == step["reward"]
    assert (terminated or truncated) == step["done"]
    assert info["step_count"] == step["step_count"]
    if step["text"] is not None and not step["auto_reset"]:
        assert env.text() == info["text"] == step["text"]


def test_every_recorded_trace_replays(traces):
    assert len(traces) == 323
    for trace in traces:
        init = trace["init"]
        env = BabaIsAIEnv.from_rows(init["rows"])
        assert (env.rows(), env.rules()) == (init["rows"], init["rules"])
        if init["text"] is not None and not init["text"].startswith(BROKEN):
            assert env.text() == init["text"]
        for step in trace["steps"]:
            compare(env, step)
            if step["auto_reset"]:
                env = BabaIsAIEnv.from_rows(step["after_reset"]["rows"])


def test_recorded_resets_happen_exactly_where_nobody_visible_is_you(traces):
    for trace in traces:
        env = BabaIsAIEnv.from_rows(trace["init"]["rows"])
        for step in trace["steps"]:
            env.step(ACTIONS.index(step["action"]))
            if step["text"] is not None:
                assert (env.world.player() is None) == step["auto_reset"]
            if step["auto_reset"]:
                env = BabaIsAIEnv.from_rows(step["after_reset"]["rows"])


def test_recorded_shortest_wins_are_the_shortest(traces):
    short = [t for t in traces if t.get("shortest") and len(t["actions"]) <= 10]
    assert len(short) > 30
    for trace in short:
        assert shortest_win(trace["init"]["rows"]) == len(trace["actions"])


def test_every_recorded_layout_is_one_that_the_generator_can_draw(traces):
    recorded: dict[str, list] = {}
    for trace in traces:
        if trace.get("env"):
            recorded.setdefault(trace["env"].removeprefix("env/"), []).append(trace["init"]["rows"])
    assert set(recorded) == set(LEVELS)
    for name, layouts in recorded.items():
        rng = np.random.default_rng(1)
        possible = set().union(*(placed(draw_level(name, rng)) for _ in range(400)))
        for rows in layouts:
            assert placed(rows) <= possible, name


def placed(rows) -> set[tuple[int, int, str]]:
    """What kind of thing lies where; which colour, and which of ball, key and door, is left out."""
    return {
        (x, y, re.sub("(?<=[co]:|t:)(ball|key|door|red|green|blue).*", "*", thing))
        for y, row in enumerate(rows)
        for x, cell in enumerate(row)
        for thing in cell.split(">")
        if thing
    }


def shortest_win(rows, limit: int = 20_000) -> int | None:
    """Steps of the shortest win, by breadth-first search; None where `limit` states are not enough."""
    seen, frontier, steps = set(), [rows], 0
    while frontier and len(seen) < limit:
        steps, reached = steps + 1, []
        for before in frontier:
            for direction in (UP, RIGHT, DOWN, LEFT):
                world = World(before)
                if world.move(direction)[0]:
                    return steps
                after = world.rows()
                key = json.dumps(after)
                if key not in seen:
                    seen.add(key)
                    reached.append(after)
        frontier = reached
    return None


# --------------------------------------------------------------------------------- moves and wins


def test_a_row_of_texts_is_pushed_together_until_the_border_holds_it():
    env = level(YOU, "o:baba:white t:door t:is .", ". . . .")
    play(env, RIGHT)
    assert env.rows()[2] == ["#", "", "o:baba:white", "t:door", "t:is", "#"]
    play(env, RIGHT)
    assert env.rows()[2] == ["#", "", "o:baba:white", "t:door", "t:is", "#"]


def test_a_text_is_held_by_what_is_stop_and_covers_what_is_not():
    env = level(f"{YOU} t:wall t:is p:stop", "o:baba:white t:door o:wall:grey")
    play(env, RIGHT)
    assert env.rows()[2][1:4] == ["o:baba:white", "t:door", "o:wall:grey"]
    env = level(f"{YOU} t:door t:is p:stop", "o:baba:white t:door o:wall:grey")
    play(env, RIGHT)
    assert env.rows()[2][1:4] == ["", "o:baba:white", "o:wall:grey>t:door"]
    assert "\nwall" not in env.text()


def test_pushing_a_text_off_a_stack_wins_on_what_it_uncovers():
    env = level(f"{YOU} t:door t:is p:win", "o:baba:white o:door:red>t:key .")
    _, reward, terminated, _, _ = play(env, RIGHT)
    assert terminated and reward == 1 - 0.9 * (1 / 100)
    assert env.rows()[2][1:4] == ["", "o:door:red>o:baba:white", "t:key"]


def test_a_text_below_a_pushed_text_keeps_the_mover_back():
    env = level(YOU, "o:baba:white t:key>t:door . .")
    play(env, RIGHT)
    assert env.rows()[2][1:4] == ["o:baba:white", "t:key", "t:door"]


def test_only_the_top_of_a_stack_leaves():
    env = level(YOU, "o:key:red>o:baba:white o:ball:red .")
    play(env, RIGHT)
    assert env.rows()[2][1:4] == ["o:key:red", "o:ball:red>o:baba:white", ""]


def test_players_side_by_side_stack_going_right_and_down_and_all_move_going_left_and_up():
    row = ". o:baba:white o:baba:white ."
    assert play_rows(row, RIGHT) == ["", "", "o:baba:white>o:baba:white", ""]
    assert play_rows(row, LEFT) == ["o:baba:white", "o:baba:white", "", ""]


def play_rows(row: str, action: int) -> list[str]:
    env = level(YOU, row)
    play(env, action)
    return env.rows()[2][1:5]


@pytest.mark.parametrize(("last", "won"), [("o:door:red", True), (".", False)])
def test_the_last_player_to_move_decides_about_winning(last, won):
    other = "." if won else "o:door:red"
    env = level(f"{YOU} t:door t:is p:win", f"o:baba:white {other}", f"o:baba:white {last}")
    assert play(env, RIGHT)[2] is won


def test_a_player_that_is_win_wins_by_any_action_but_idle_even_when_it_is_held():
    env = level(f"{YOU} t:baba t:is p:win", "o:baba:white")
    assert play(env, IDLE)[1:3] == (0.0, False)
    assert play(env, LEFT)[1:3] == (1 - 0.9 * (2 / 100), True)


def test_what_is_stop_and_win_cannot_be_won_by_bumping_into_it():
    env = level(f"{YOU} t:door t:is p:win", "t:door . . o:baba:white o:door:red", "t:is", "p:stop")
    assert play(env, RIGHT)[1:3] == (0.0, False)
    assert env.rows()[2][4] == "o:baba:white"


def test_a_rule_that_a_move_completes_counts_from_the_next_step():
    # The text arrives in "door is win" in the same step that takes the other baba onto the door.
    env = level(f"{YOU}", "o:baba:white t:door . t:is p:win", ". . . o:baba:white o:door:red")
    assert play(env, RIGHT)[2] is False
    assert env.rules() == ["baba is you", "door is win"]
    assert play(env, LEFT, RIGHT)[2] is True


def test_a_broken_stop_rule_opens_the_way():
    env = level(YOU, "t:wall t:is p:stop", "o:baba:white o:wall:grey", "")
    play(env, RIGHT)
    assert env.rows()[3][1] == "o:baba:white"
    env = level(YOU, "t:wall t:is t:key p:stop", "o:baba:white o:wall:grey")
    play(env, RIGHT)
    assert env.rows()[3][2] == "o:wall:grey>o:baba:white"


def test_lose_ends_with_minus_one_unless_the_same_step_wins():
    env = level(f"{YOU} t:door t:is p:lose", "o:baba:white o:door:red")
    assert play(env, RIGHT)[1:3] == (-1.0, True)
    env = level(f"{YOU} t:door t:is p:lose", "o:baba:white o:door:red t:door t:is p:win")
    assert play(env, RIGHT)[1:3] == (1 - 0.9 * (1 / 100), True)


def test_push_moves_objects_and_open_meeting_shut_destroys_both():
    env = level(f"{YOU} t:ball t:is p:push", "o:baba:white o:ball:red . .")
    play(env, RIGHT)
    assert env.rows()[2][1:4] == ["", "o:baba:white", "o:ball:red"]
    env = level(f"{YOU} t:baba t:is p:open", "o:baba:white o:door:red . t:door t:is p:shut")
    play(env, RIGHT)
    assert env.rows()[2][1:3] == ["", ""]


# ------------------------------------------------------------------------------------------ rules


def test_rules_are_listed_row_by_row_across_before_down_with_duplicates():
    env = level(". t:key .", "t:door t:is p:win", ". p:you .", "t:door t:is p:win", "p:stop t:is t:key")
    assert env.rules() == ["door is win", "key is you", "door is win"]


def test_nothing_reads_backwards_and_a_covered_word_says_nothing():
    assert level("p:you t:is t:baba").rules() == []
    assert level("t:baba>o:key:red t:is p:you").rules() == []


def test_a_colour_before_the_noun_takes_the_place_of_the_plain_rule():
    env = level("c:red t:key t:is p:win", ". c:blue . .", ". t:ball . .", ". t:is . .", ". p:stop . .")
    assert env.rules() == ["red key is win", "blue ball is stop"]
    assert level("c:red t:key t:is t:door").rules() == ["key is door"]


def test_one_coloured_rule_takes_the_property_from_other_colours_even_beside_a_plain_one():
    env = level("t:key t:is p:you .", "c:red t:key t:is p:you", "o:key:blue . . .", "o:key:red . . .")
    play(env, RIGHT)
    assert env.rows()[3][1:3] == ["o:key:blue", ""]
    assert env.rows()[4][1:3] == ["", "o:key:red"]


def test_what_is_you_by_its_colour_stops_a_player_that_the_scan_meets_first():
    # A step of a recorded trace: baba moves first and is stopped by the ball, then the ball moves.
    env = level("c:red t:ball t:is p:you", f". {YOU}", ". o:baba:white . .", ". o:ball:red . .", ". . . .")
    assert env.rules() == ["red ball is you", "baba is you"]
    play(env, DOWN)
    assert [env.rows()[y][2] for y in (3, 4, 5)] == ["o:baba:white", "", "o:ball:red"]


def test_the_colour_of_the_rule_alone_stops():
    env = level("c:red t:ball t:is p:you", f". {YOU}", ". o:baba:white . .", ". o:ball:blue . .", ". . . .")
    play(env, DOWN)
    assert [env.rows()[y][2] for y in (3, 4, 5)] == ["", "o:ball:blue>o:baba:white", ""]


def test_what_is_you_by_its_colour_holds_back_its_like_and_lets_other_colours_be_covered():
    env = level("c:red t:door t:is p:you", "o:door:red o:door:red o:door:green")
    play(env, RIGHT)
    assert env.rows()[2][1:4] == ["o:door:red", "", "o:door:green>o:door:red"]


def test_noun_is_noun_stacks_a_new_thing_after_each_step_but_idle():
    env = level(YOU, "t:key t:is t:door", "o:baba:white . o:key:green", ". . .")
    assert env.rows()[3][3] == "o:key:green"
    play(env, IDLE)
    assert env.rows()[3][3] == "o:key:green"
    play(env, DOWN)
    assert env.rows()[3][3] == "o:key:green>o:door:red"
    play(env, UP)
    assert env.rows()[3][3] == "o:key:green>o:door:red"


def test_transformations_follow_the_list_and_a_noun_that_is_itself_grows():
    env = level(YOU, "t:key t:is t:ball", "t:ball t:is t:wall", "o:baba:white o:key:red .", ". . .")
    play(env, DOWN)
    assert env.rows()[4][2] == "o:key:red>o:ball:green>o:wall:grey"
    env = level(YOU, "t:key t:is t:key", "o:baba:white o:key:red")
    play(env, LEFT, LEFT)
    assert env.rows()[3][2] == "o:key:red>o:key:blue>o:key:blue"


# ------------------------------------------------------------------------------------------- text


def test_the_text_of_one_room_is_the_original_s():
    env = level(
        ". t:is p:win . . .",
        ". . . . . .",
        ". . . . . .",
        "o:baba:white . . . t:door o:key:green",
        ". o:door:blue . . . .",
        "t:baba t:is p:you . . t:key",
    )
    assert env.text() == (
        "Active rules:\nbaba is you\n\nObjects on the map:\n"
        "rule `is` 1 step to the right and 3 step up\nrule `win` 2 steps to the right and 3 step up\n"
        "rule `door` 4 steps to the right\nkey 5 steps to the right\n"
        "door 1 step to the right and 1 step down\nrule `baba` 2 steps down\n"
        "rule `is` 1 step to the right and 2 steps down\nrule `you` 2 steps to the right and 2 steps down\n"
        "rule `key` 5 steps to the right and 2 steps down"
    )


def test_the_text_of_a_player_that_is_listed_has_an_empty_line_and_no_colours():
    env = level(
        "c:red t:door t:is p:you",
        "c:red t:key t:is p:win",
        "# o:key:red o:door:red #",
        "# o:key:blue o:key:green #",
    )
    assert env.text() == (
        "Active rules:\ndoor is you\nkey is win\n\nObjects on the map:\n"
        "rule `door` 1 step to the left and 2 step up\nrule `is` 2 step up\n"
        "rule `you` 1 step to the right and 2 step up\nrule `key` 1 step to the left and 1 step up\n"
        "rule `is` 1 step up\nrule `win` 1 step to the right and 1 step up\nkey 1 step to the left\n\n"
        "key 1 step to the left and 1 step down\nkey 1 step down"
    )


def test_positions_are_seen_from_the_first_thing_that_the_last_you_rule_names_whatever_its_colour():
    env = level("o:key:blue . o:key:red", "c:red t:key t:is p:you", "o:ball:red . . .")
    assert env.text().endswith("\nball 2 steps down")
    env = level(f"{YOU} . t:ball t:is p:you", "o:baba:white . o:ball:red")
    assert "rule `baba` 2 step to the left and 1 step up" in env.text()


def test_without_a_visible_player_the_text_has_no_positions():
    env = level("t:baba t:is t:key", "o:door:red . .")
    assert env.text() == "Active rules:\n\n\nObjects on the map:\nrule `baba`\nrule `is`\nrule `key`\ndoor"


def test_the_text_follows_a_change_of_what_is_covered():
    env = level(YOU, "o:baba:white . o:key:red", "t:key t:is t:ball")
    before = env.text()
    play(env, DOWN)  # held by the border below the texts, yet the key turns into a ball
    assert before.replace("\nkey", "\nball") == env.text()


# ------------------------------------------------------------------------------ gymnasium's side


def test_a_win_at_step_twenty_gives_what_the_original_gives_and_steps_go_on_after_the_end():
    env = level(f"{YOU} t:door t:is p:win", "o:baba:white o:door:red")
    play(env, *[IDLE] * 19)
    _, reward, terminated, truncated, info = play(env, RIGHT)
    assert (reward, terminated, truncated, info["step_count"]) == (0.82, True, False, 20)
    assert play(env, IDLE)[1:3] == (0.0, False)
    assert play(env, *[IDLE] * 78)[3] is False
    assert play(env, IDLE)[3] is True


def test_the_array_observation_has_the_original_s_codes():
    env = level("t:baba t:is p:you", "o:baba:white o:key:blue c:red", ". t:wall o:wall:grey")
    array = env.reset(seed=0)[0]
    assert array.shape == (5, 5, 3) and array.dtype == np.uint8
    column = [array[x, 1].tolist() for x in range(5)]
    assert column == [[2, 5, 0], [17, 21, 0], [18, 15, 0], [19, 16, 0], [2, 5, 0]]
    assert array[1:4, 2].tolist() == [[15, 6, 0], [14, 2, 0], [20, 0, 0]]
    assert array[1:4, 3].tolist() == [[1, 0, 0], [17, 7, 0], [12, 5, 0]]


@pytest.mark.parametrize("name", ["you_win", "env/goto_win", "two_room-make_you-make_win"])
@pytest.mark.filterwarnings("ignore:.*alternative render modes.*")
@pytest.mark.filterwarnings("error")
def test_gymnasium_s_checker_accepts_the_environment(name):
    for mode in (None, "ansi", "rgb_array"):
        check_env(BabaIsAIEnv(name, render_mode=mode))


def test_the_seed_decides_the_layout_and_no_seed_draws_another():
    env = BabaIsAIEnv("goto_win")
    first = (env.reset(seed=3), env.rows())[1]
    second = (env.reset(), env.rows())[1]
    assert second != first
    assert (env.reset(seed=3), env.rows())[1] == first
    assert (env.reset(), env.rows())[1] == second


def test_the_global_generators_neither_matter_nor_move():
    np.random.seed(0)
    random.seed(0)
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    env = BabaIsAIEnv("make_win")
    env.reset(seed=1)
    assert (np.random.get_state()[1] == numpy_state).all() and random.getstate() == python_state


def test_a_level_of_one_s_own_is_ready_to_step_comes_back_on_reset_and_can_be_pickled():
    rows = rows_of(YOU, "o:baba:white .")
    env = BabaIsAIEnv.from_rows(rows)
    start = env.rows()
    assert start == rows
    play(env, RIGHT)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.rows() == env.rows() != start
    env.reset()
    assert env.rows() == start and env.step_count == 0


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: BabaIsAIEnv("goto_loose"), "two_room-make_wall_win"),
        (lambda: BabaIsAIEnv(None), "goto_win"),
        (lambda: BabaIsAIEnv("goto_win", add_ruleset=True), "level, render_mode, max_steps"),
        (lambda: BabaIsAIEnv(render_mode="human"), "rgb_array"),
        (lambda: BabaIsAIEnv(max_steps=0), "max_steps"),
        (lambda: BabaIsAIEnv.from_rows([["#", "#"], ["#", "o:cat:red"]]), "o:baba:white"),
        (lambda: BabaIsAIEnv.from_rows([["#", "#"], ["#"]]), "length"),
        (lambda: BabaIsAIEnv.from_rows([]), "length"),
        (lambda: BabaIsAIEnv.from_rows([["t:is"]]), "border"),
        (lambda: play(level(YOU), 5), "idle, up, right, down, left"),
    ],
)
def test_a_mistake_is_answered_with_what_would_have_been_right(make, named):
    with pytest.raises((ValueError, TypeError), match=named) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_step_before_the_first_reset_says_so():
    with pytest.raises(gymnasium.error.ResetNeeded):
        BabaIsAIEnv().step(IDLE)


def test_pictures_show_what_the_grid_holds():
    env = BabaIsAIEnv("two_room-make_you", render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (9 * 24, 13 * 24, 3) and before.dtype == np.uint8
    assert len(np.unique(before.reshape(-1, 3), axis=0)) >= 5
    for thing in KINDS:  # every thing has a picture
        assert picture(World([["#"] * 3, ["#", thing, "#"], ["#"] * 3])).shape == (72, 72, 3)


# ----------------------------------------------------------------------------------------- levels


def test_every_level_starts_with_its_rules_and_ends_after_a_hundred_steps():
    rng = random.Random(0)
    for name in LEVELS:
        env = BabaIsAIEnv(name)
        observation, info = env.reset(seed=5)
        assert observation.shape == env.observation_space.shape
        assert any(rule.endswith(" is you") for rule in info["rules"])
        whole = ("break_stop", "make_you", "make_wall_win")
        assert ("wall is stop" in info["rules"]) == any(part in name for part in whole)
        ended = [False]
        while not ended[-1]:
            _, _, terminated, truncated, info = env.step(rng.randrange(5))
            ended.append(terminated or truncated)
        assert truncated or terminated
        assert info["step_count"] <= 100


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("you_win", 5), ("you_win-fixed_you", 5), ("goto_win", 5), ("two_room-goto_win-distr_obj", 3),
     ("two_room-maybe_break_stop-goto_win", 2), ("two_room-break_stop-goto_win", 1)],
)  # fmt: skip
def test_levels_can_be_won(name, seeds):
    for seed in range(seeds):
        steps = shortest_win(draw_level(name, np.random.default_rng(seed)))
        assert steps is not None
        assert steps == 1 or "you_win" not in name


def tops(rows) -> Counter:
    return Counter(cell.split(">")[-1] for row in rows for cell in row if cell)


def rate(name: str, event, draws: int = 3000) -> float:
    rng = np.random.default_rng(0)
    return sum(bool(event(draw_level(name, rng))) for _ in range(draws)) / draws


def covered(rows, first: str) -> bool:
    """Whether something whose code starts with `first` lies under another thing."""
    return any(thing.startswith(first) for row in rows for cell in row for thing in cell.split(">")[:-1])


def test_words_cover_things_as_often_as_in_the_original():
    name = "goto_win-distr_win_rule"
    assert rate(name, lambda rows: covered(rows, "o:baba")) == pytest.approx(0.110, abs=0.02)
    assert rate(name, lambda rows: covered(rows, "o:") and not covered(rows, "o:baba")) <= 0.219
    assert rate(name, lambda rows: covered(rows, "o:")) == pytest.approx(0.29, abs=0.025)
    # One of nine cells for the distracting noun, two of twelve for the noun of the broken rule.
    goto, make = "two_room-goto_win-distr_win_rule", "two_room-make_win-distr_win_rule"
    assert rate(goto, lambda rows: covered(rows, "t:")) == pytest.approx(1 / 9, abs=0.02)
    assert rate(make, lambda rows: covered(rows, "t:")) == pytest.approx(1 - 8 / 9 * 10 / 12, abs=0.03)
    for other in set(LEVELS) - {n for n in LEVELS if "distr_win_rule" in n}:
        assert rate(other, lambda rows: covered(rows, "o:") or covered(rows, "t:"), draws=20) == 0, other


def test_the_text_of_you_win_uses_a_wrong_object_in_a_third_of_layouts_and_never_where_you_is_fixed():
    def wrong(rows) -> bool:
        env = BabaIsAIEnv.from_rows(rows)
        at = env.world.player()
        colour, noun = rows[1][1][2:], rows[1][2][2:]
        return rows[at // 6][at % 6] != f"o:{noun}:{colour}"

    assert rate("you_win", wrong) == pytest.approx(0.33, abs=0.04)
    assert rate("you_win-fixed_you", wrong) == 0


def where(name: str, thing: str, draws: int = 1500) -> Counter:
    rng = np.random.default_rng(2)
    places = Counter()
    for _ in range(draws):
        rows = draw_level(name, rng)
        places.update((x, y) for y, row in enumerate(rows) for x, cell in enumerate(row) if thing in cell)
    return places


def rectangle(x0: int, y0: int, x1: int, y1: int) -> set[tuple[int, int]]:
    return {(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}


def test_things_lie_in_their_regions():
    assert set(where("goto_win", "o:baba")) == rectangle(1, 2, 6, 6) - rectangle(1, 6, 3, 6)
    assert set(where("two_room-goto_win", "o:baba")) == rectangle(2, 3, 5, 5)
    assert set(where("two_room-make_you", "o:baba")) == rectangle(2, 3, 4, 5)
    assert set(where("two_room-break_stop-goto_win", "o:ball")) == rectangle(7, 2, 10, 7)
    assert set(where("two_room-goto_win", "o:ball")) <= rectangle(1, 1, 4, 7)
    anywhere = set(where("two_room-maybe_break_stop-goto_win", "o:ball", 3000))
    texts_and_walls = rectangle(1, 2, 3, 2) | rectangle(1, 7, 3, 7) | rectangle(6, 2, 6, 7)
    assert anywhere == rectangle(1, 2, 11, 7) - texts_and_walls
    assert set(where("make_win", "t:ball")) == rectangle(2, 2, 5, 5)
    assert set(where("two_room-make_win", "t:key")) == rectangle(7, 3, 10, 5)
    assert set(where("two_room-make_wall_win", "t:key")) == set(UNPUSHABLE) | rectangle(8, 3, 10, 5)
    assert set(where("two_room-break_stop-goto_win-distr_obj_rule", "t:key")) == {*UNPUSHABLE, (9, 1)}


def test_a_distracting_noun_prefers_the_two_corners():
    places = where("goto_win-distr_rule", "t:door", 6000)
    del places[(1, 1)]  # there it is the win object's
    assert set(places) == set(ONE_ROOM_SPOTS)
    corners = places[(6, 1)] + places[(6, 6)]
    assert corners / places.total() == pytest.approx(4 / 12, abs=0.04)


def test_the_win_object_of_you_win_is_either_neighbour_of_the_player():
    def beside(rows) -> bool:
        return rows[3][3] == f"o:{rows[2][2][2:]}:{rows[2][1][2:]}"

    assert rate("you_win-fixed_you", beside) == pytest.approx(0.5, abs=0.04)
    assert set(where("you_win", "o:")) == rectangle(2, 3, 3, 4)


def test_is_and_stop_are_moved_away_equally_often():
    stop = rate("two_room-goto_win", lambda rows: rows[2][3] != "p:stop")
    assert stop == pytest.approx(0.5, abs=0.04)
    assert rate("two_room-goto_win", lambda rows: rows[2][2] != "t:is") == pytest.approx(1 - stop)


def test_the_win_object_is_a_ball_or_is_none_where_the_level_says_so():
    assert rate("make_win-distr_obj#only_ball_win", lambda rows: tops(rows)["t:ball"] == 1) == 1
    assert rate("make_win#no_ball_win", lambda rows: tops(rows)["t:ball"] == 0) == 1
    assert rate("make_win", lambda rows: tops(rows)["t:ball"]) == pytest.approx(1 / 3, abs=0.04)


def test_objects_come_in_the_three_colours():
    for colour in LEVEL_COLOURS:
        objects = [f"o:{noun}:{colour}" for noun in ("ball", "door", "key")]
        red_blue_or_green = rate("make_win", lambda rows, of=objects: any(tops(rows)[o] for o in of))
        assert red_blue_or_green == pytest.approx(1 / 3, abs=0.04)
