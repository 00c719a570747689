"""The stand-ins for the models inside memory designs: one that extracts, one that embeds.

Promises: answers are sentences and numbers of the text, in the form of the schema, the same in every process.
"""

import hashlib
import json
import math
import re
from collections import Counter
from itertools import pairwise

from standins.prompt import NEGATIVE, tokens, words


def extract(messages: list[dict], schema: dict | None) -> str:
    """The sentences of the last message that carry most, best those about what the system message asks for."""
    text = messages[-1]["content"]
    asked = words(" ".join(message["content"] for message in messages if message["role"] == "system"))
    worth = {word: math.log1p(n) * (2.0 if word in asked else 1.0) for word, n in Counter(tokens(text)).items()}
    sentences = (part.strip(" -*>\"'{}[],") for part in re.split(r"(?<=[.!?;])\s+|\n+", text))
    distinct = dict.fromkeys(part for part in sentences if 3 < len(part) < 400)
    weights = {one: sum(worth.get(word, 0.0) for word in sorted(words(one))) for one in distinct}
    ranked = sorted(distinct, key=lambda one: -weights[one] / math.sqrt(len(words(one)) + 4))
    if schema is None:
        return "\n".join(ranked[:6])
    return json.dumps(_fill(schema, ranked, text), ensure_ascii=False)


def _fill(schema: dict, ranked: list[str], text: str):
    """A value that the schema allows, filled from the best sentences."""
    if "enum" in schema:
        return max(schema["enum"], key=lambda item: len(words(str(item)) & words(text)))
    form = schema.get("type", "string")
    form = form[0] if isinstance(form, list) else form
    if form == "object":
        filled = {}
        for name, part in schema.get("properties", {}).items():
            asked = words(f"{name.replace('_', ' ')} {part.get('description', '')}")
            filled[name] = _fill(part, sorted(ranked, key=lambda one: -len(words(one) & asked)), text)
        return filled
    if form == "array":
        # Four items, where the schema does not say.
        count = min(schema.get("maxItems", 4), max(schema.get("minItems", 0), min(4, len(ranked))))
        return [_fill(schema.get("items", {}), ranked[n:] or [""], text) for n in range(count)]
    if form in ("number", "integer"):
        found = re.search(r"-?\d+(?:\.\d+)?", text)
        value = min(max(float(found.group()) if found else 0.0, schema.get("minimum", 0)), schema.get("maximum", 1e9))
        return int(value) if form == "integer" else value
    if form == "boolean":
        return not words(text) & NEGATIVE
    return None if form == "null" else (ranked[0] if ranked else "")


def embed(texts: list[str]) -> list[list[float]]:
    """Hashed bags of words and pairs of words: 256 numbers a text, of length 1 (all 0 for no words)."""
    vectors = []
    for found in map(tokens, texts):
        vector = [0.0] * 256
        for feature in (*found, *map(" ".join, pairwise(found))):
            digest = hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=4).digest()  # hash() varies
            vector[digest[1]] += 1.0 if digest[2] & 1 else -1.0
        length = math.sqrt(sum(number * number for number in vector)) or 1.0
        vectors.append([number / length for number in vector])
    return vectors
