"""Nothing in the stand-ins is keyed to a word of a domain: all four play the same in an invented language."""

import re
from dataclasses import replace
from functools import cache
from statistics import mean

import pytest

import envs
from envs import Task
from memory_base import MemoryDesign, Trajectory
from prompts.evidence import read_episodes
from standins import prompt, sketch
from tests import nonsense
from tests.runs import archive, finish, folder, start
from tests.test_standin_agent import episode, halves
from tests.test_standin_memory import design, retrieved

# Domain: families of tasks that are short, or in which the agent is told most.
PLAYED = {
    "alfworld": "pick_heat_then_place_in_recep pick_and_place_simple pick_clean_then_place_in_recep",
    "textworld": "cooking",
    "babaisai": "goto_win two_room-goto_win you_win two_room-maybe_break_stop-goto_win",
    "minihack": "Eat Wear Zap Wield PutOn",
}
MOST = 3  # tasks of each half


@cache
def learned(domain: str) -> tuple[list[Trajectory], MemoryDesign]:
    """Episodes in English, and what all layers of a sketch learn from them."""
    collection, _ = halves(domain, PLAYED[domain], MOST)
    collected = [episode(domain, task, f"collection {number}") for task in collection for number in range(2)]
    return collected, all_layers(collected)


def all_layers(collected: list[Trajectory]) -> MemoryDesign:
    return design(replace(sketch.read(""), layers=tuple(sketch.LAYERS)).code(), collected)


@pytest.mark.parametrize("domain", PLAYED)
def test_the_agent_makes_the_same_choices_in_invented_words(domain, monkeypatch):
    """Step by step, without and with a memory; of equally good actions it takes the first that is listed."""
    monkeypatch.setattr("standins.agent.noise", lambda *parts: 0.0)
    env, compared = f"tests.nonsense:{nonsense.DOMAINS[domain].__name__}", []

    def same(task: Task, told: object) -> Trajectory:
        english, invented = episode(domain, task, "0", told), episode(env, task, "0", nonsense.tell_all(told))
        made = [[step["action_took"] for step in one.steps] for one in (english, invented)]
        assert made[1] == [nonsense.tell(action) for action in made[0]], task.id
        assert invented.reward == english.reward
        compared.extend(made[0])
        return english

    _, memory = learned(domain)
    _, deployment = halves(domain, PLAYED[domain], MOST)
    for task in deployment[: 3 if domain == "babaisai" else 2]:
        told = retrieved(memory, same(task, ""))
        assert told
        same(task, told)
    assert len(compared) > 40


@pytest.mark.parametrize("domain", PLAYED)
def test_the_layers_learn_the_same_in_invented_words(domain):
    """Of what is as good, the first in the alphabet is told: there the languages differ."""
    collected, english = learned(domain)
    invented = all_layers(list(map(swapped, collected)))
    known = frozenset().union(*(nonsense.told_words([one.init, *one.steps]) for one in collected))

    def translate(text: str) -> str:  # but for what is the designs' own, as in "go to"
        return re.sub(r"[a-z]+", lambda found: nonsense.invent(found[0]) if found[0] in known else found[0], text)

    shares = []
    for one in collected:
        expected, got = items(retrieved(english, one), translate), items(retrieved(invented, swapped(one)), str)
        assert expected
        shares.append(len(expected & got) / len(expected | got))
    assert mean(shares) > 0.7


def swapped(one: Trajectory) -> Trajectory:
    """The same episode as it is told in invented words."""
    records = [{key: nonsense.tell_all(value) for key, value in record.items()} for record in (one.init, *one.steps)]
    return Trajectory(records[0], records[1:], one.reward)


def items(told: dict, translate) -> set[tuple[str, str]]:
    """Each thing that a design told, with its layer's title."""
    found = set()
    for title, part in told.items():
        pairs = part.items() if isinstance(part, dict) else [("", part)]
        found |= {(title, translate(f"{name}: {item}")) for name, group in pairs for item in group}
    return found


# ----------------------------------------------------------------------------------- the swapped domains


@cache
def start_of_games(domain: str) -> frozenset[str]:
    """The words of the first observations, goals and actions of a domain, one task of some kinds."""
    env, found = nonsense.DOMAINS[domain].original(), frozenset()
    kinds = {}
    for task in [*halves(domain, PLAYED[domain], MOST)[0], *(task for task in env.tasks() if task.split == "test")]:
        kinds.setdefault(task.family, task)
    for task in [*kinds.values()][:8]:
        text, info = env.reset(seed=task.seed, options={"task": task.id})
        found |= nonsense.told_words([text, info["now"], info["goal"], *info["actions"], info["record"]])
    env.close()
    return found


@pytest.mark.parametrize("domain", nonsense.DOMAINS)
def test_each_word_of_a_domain_has_one_invented_word_and_no_two_share_one(domain):
    words = start_of_games(domain) | nonsense.told_words(envs.domain_class(domain).description())
    invented = {word: nonsense.invent(word) for word in words}
    assert len(set(invented.values())) == len(words) > 60
    assert not set(invented.values()) & (words | nonsense.GRAMMAR)
    same = {prompt.stem(word): set() for word in words}
    for word in words:
        same[prompt.stem(word)].add(prompt.stem(invented[word]))
    compass = {word for word in same if nonsense.COMPASS.fullmatch(word)}
    assert all(len(same[word]) == 1 for word in same.keys() - compass)  # plural and tense are seen as before


@pytest.mark.parametrize("domain", nonsense.DOMAINS)
def test_every_invented_action_is_the_engines_and_no_english_one_is(domain):
    cls = nonsense.DOMAINS[domain]
    task = next(task for task in cls.tasks() if task.split == "test")
    engine, env = cls.original(), cls()
    options = {"task": task.id}
    text, told = engine.reset(seed=1, options=options)
    assert env.reset(seed=1, options=options)[0] == nonsense.tell(text) != text
    for number in range(12):
        action = told["actions"][number % len(told["actions"])]
        *_, told = engine.step(action)
        text, *_, info = env.step(nonsense.tell(action))
        assert info["valid"] and info["record"]["obs" if "obs" in info["record"] else "long_term_context"] == text
        assert info["actions"] == [nonsense.tell(one) for one in told["actions"]]
    assert not env.step(next(one for one in told["actions"] if nonsense.tell(one) != one))[4]["valid"]
    engine.close()
    env.close()


@pytest.mark.parametrize("domain", nonsense.DOMAINS)
def test_invented_descriptions_are_up_to_date(domain):
    kept = nonsense.DOMAINS[domain].description()
    assert kept == nonsense.tell(envs.domain_class(domain).description()), "python -m tests.nonsense writes them"


def test_the_words_that_the_stand_ins_skip_are_grammar():
    assert nonsense.GRAMMAR | {"s", "t"} >= prompt.STOP
    small = re.search(r'SMALL = "(.*?)"', sketch.LIBRARY)[1]
    assert set(small.split()) <= nonsense.GRAMMAR


def test_a_whole_run_in_invented_words_shows_no_english_one(tmp_path):
    small = ["--steps", "2", "--tasks", "10", "--passes", "2", "--collection-passes", "3", "--folds", "1", "--finalists", "0", "--plain", "--yes"]
    finish(start("learn", "--env", "tests.nonsense:BabaIsAI", *small, "--runs", tmp_path))
    assert len({line["id"] for line in archive(tmp_path) if line["state"] == "evaluated"}) > 1
    (path, *_) = (folder(tmp_path) / "designs").glob("*/trajectories.jsonl.gz")
    episodes = [one["trajectory"] for one in read_episodes(path.parent)]
    records = [record for one in episodes for record in (one["init"], *one["steps"])]
    seen = nonsense.told_words([text for record in records for text in record.values()])
    english = start_of_games("babaisai")
    assert {nonsense.invent(word) for word in ("wall", "rule", "left")} <= seen and not seen & english
