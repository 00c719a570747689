"""Stand-ins for the models, so that the whole method runs with no key and no network.

Promises: each answer follows from the text of the prompt (and the seed) alone, in every process and
on every machine. The agent is in `offline_agent.py`, the meta agent in `offline_meta.py`, the models
inside memory designs are here. It does not promise to be clever: these are no language models, and
their scores are no reproduction of anything but the loop around them.

Try it: `python -c "import offline; print(offline.chat('memory', [{'role': 'user', 'content': 'A key opens a door.'}]))"`
"""

import hashlib
import itertools
import json
import math
import re
from functools import lru_cache

from standins.agent import act
from standins.text import NEGATIVE, tokens, words


def chat(role: str, messages: list[dict], schema: dict | None = None, seed: int = 0) -> str:
    """The answer of the stand-in for `role` ("agent", "memory" or "meta") to chat messages."""
    if role == "agent":
        return act(messages, seed)
    if role == "meta":
        from standins import meta as offline_meta

        return offline_meta.answer(messages, schema, seed)
    return extract(messages, schema)


# ------------------------------------------------------------------- models inside memory designs


def extract(messages: list[dict], schema: dict | None) -> str:
    """The sentences and pairs of the last message that carry most, in the form of the schema."""
    text = messages[-1]["content"]
    asked = words(" ".join(m["content"] for m in messages if m["role"] == "system"))
    ranked = _ranked(text, asked)
    if schema is None:
        return "\n".join(ranked[:6])
    return json.dumps(_fill(schema, ranked, text), ensure_ascii=False)


def _ranked(text: str, asked: frozenset[str]) -> list[str]:
    """Sentences, those first whose words come back in the text and were asked for."""
    sentences = [part.strip(" -*>\"'{}[],") for part in re.split(r"(?<=[.!?;])\s+|\n+", text)]
    sentences = list(dict.fromkeys(part for part in sentences if 3 < len(part) < 400))
    count: dict[str, int] = {}
    for word in tokens(text):
        count[word] = count.get(word, 0) + 1

    def carried(sentence: str) -> float:
        mine = words(sentence)
        weight = sum(math.log1p(count[word]) * (2.0 if word in asked else 1.0) for word in mine)
        return weight / math.sqrt(len(mine) + 4) if mine else 0.0

    best = sorted(range(len(sentences)), key=lambda n: (-carried(sentences[n]), n))
    return [sentences[n] for n in best]


def _fill(schema: dict, ranked: list[str], text: str):
    """A value that the schema allows, filled from the best sentences."""
    if "enum" in schema:
        return max(schema["enum"], key=lambda item: len(words(str(item)) & words(text)))
    form = schema.get("type", "string")
    form = form[0] if isinstance(form, list) else form
    if form == "object":
        fields = schema.get("properties", {})
        return {
            name: _fill(part, _ranked_for(name, part, ranked), text)
            for name, part in fields.items()
        }
    if form == "array":
        item = schema.get("items", {})
        count = min(schema.get("maxItems", 4), max(schema.get("minItems", 0), min(4, len(ranked))))
        return [_fill(item, ranked[n:] or [""], text) for n in range(count)]
    if form in ("number", "integer"):
        return _number(schema, text, form)
    if form == "boolean":
        return not words(text) & NEGATIVE
    return None if form == "null" else (ranked[0] if ranked else "")


def _ranked_for(name: str, part: dict, ranked: list[str]) -> list[str]:
    """The sentences with those first that share a word with a field's name or description."""
    asked = words(f"{name.replace('_', ' ')} {part.get('description', '')}")
    return sorted(ranked, key=lambda sentence: -len(words(sentence) & asked))


def _number(schema: dict, text: str, form: str) -> float | int:
    low, high = schema.get("minimum", 0), schema.get("maximum", 1e9)
    found = re.search(r"-?\d+(?:\.\d+)?", text)
    value = min(max(float(found.group()) if found else 0.0, low), high)
    return int(value) if form == "integer" else value


DIMENSIONS = 256


def embed(texts: list[str]) -> list[list[float]]:
    """Hashed bags of words and word pairs: 256 numbers a text, of length 1 (0 for no words)."""
    return [_vector(text) for text in texts]


def _vector(text: str) -> list[float]:
    found = tokens(text)
    vector = [0.0] * DIMENSIONS
    for feature in [*found, *(f"{a} {b}" for a, b in itertools.pairwise(found))]:
        place, sign = _place(feature)
        vector[place] += sign
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else vector


@lru_cache(maxsize=100_000)
def _place(feature: str) -> tuple[int, float]:
    """Where a word or pair counts, and with which sign: stable, unlike hash()."""
    digest = hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest[:2], "big") % DIMENSIONS, 1.0 if digest[2] & 1 else -1.0
