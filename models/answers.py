"""Reads a model's answer: the Python module, the JSON object or the action in it.

Understands what models really write: thoughts, chat templates, prose around, several code fences, a fence inside a
string, "Action: `go north`." Executes nothing; says in one sentence, which can be sent back, what is wrong.
"""

import ast
import contextlib
import functools
import json
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence

from errors import AnswerError

# Thoughts and chat templates. A tag or mark right before a quote or a backslash stands in a string of a program.
_NO_STRING = r"(?![\"'`\\])"
_THOUGHT = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)"
_NAME = rf"(?:\w{{1,20}}[:_-])?{_THOUGHT}(?:[_-]\w{{1,20}})?"  # inner_thoughts, seed:think, thought_process
_OPENS = rf"(?:<{_NAME}>|◁{_THOUGHT}▷|\[think\]|<\|(?:begin_of_|start_)?{_THOUGHT}\|>|<\|channel>thought)"
_CLOSES = rf"(?:</{_NAME}>|◁/{_THOUGHT}▷|\[/think\]|<\|(?:/|end_of_|end_){_THOUGHT}\|>|<channel\|>)"
_TAG = re.compile(rf"(?:(?P<opens>{_OPENS})|{_CLOSES}){_NO_STRING}", re.I)
_CLOSE = re.compile(_CLOSES + _NO_STRING, re.I)
# The messages of OpenAI's harmony format: <|channel|>final<|message|>right<|return|>
_CHANNEL = re.compile(
    r"(?:(?:\A|<\|channel\|>)\s*(analysis|commentary|final)\b|<\|start\|>assistant)[^<\n]*(?:<\|constrain\|>\s*\w+\s*)?"
    rf"<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>{_NO_STRING}|\Z)", re.S)  # fmt: skip
_MARK = (r"(?:<\|[\w-]{1,40}\|?>|<\w{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|</?s>|<(?:start|end)_of_\w{1,40}>|\[/?INST\]|"
         rf"<(?:bos|eos|pad|eot|eod|eoa|sop|eop)>|<extra_id_\d+>|\[gMASK\]){_NO_STRING}")  # fmt: skip
_FIRST_MARKS = re.compile(rf"(?:\s*(?!{_OPENS}){_MARK}(?:\s*(?:assistant|model):?(?=\s*(?:\n|<|\Z)))?)+", re.I)
_AROUND_ANSWER = re.compile(rf"<\|(?:begin|start|end)_(?:of_)?(?:box|solution|response)\|>{_NO_STRING}", re.I)
_UNSEEN = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff"  # without a width
_UNSEEN_AT_EDGES = re.compile(rf"(?m)^([ \t]*)[{_UNSEEN}]+|[{_UNSEEN}]+(?=[ \t\r]*$)")
_FENCE_LINE = re.compile(r"(?m)^[ \t]*(?:>[ \t]*)?(?:`{3}|~{3})")


def strip_thoughts(text: str) -> str:
    """The answer without thoughts and the chat template's marks; empty where the thoughts never end."""
    text = _AROUND_ANSWER.sub("", _UNSEEN_AT_EDGES.sub(r"\1", text))
    channels = list(_CHANNEL.finditer(text))
    if channels and not _in_string(text, channels[0].start()):
        final = [match[2] for match in channels if match[1] in ("final", None)]
        text = "\n".join(final[:1] or [match[2] for match in channels if match[1] == "commentary"])
    elif match := re.match(r"analysis.*?assistantfinal", text, re.S):  # harmony without its marks
        text = text[match.end() :]

    position = 0
    for _ in range(200):  # most tags that are looked at
        if not (tag := _TAG.search(text, position)):
            break
        end = _CLOSE.search(text, tag.end()) if tag["opens"] else tag
        if _in_string(text, tag.start()):
            position = tag.end()
        elif not tag["opens"]:  # the template's prompt has the opening tag
            text, position = text[tag.end() :], 0
        elif end:
            text, position = f"{text[: tag.start()]}\n{text[end.end() :]}", tag.start()
        elif _FIRST_MARKS.sub("", text[: tag.start()]).strip():
            position = tag.end()
        else:
            return ""

    # The answer ends where the template's next mark stands. What follows is another turn.
    if match := _FIRST_MARKS.match(text):
        text = text[match.end() :]
    marks = list(re.finditer(_MARK, text, re.I))
    while marks and not text[marks[-1].end() :].strip():
        text = text[: marks.pop().start()]
    end = next((mark.start() for mark in marks if not _in_string(text, mark.start())), len(text))
    return text[:end].strip()


def _in_string(text: str, position: int) -> bool:
    """Whether a place in a text is quoted, or in a fence, or in a string of a program."""
    before = text[:position]
    line = before.rpartition("\n")[2]
    counts = (line.count('"'), line.count("`"), before.count('"""'), before.count("'''"))
    found = (_FENCE_LINE.findall(before), re.findall(r"(?<!\w)'|'(?!\w)", line))  # not that of "don't"
    return any(count % 2 for count in (*counts, *map(len, found)))


# Code.
_FENCE = re.compile(r"[ \t]*(?:>[ \t]*)?(`{3,}|~{3,})[ \t]*([\w+.-]*)[^`]*")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_METHODS = {"general_update", "general_retrieve"}  # of a memory design
MOST_FENCES = 40  # the last ones, which are tried in pairs


def extract_code(text: str) -> str:
    """The Python module in an answer; raises AnswerError where there is none.

    It is the last block of the most worth, the longest where none has a class. It need not parse: the caller finds out.
    """
    lines = strip_thoughts(text).replace("\r\n", "\n").split("\n")

    # A block stands between any fence line and any later one, for a string in the code may hold fences.
    fences = {number: match[2] for number, line in enumerate(lines) if (match := _FENCE.fullmatch(line))}
    spans = []  # (number of blocks that begin where it does and end before it, first line, line behind the last)
    for fence in list(fences)[-MOST_FENCES:]:
        ends = [*(number for number, language in fences.items() if number > fence and not language), len(lines)]
        filled = [end for end in ends if "".join(lines[fence + 1 : end]).strip()]
        spans += [(number, fence + 1, end) for number, end in enumerate(filled)]
    # A module may begin before the first fence and go on after it: that fence stands in a string.
    first = min(fences, default=0)
    spans += [(0, start, end) for start, end, tree in _bare_runs(lines, first) if tree and end > first][:1]
    blocks = []  # (worth, first line, line behind the last)
    for number, start, end in sorted(spans, key=lambda span: (span[0] > 0, span[1] - span[2]))[:200]:
        tree, _ = _parse(lines[start:end])
        if tree or number == 0:
            blocks.append((_worth(lines[start:end], tree), start, end))
    if all(worth < 1 for worth, *_ in blocks):
        blocks += [(_worth(lines[start:end], tree), start, end) for start, end, tree in _bare_runs(lines, len(lines))]
    best = max(blocks, default=(0,))[0]
    spans = [span for worth, *span in blocks if worth == best]
    # What begins inside another one is a part of it.
    spans = [s for s in spans if not any(o[0] < s[0] < o[1] or (o[0] == s[0] and o[1] > s[1]) for o in spans)]
    if not spans:
        raise AnswerError("The answer has no Python code: write the whole module in one ```python fence.")
    start, end = max(spans, key=lambda span: span if best > 0 else len("".join(lines[slice(*span)])))
    return textwrap.dedent("\n".join(lines[start:end])).strip("\n") + "\n"


def _worth(lines: list[str], tree: ast.Module | None) -> int:
    """4 for a whole memory design, 3 for a part of one, 2 for another class, 0 for other definitions, else -1."""
    # Without a syntax tree the words count, and what may be a class is worth 1: a new design that does not parse
    # comes before an old one, so that its error goes back to the model.
    if tree is None:
        code = "\n".join(lines)
        is_whole = all(name in code for name in _METHODS) and not _FENCE_LINE.search(code)
        return 4 if is_whole else 1 if re.search(r"(?m)^[ \t]*class\s+\w+.*:", code) else -1
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if not classes:
        definitions = (*_FUNCTIONS, ast.Import, ast.ImportFrom, ast.Assign)
        return 0 if any(isinstance(node, definitions) for node in tree.body) else -1
    methods = {node.name: node for one in classes for node in one.body if isinstance(node, _FUNCTIONS)}
    # A body that ends in `...` was left out.
    ends = {name: getattr(node.body[-1], "value", None) for name, node in methods.items()}
    names = {name for name, end in ends.items() if getattr(end, "value", None) is not ...} & _METHODS
    bases = {getattr(base, "attr", getattr(base, "id", "")) for one in classes for base in one.bases}
    return 4 if names == _METHODS else 3 if names or bases & {"MemoryDesign", "MemoStructure"} else 2


def _bare_runs(lines: list[str], stop: int) -> Iterator[tuple[int, int, ast.Module | None]]:
    """Runs of lines with a class or function that begin before the line `stop`, prose around them."""
    first_line = re.compile(r"(?:from|import|class|def|async def)\s+\w|[A-Z]\w*\s*=|@\w|\"\"\"|'''|#")
    more_code = re.compile(r"(?:class|def|async def)\s+\w+.*:|\s{4,}(?:return|self\.|def |if |for )")
    starts, end, tree = [number for number, line in enumerate(lines[:stop]) if first_line.match(line)], 0, None
    for start in starts[:MOST_FENCES]:
        if tree and start < end:
            continue  # a part of a run that was read
        end, tree = len(lines), None
        for _ in range(MOST_FENCES):
            tree, bad = _parse(lines[start:end])
            if tree:
                break
            end = start + min(end - start, bad) - 1
        # What Python cannot read is prose, where the run ends; but where code follows, it is an error in the code.
        if end > start and any(more_code.match(line) for line in lines[end + 1 :]):
            end, tree = len(lines), None
        run = "\n".join(lines[start:end])
        if any(isinstance(node, (ast.ClassDef, *_FUNCTIONS)) for node in tree.body) if tree else "class " in run:
            yield start, end, tree


def _parse(lines: list[str]) -> tuple[ast.Module | None, int]:
    """The syntax tree, else the line that Python cannot read (1 where it cannot read anything)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a model's code does not concern the user
            return ast.parse(textwrap.dedent("\n".join(lines))), 0
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, getattr(error, "lineno", None) or 1


# JSON. The keywords that are checked look at a part of a value once, so that no design's schema makes a check slow. Of
# the others, `$ref` may lead into the network or in circles, `pattern` may take forever, and `anyOf` multiplies the
# work. `additionalProperties` would send an answer back for a key that does no harm.
KEYWORDS = ("type", "properties", "required", "items", "enum", "const", "minItems", "maxItems", "minLength", "maxLength",
            "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")  # fmt: skip


def extract_json(text: str, schema: dict | None = None) -> dict:
    """The JSON object in an answer that fits `schema`, the longest of several; raises AnswerError."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    text, decoder = strip_thoughts(text), json.JSONDecoder(parse_constant=refuse)
    found, why, end = [], "", 0  # length and value of each outermost object
    for _ in range(2000):  # most opening braces that are tried
        if (start := text.find("{", end)) < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
            found.append((end - start, value))
        except (ValueError, RecursionError) as error:
            why = why or f": {'it is nested too deeply' if isinstance(error, RecursionError) else error}"
            end = start + 1
    found.sort(key=lambda item: item[0], reverse=True)
    complaint = f"The answer has no JSON object that can be parsed{why}."
    for length, value in found:
        try:
            check_schema(value, schema or {})
            return value
        except AnswerError as error:
            # Parts of an object that is cut in the middle are not what the answer meant.
            complaint = str(error) if value is found[0][1] and 2 * length > len(text) else complaint
    raise AnswerError(complaint)


def check_schema(value, schema: dict) -> None:
    """Raise AnswerError where `value` does not fit a JSON schema, as far as KEYWORDS go."""
    if error := next(_validator()(_known_part(schema)).iter_errors(value), None):
        value = repr(error.instance)
        what = error.message.replace(value, value if len(value) <= 60 else f"{value[:60]}...")
        raise AnswerError(f"The JSON is wrong at {error.json_path}: {what}.")


def _known_part(schema):
    """A schema with KEYWORDS alone."""
    if not isinstance(schema, dict):
        return schema  # true and false are schemas too
    part = {keyword: schema[keyword] for keyword in KEYWORDS if keyword in schema}
    if "properties" in part:
        part["properties"] = {name: _known_part(value) for name, value in part["properties"].items()}
    if "prefixItems" in schema:  # which is not known here: `items` is for those behind them
        part.pop("items", None)
    if "items" in part:
        part["items"] = _known_part(part["items"])
    return part


def is_schema(schema) -> bool:
    """Whether it is a JSON schema of an object, of at most 10,000 characters; a design may hand in anything."""
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        if isinstance(schema, dict) and schema.get("type") == "object":
            return _is_valid_schema(json.dumps(schema, allow_nan=False))
    return False


@functools.lru_cache(maxsize=256)  # a check takes some milliseconds, and designs use the same few schemas
def _is_valid_schema(text: str) -> bool:
    # No format checker: it would compile a stranger's regular expressions.
    return len(text) <= 10_000 and _validator()(_validator().META_SCHEMA).is_valid(json.loads(text))


@functools.cache
def _validator():
    from jsonschema import Draft202012Validator, ValidationError, validators  # takes 0.3 s to import

    def enum(validator, choices, value, schema):  # jsonschema's own takes a minute for long lists
        if value not in choices:
            yield ValidationError(f"{value!r} is not one of {choices!r}")

    return validators.extend(Draft202012Validator, {"enum": enum})


# Actions.
_NOUN = r"(?:action|act|answer|assistant|command|move|choice|decision|response|output)"
# "Action: ", "**Final answer**", "So the best move is ", {"action": ...; not "the last action: ".
_LEAD = re.compile(
    r"(?:^|[^\w\s]|\bthought\s*:[^\n]{0,2000}\s(?=action))[^\w\n]{0,20}(?:(?:so|therefore|thus|hence|and|the|my|"
    r"i\s+(?:choose|think|believe)|that|best|next|chosen|selected|(?P<final>final))[\W_]{1,20})*"
    rf"{_NOUN}s?(?:\s*\d+)?[\"'*`_)\]]{{0,5}}\s{{0,5}}(?:to\s+take\s*)?"
    r"(?:(?P<clear>[:=→]|-+>|$)|(?:is|would\s+be|will\s+be|should\s+be)\b(?:\s+to\b)?\s*:?)\s*", re.I | re.M)  # fmt: skip
# "I will ", "so I should now ", "let's ".
_SAID = re.compile(
    r"(?:^|[^\w\s]\s*|\b(?:so|therefore|thus|then|and|hence)\s+)(?:now\s+)?"
    r"(?:i(?:'ll|'d|\s+(?:will|would|shall|should|must)|(?:'m|\s+am)\s+going\s+to|\s+choo?se(?:\s+to)?|\s+decided?\s+(?:to|on))|"
    r"let's|let\s+(?:me|us)|we\s+should)[\s:]+(?:(?:now|then|first|just)\s+)*", re.I | re.M)  # fmt: skip
# What --constrain-actions asks for, perhaps cut behind the action; quotes in it are escaped.
_CONSTRAINED = re.compile(r"""\s*\{\s*"action"\s*:\s*("(?:[^"\\\n]|\\.)*")\s*\}?\s*""")
_QUOTED = re.compile(r"`([^`\n]{1,200})`|\"([^\"\n]{1,200})\"|(?<!\w)'([^'\n]{1,200})'(?!\w)|\*{1,2}([^*\n]{1,200})\*{1,2}")
_ANSWER = rf"(?:final[_ -]?)?{_NOUN}(?:\s[^<>/\n]{{0,100}})?>"
_BULLET = re.compile(r"(?:[-*•]\s+|\d+[.)]\s+)+")
# "Move right" means the action "right".
_VERB = r"(?:(?:go|move|walk|head|press|choose|select|go\s+with)\s+(?:(?:to\s+)?the\s+)?)"
# What may follow an action in its sentence, and what says that it is one of several.
_REASON = re.compile(r"\s*(?:$|[\"'`*_)\]}<.,;:!(\[–—]|-\s|(?:because|since|so|which|as\s+(?:i|it|the|this|there))\b)", re.I)
_JOINED = re.compile(r"[\s\"'`*_)\]},.;:]*(?:[/|&+→]|[-=]+>|(?:and|or|then|but|next|followed|versus|vs)\b)", re.I)
# "Observation: ..." after an action: the model goes on with a dialogue that it makes up.
_NEXT_TURN = re.compile(r"(?:^|\s)\W{0,5}(?:observation|user|human)\s*:", re.I | re.M)
_TAKEN_BACK = re.compile(r"\b(?:wait\s*[,.!–—-]|(?:actually|instead|rather|no|hmm|however|alternatively)\b)", re.I)
_NOT = re.compile(r"(?:\b(?:not|never|cannot|avoid|without)|n't)\s+(?:\w+\s+){0,2}\Z", re.I)
_STRAIGHT = str.maketrans("“”„‟«»「」『』‘’‚‛`", "\"" * 10 + "''''`")


def match_action(answer: str, actions: Sequence[str]) -> str | None:
    """The action that an answer means, as the list has it; None where it means none, or one of several.

    Case, quotes, marks of a chat template, a leading "Action:" and talk on other lines do not matter. Without a list:
    the line that says the action, cleaned; None where the answer is empty.
    """
    if answer in actions:
        return answer
    text = strip_thoughts(answer)
    if constrained := _CONSTRAINED.fullmatch(text):
        with contextlib.suppress(ValueError):
            return match_action(json.loads(constrained[1]), actions)
    text = re.sub(r"\\+[ ,;]", " ", _plain(text))  # LaTeX's spaces
    for _ in range(2):  # \boxed{\textbf{\text{go north}}}
        text = re.sub(r"\\+(?:text|math|mbox)\w*\s*\{([^{}\n]*)\}", r"\1", text)
    text = re.sub(r"(?:\\+f?b|\x08)ox(?:ed)?\s*\{([^{}\n]*)\}", r"\nFinal answer:\n\1\n", text)
    text = re.sub(rf"(?is)<{_ANSWER}(.*?)(?:</{_ANSWER}|\Z)", r"\nFinal answer:\n\1\n", text)
    text = re.sub(r"</?(?:b|i|em|strong|code)>", "`", re.sub(rf"(?i)</?{_ANSWER}", "\n", text))
    text = "\n".join(line.strip() for line in text.splitlines() if not _FENCE.fullmatch(line))
    if not actions:

        def clean(line: str) -> str:  # of {"action": "look", ...} the action
            line = _BULLET.sub("", line).replace("`", "")
            return _trim(re.sub(r"^[\[{(\s]*\"([^\"]+)\"\s*[\]}),].*", r"\1", line))

        leads = [(bool(lead["final"]), lead["clear"] is not None, lead.end()) for lead in _LEAD.finditer(text)]
        led = [clean(text[end:].partition("\n")[0]) for *_, end in sorted(leads, reverse=True)]
        lines = [line for line in map(clean, text.splitlines()) if line] or [""]
        return next(filter(None, led), min(lines[0], lines[-1], key=len)) or None

    exact, folded = set(actions), {_trim(_plain(action).lower()): action for action in reversed(actions)}
    folded.pop("", None)  # ">" is found as it stands alone
    longest_first = sorted(map(re.escape, folded), key=len, reverse=True)
    names = "|".join(longest_first).replace(r"\ ", r"\s+") or "(?!)"
    named = re.compile(rf"(?<!\w)({names})(?!\w)", re.I)
    first = re.compile(rf"(?:[^\w?]|_)*{_VERB}??({names})(?!\w)", re.I)

    def find(part: str) -> str | None:
        """The action that the whole part is."""
        for same in (part.strip(), part.strip(" \t*`\"'")):  # a list may tell "k" from "K"
            if same in exact:
                return same
        part = _trim(_plain(part).lower())
        return folded.get(part) or folded.get(re.sub(rf"^{_VERB}", "", part))

    def begins(line: str) -> set[str]:
        """What is meant by a line that begins with an action ("right, because left is blocked"); "" for another one."""
        if whole := find(line):
            return {whole}
        if not (match := first.match(line)):
            return set()
        action, rest = find(match[1]), line[match.end() :]
        others = {find(name) for name in named.findall(rest)} - {action}
        if _JOINED.match(rest) or (others and _TAKEN_BACK.search(rest)):
            return {action, *(others or {""})}
        if not _REASON.match(rest):
            return set()
        follows = None if re.match(r"\W*[(–—]|\s+-\s", rest) else first.match(rest)
        return {action, find(follows[1])} if follows else {action}

    if whole := find(text):
        return whole
    # The clearest signs count: a label, then a line of its own, then quotes and sentences such as "I will go north.".
    final, clear, plain = set(), set(), set()
    turns, end = [turn.start() for turn in _NEXT_TURN.finditer(text)], len(text)
    for lead in _LEAD.finditer(text):
        if lead.start() >= end:
            break
        if found := begins(text[lead.end() :].partition("\n")[0]):
            (final if lead["final"] else clear if lead["clear"] is not None else plain).update(found)
            end = min(end, next((turn for turn in turns if turn > lead.end()), end))
    lines = [(_BULLET.match(line), line) for line in text.splitlines()]
    alone = {find(line) for bullet, line in lines if not bullet} - {None}
    in_list = {find(line[bullet.end() :]) for bullet, line in lines if bullet} - {None}
    quoted = [one for one in _QUOTED.finditer(text) if not _NOT.search(text[: one.start()][-40:])]
    said = {find(one[one.lastindex]) for one in quoted} - {None}
    for lead in _SAID.finditer(text):
        said |= begins(text[lead.end() :].partition("\n")[0])
    meant = final or clear or plain | alone or in_list or said
    return (meant.pop() or None) if len(meant) == 1 else None


def _plain(text: str) -> str:
    """Text with straight quotes, without full-width and invisible characters."""
    return re.sub(f"[{_UNSEEN}]", "", unicodedata.normalize("NFKC", text.translate(_STRAIGHT)))


def _trim(text: str) -> str:
    """Text in one line, without the marks around it."""
    return re.sub(r"^(?:[^\w?]|_)+|(?:[^\w?]|_)+$", "", " ".join(text.split()))
