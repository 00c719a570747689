"""What a model's answer says: the code, the JSON or the action in it.

Promises: reads what models really write (thoughts, prose around, several fences, a fence inside a
string, "Action: `go north`."), executes none of it, and says in one sentence what is wrong, so that
the sentence can be sent back. It does not promise that the code works: the sandbox finds out.

Try it: `python -c "import answers; print(answers.match_action('Action: Go North.', ['go north']))"`
"""

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence

from errors import AnswerError

# ------------------------------------------------------------------------------------ thoughts

_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.S)
_OPEN_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>")
# Some chat templates put the opening tag into the prompt, so that the answer has the closing one
# alone. A tag in quotes is a string of a program.
_END_OF_THOUGHT = re.compile(r"\A(?:(?!<think)[^`])*?^[^\"'`\n]*</think(?:ing)?>(?=[^\"'`\n]*$)", re.S | re.M)


def strip_thoughts(text: str) -> str:
    """The answer without its `<think>` blocks; empty where the thoughts never end."""
    while match := _THOUGHT.match(text):
        text = text[match.end() :]
    if _OPEN_THOUGHT.match(text):
        return ""
    if "</think" in text and (match := _END_OF_THOUGHT.match(text)):
        text = text[match.end() :]
    return text.strip()


# ---------------------------------------------------------------------------------------- code

_FENCE = re.compile(r"[ \t]*(?:>[ \t]*)?(`{3,}|~{3,})[ \t]*([\w+.-]*)[^`]*")
_FIRST_LINE = re.compile(r"(?:from|import|class|def|async def)\s+\w|[A-Z]\w*\s*=|@\w|\"\"\"|'''|#")
_CODE_LINE = re.compile(r"(?:class|def|async def)\s+\w+.*:|\s{4,}(?:return|self\.|def |if |for )")
MOST_FENCES = 40  # more are not tried in pairs
MOST_PARSED = 200  # blocks


def extract_code(text: str) -> str:
    """The Python module in an answer; raises AnswerError where there is none.

    The longest block that parses and defines a class, else the longest that parses and defines
    anything, else the longest block as it is: why it does not parse is for the caller to find out.
    """
    text = strip_thoughts(text)
    blocks = list(_blocks(text))
    by_length = sorted([*(block for block, _ in blocks), _around_fences(text)], key=len, reverse=True)
    modules = [(block, tree) for block in by_length[:MOST_PARSED] if (tree := _parse(block)) and tree.body]
    for kind in (
        ast.ClassDef,
        (ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom, ast.Assign),
    ):
        for block, tree in modules:
            if _defines(tree, kind):
                return _tidy(block)
    plain = [block for block, is_nearest in blocks if is_nearest]
    with_class = [block for block in plain if "class " in block]
    if not with_class and (code := _without_fence(text)):
        return _tidy(code)
    if plain:
        return _tidy(max(with_class or plain, key=len))
    raise AnswerError("The answer has no Python code: write the whole module in one ```python fence.")


def _tidy(code: str) -> str:
    return textwrap.dedent(code).strip("\n") + "\n"


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """What stands between any fence line and any later one, and whether that is the nearest: a string
    in the code may hold fences."""
    lines = text.splitlines()
    fences = [(number, match) for number, line in enumerate(lines) if (match := _FENCE.fullmatch(line))]
    for index, (start, _) in enumerate(fences[:MOST_FENCES]):
        ends = [number for number, match in fences[index + 1 :][:MOST_FENCES] if not match[2]]
        for end in [*ends, len(lines)]:
            block = "\n".join(lines[start + 1 : end])
            if block.strip():
                yield block, end == [*ends, len(lines)][0]


def _around_fences(text: str) -> str:
    """A module that begins before the first fence and goes on after it: that fence stands in a string."""
    lines = text.splitlines()
    fence = next((number for number, line in enumerate(lines) if _FENCE.fullmatch(line)), 0)
    starts = [number for number, line in enumerate(lines[:fence]) if _FIRST_LINE.match(line)]
    for start in starts[:MOST_FENCES]:
        code = _longest_prefix(lines[start:])
        if start + code.count("\n") >= fence and _parse(code):
            return code
    return ""


def _without_fence(text: str) -> str:
    """The longest run of lines that is a class or function, with prose around it."""
    lines, best = text.splitlines(), ""
    starts = [number for number, line in enumerate(lines) if _FIRST_LINE.match(line)]
    for start in starts[:MOST_FENCES]:
        code = _longest_prefix(lines[start:])
        tree = _parse(code)
        good = "class " in code if tree is None else _defines(tree, (ast.ClassDef, ast.FunctionDef))
        if good and len(code) > len(best):
            best = code
    return best


def _longest_prefix(lines: list[str]) -> str:
    """The lines up to the first that Python cannot read; all of them where code follows that line, for
    then it is an error in the code and no prose."""
    whole = lines
    for _ in range(MOST_FENCES):
        try:
            _compile("\n".join(lines))
            break
        except SyntaxError as error:
            lines = lines[: min(len(lines), error.lineno or 1) - 1]
        except (ValueError, RecursionError, MemoryError):
            return ""
    rest = whole[len(lines) + 1 :]
    return "\n".join(whole if any(_CODE_LINE.match(line) for line in rest) and lines else lines)


def _compile(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a model's code is not our news
        return ast.parse(textwrap.dedent(code))


def _parse(code: str) -> ast.Module | None:
    try:
        return _compile(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(tree: ast.Module | None, kind) -> bool:
    return tree is not None and any(isinstance(node, kind) for node in tree.body)


# ---------------------------------------------------------------------------------------- JSON

_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
    "number": (int, float), "null": type(None),
}  # fmt: skip
MOST_BRACES = 2000  # opening braces that are tried


def extract_json(text: str, schema: dict | None = None) -> dict:
    """The JSON object in an answer that fits `schema`; raises AnswerError.

    Of several that fit the longest counts: an example in the prose around is shorter.
    """
    text = strip_thoughts(text)
    found = sorted(_objects(text), key=lambda item: item[0], reverse=True)
    complaint = "The answer has no JSON object that can be parsed" + _why(text)
    for length, value in found:
        try:
            check_schema(value, schema or {})
            return value
        except AnswerError as error:
            # Parts of an object that is cut in the middle are not what the answer meant.
            complaint = str(error) if value is found[0][1] and 2 * length > len(text) else complaint
    raise AnswerError(complaint)


def _objects(text: str) -> Iterator[tuple[int, dict]]:
    """Length and value of each outermost JSON object in a text."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    position = text.find("{")
    for _ in range(MOST_BRACES):
        if position < 0:
            return
        try:
            value, end = decoder.raw_decode(text, position)
            yield end - position, value
        except (ValueError, RecursionError):
            end = position + 1
        position = text.find("{", end)


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON")


def _why(text: str) -> str:
    start = text.find("{")
    if start < 0:
        return "."
    try:
        json.JSONDecoder(parse_constant=_refuse).raw_decode(text, start)
    except RecursionError:
        return ": it is nested too deeply."
    except ValueError as error:
        return f": {error}."
    return "."


def check_schema(value, schema: dict, path: str = "$") -> None:
    """Raise AnswerError where `value` misses the parts of JSON Schema that this project uses.

    These are type, properties, required, items and enum; other keywords are not looked at.
    """
    wanted = schema.get("type")
    kinds = [wanted] if isinstance(wanted, str) else wanted or []
    if kinds and not any(_is(value, kind) for kind in kinds):
        raise AnswerError(
            f"The JSON is wrong at {path}: {_brief(value)} is not of type {' or '.join(kinds)}."
        )
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(map(str, schema["enum"]))
        raise AnswerError(f"The JSON is wrong at {path}: {_brief(value)} is not one of {choices}.")
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                raise AnswerError(f"The JSON is wrong at {path}: the key {name!r} is missing.")
        for name, part in schema.get("properties", {}).items():
            if name in value:
                check_schema(value[name], part, f"{path}.{name}")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            check_schema(item, schema["items"], f"{path}[{index}]")


def is_schema(schema) -> bool:
    """Whether it is a JSON schema of an object, in the parts that `check_schema` reads.

    A design may hand in anything, such as an example of the answer that it wants.
    """
    return isinstance(schema, dict) and schema.get("type") == "object" and _is_part(schema)


def _is_part(schema) -> bool:
    if not isinstance(schema, dict):
        return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    lists = [kinds, schema.get("required", []), schema.get("enum", [])]
    if not all(isinstance(part, list) for part in lists) or not all(
        kind in _TYPES for kind in map(str, kinds)
    ):
        return False
    properties, items = schema.get("properties", {}), schema.get("items", {})
    return isinstance(properties, dict) and all(
        map(_is_part, [*properties.values(), *([items] if items else [])])
    )


def _is(value, kind: str) -> bool:
    if isinstance(value, bool):  # Python's bool is an int, JSON's is not
        return kind == "boolean"
    if isinstance(value, float) and kind == "integer":
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, object))


def _brief(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."


# -------------------------------------------------------------------------------------- actions

_LEAD = re.compile(
    r"(?:[-*>#\s]|\d+[.)]\s)*(?:(?:so|therefore|thus)\W+)?(?:the\s+|my\s+|i\s+choose\s+(?:the\s+)?)?"
    r"(?:best\s+|next\s+|final\s+|chosen\s+)?"
    r"(?:action|answer|command|move)s?[\"'*`]*\s*(?:(?:to\s+take\s+)?(?:is|would be|will be)\s*:?|:|=)\s*",
    re.I,
)
_BULLET = re.compile(r"\A(?:[-*>\s]+|\d+[.)]\s+)+")
_QUOTED = re.compile(
    r"`([^`\n]{1,200})`|\"([^\"\n]{1,200})\"|\*\*([^*\n]{1,200})\*\*|<action>\s*([^<\n]+?)\s*</action>"
)
_AROUND = " \t\r\n\"'`*_.!,;:[](){}<>"


def match_action(answer: str, actions: Sequence[str]) -> str | None:
    """The action that an answer means, as the list has it; None where it means none.

    Case, quotes, a leading "Action:", a trailing period and talk on other lines do not matter.
    Without a list: the line that says the action, cleaned; None where the answer is empty.
    """
    text = strip_thoughts(answer)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _FENCE.fullmatch(line)]
    candidates = list(_candidates(lines))
    if not actions:
        return next((candidate for candidate in candidates if candidate), None)
    if len(lines) == 1:
        candidates.insert(0, lines[0])  # as it stands first: ">" is an action in some games
    for fold in (str, _fold):  # and in its case: a list may tell "k" from "K"
        table: dict[str, str] = {}
        for action in actions:
            table.setdefault(fold(action), action)
        for candidate in candidates:
            if (folded := fold(candidate)) and folded in table:
                return table[folded]
    quoted = {table[_fold(part)] for part in _quoted_parts(text) if _fold(part) and _fold(part) in table}
    return quoted.pop() if len(quoted) == 1 else None


def _fold(text: str) -> str:
    return " ".join(text.lower().split()).strip(_AROUND)


def _candidates(lines: list[str]) -> Iterator[str]:
    """What may be the action, the likeliest first."""
    for line in reversed(lines):
        if match := _LEAD.match(line):
            yield _clean(line[match.end() :])
    if lines:
        first, last = _clean(lines[0]), _clean(lines[-1])
        yield from (first, last) if len(first) <= len(last) else (last, first)


def _clean(line: str) -> str:
    """A line without bullet, marks, the quotes around it and the period at its end."""
    line = " ".join(_BULLET.sub("", line).replace("`", "").replace("**", "").split())
    for _ in range(2):  # "look." and "look".
        line = line.removesuffix(".").strip()
        if len(line) > 2 and line[0] == line[-1] and line[0] in "\"'*":
            line = line[1:-1].strip()
    return line


def _quoted_parts(text: str) -> Iterator[str]:
    for match in _QUOTED.finditer(text):
        yield next(part for part in match.groups() if part)
