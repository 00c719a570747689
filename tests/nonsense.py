"""The four domains in an invented language: every word that carries meaning is swapped for another.

Promises: games, tasks and seeds are those of the domain; what the agent and the designs read (observations,
goals, actions, descriptions) has each content word replaced by one invented word, wherever it stands; what
the agent answers is put back before the engine hears it. The words of English grammar, of negation and of
scores stay, and so do numbers, single letters, keys in square brackets and NetHack's map. No list
of a game's words is needed: what is no grammar is swapped.

Try it: `python alma.py play --env tests.nonsense:ALFWorld`; `python -m tests.nonsense` writes the domains'
descriptions anew (`nonsense_<name>.md`) after the original ones have changed.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from domains.alfworld import ALFWorld as ALFWorldDomain
from domains.babaisai import BabaIsAI as BabaIsAIDomain
from domains.minihack import MiniHack as MiniHackDomain
from domains.textworld import TextWorld as TextWorldDomain
from envs import Domain, Task
from standins.prompt import stem

# The closed classes of English, and nothing else: these words stay.
_GRAMMAR = (
    # articles, quantities, pronouns
    "a an the this that these those some any all each every both either neither one ones two more most much many "
    "other others another such only own same few less least several enough i me my mine myself we us our ours you "
    "your yours yourself he him his himself she her hers herself it its itself they them their theirs themselves "
    "who whom whose what which something anything everything somebody anybody everybody "
    # prepositions, conjunctions
    "of to in on at by for from with into onto upon over under above below about against between through "
    "during before after until since out off as like than per via and or but if then because so while though "
    "although whether unless "
    # auxiliaries, and what is left of them beside an apostrophe
    "is am are was were be been being do does did done doing has have had having can could will would may might "
    "shall should must ought ll ve re "
    # adverbs of grammar
    "when where how why there here now just also very too again once ever yet else rather quite almost "
    # negation
    "no not none nor never nothing nobody nowhere without cannot don doesn didn isn aren wasn weren hasn haven "
    "hadn couldn wouldn shouldn mustn "
    # what the prompts call scores and valid actions
    "reward score success won outcome result valid action actions"
)
GRAMMAR = frozenset(_GRAMMAR.split())
COMPASS = re.compile(r"(?:north|south|east|west)+")  # words whose parts carry meaning
CONSONANTS, VOWELS = "bcfhjklmnpqrtvwxz", "aeiou"  # so that no word has an ending by chance
KEPT = re.compile(r"(\[[^\]\n]*\]|\nmap:\n.*)", re.S)  # keys to choose from; a map of characters
WORD = re.compile(r"[A-Za-z]{2,}")


# ----------------------------------------------------------------------------------- the language


@lru_cache(maxsize=100_000)
def invent(word: str) -> str:
    """The invented word for a lower-case word: parts of the compass, plural and tense stay visible."""
    if word in GRAMMAR:
        return word
    if COMPASS.fullmatch(word):
        return "".join(map(_root, re.findall("north|south|east|west", word)))
    short = stem(word)  # what the stand-in takes for one word is one word here
    ending = next((end for end in ("ing", "ed", "s") if word.endswith(end)), "") if short != word else ""
    return _root(short) + ending


def _root(word: str) -> str:
    """Seven letters that depend on nothing but the word."""
    number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    letters = []
    for choices in (CONSONANTS, VOWELS, CONSONANTS, VOWELS, CONSONANTS, VOWELS, CONSONANTS):
        number, place = divmod(number, len(choices))
        letters.append(choices[place])
    return "".join(letters)


def _like(word: str, model: str) -> str:
    """A word in upper or lower case like another."""
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


@lru_cache(maxsize=20_000)
def tell(text: str) -> str:
    """A text of a domain in invented words."""
    parts = KEPT.split(text)
    parts[::2] = [WORD.sub(lambda found: _like(invent(found[0].lower()), found[0]), part) for part in parts[::2]]
    return "".join(parts)


def tell_all(value):
    """The same for every text in a JSON value; the keys of a list of actions are texts too."""
    if isinstance(value, dict):
        return {tell(key): tell_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tell_all(item) for item in value]
    return tell(value) if isinstance(value, str) else value


def told_words(value) -> frozenset[str]:
    """The lower-case words that `tell_all` would swap."""
    if isinstance(value, str):
        found = (word.lower() for part in KEPT.split(value)[::2] for word in WORD.findall(part))
        return frozenset(found) - GRAMMAR
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return frozenset().union(*map(told_words, parts))


# ------------------------------------------------------------------------------------ the domains


class Nonsense(Domain):
    """A domain in invented words. Arguments, spaces and `info` are those of the domain.

    The engine hears a word of an action only if the description or this episode has told it.
    """

    original: ClassVar[type[Domain]]

    @classmethod
    def tasks(cls) -> list[Task]:
        return cls.original.tasks()  # whose seeds depend on the original's name

    def reset(self, *, seed=None, options=None):
        self._meanings: dict[str, str] = {}  # of each invented word
        self._learn(description(self.original))
        text, info = super().reset(seed=seed, options=options)
        return tell(text), self._told(info)

    def step(self, action: str):
        heard = WORD.sub(lambda found: _like(self._meaning(found[0].lower()), found[0]), action)
        text, reward, terminated, truncated, info = super().step(heard)
        return tell(text), reward, terminated, truncated, self._told(info)

    def _meaning(self, word: str) -> str:
        """The domain's word; an invented one, which the engine does not know, for what is not of the language."""
        return self._meanings.get(word) or invent(word)

    def _learn(self, value) -> None:
        self._meanings |= {invent(word): word for word in told_words(value)}

    def _told(self, info: dict) -> dict:
        record = {key: tell_all(value) for key, value in info["record"].items()}
        for value in (*info["record"].values(), info["now"], info["actions"], info["goal"]):
            self._learn(value)
        return info | {"record": record} | {key: tell_all(info[key]) for key in ("now", "actions", "goal")}


class ALFWorld(Nonsense, ALFWorldDomain):
    name = "nonsense_alfworld"
    original = ALFWorldDomain


class TextWorld(Nonsense, TextWorldDomain):
    name = "nonsense_textworld"
    original = TextWorldDomain


class BabaIsAI(Nonsense, BabaIsAIDomain):
    name = "nonsense_babaisai"
    original = BabaIsAIDomain
    action_descriptions = tell_all(BabaIsAIDomain.action_descriptions)


class MiniHack(Nonsense, MiniHackDomain):
    name = "nonsense_minihack"
    original = MiniHackDomain

    def reset(self, *, seed=None, options=None):
        told = super().reset(seed=seed, options=options)
        self.action_descriptions = tell_all(self.action_descriptions)  # each task has its own
        return told


DOMAINS = {cls.original.name: cls for cls in (ALFWorld, TextWorld, BabaIsAI, MiniHack)}


def description(domain: type[Domain]) -> str:
    """What the agents are told of one of the four domains, in English."""
    return domain.description()


def main() -> None:
    """Write the descriptions of the domains in invented words."""
    for cls in DOMAINS.values():
        path = Path(__file__).with_name(f"{cls.name}.md")
        path.write_text(tell(description(cls.original)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
