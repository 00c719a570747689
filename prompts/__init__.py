"""The prompts: one file a stage, rendered with undefined names failing, and text of strangers quoted as data.
What a model is shown is part of the experiment: a test compares each rendered prompt with a kept copy."""

import functools
import json
import re
from pathlib import Path

import jinja2

from errors import clean

FOLDER = Path(__file__).parent


def render(name: str, **values) -> str:
    """The text of `prompts/<name>.md`; raises jinja2.UndefinedError for a name that it needs and does not get."""
    return _template(name).render(**values).strip()


@functools.cache  # without it jinja looks at the file's date at each turn of an episode
def _template(name: str) -> jinja2.Template:
    layout = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": False}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FOLDER), undefined=jinja2.StrictUndefined, **layout)
    environment.filters["fenced"] = fenced
    return environment.get_template(f"{name}.md")


def plan_schema(strict: bool = True) -> dict:
    """The JSON schema of the meta agent's plan, all of whose keys are required, as strict endpoints want it. Not
    `strict`: what an answer must fit at least, for models leave out keys and write more changes."""
    schema = json.loads((FOLDER / "plan.json").read_text(encoding="utf-8"))
    if not strict:
        changes = schema["properties"]["changes"]
        changes["items"]["required"] = ["what", "why"]
        del changes["maxItems"]
    return schema


def fenced(text: str, language: str) -> str:
    """`text` between fences that are longer than any that it holds."""
    fence = max(["``", *re.findall("`{3,}", text)], key=len) + "`"
    return f"{fence}{language}\n{text}\n{fence}"


def count_tokens(text: str) -> int:
    """Tokens of a text, estimated as a quarter of its UTF-8 bytes: no tokenizer fits all models."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


def cut(text: str, tokens: int) -> str:
    """The first part of `text`, at most about `tokens` tokens long, with a mark where it was cut."""
    if count_tokens(text) <= tokens:
        return text
    kept = text.encode("utf-8", "replace")[: max(0, tokens * 4)].decode("utf-8", "ignore")
    return f"{kept} [... {len(text) - len(kept)} characters cut]"


_DATA_TAG = re.compile(r"<(?=\s*/?\s*data\b)", re.I)
_MARK = re.compile(r"^(?= {0,3}[#>])", re.M)  # a heading; an action of a trajectory


def quote(text: str, tokens: int = 500) -> str:
    """Text of a program or a game as data in a prompt, at most about `tokens` tokens of it. It shows its hidden
    characters, and can neither close the `<data>` around it nor open a fence, a heading or an action of its own."""
    text = _DATA_TAG.sub("‹", clean(cut(text, tokens)))
    return _MARK.sub(r"\\", text.replace("```", "'''"))


def quote_lines(text: str, tokens: int = 500) -> str:
    """Text of several lines as data in a prompt, each behind `| `: columns stay straight, and no line poses as more."""
    return "\n".join(f"| {line}" for line in _DATA_TAG.sub("‹", clean(cut(text, tokens))).split("\n"))


def quote_cell(text: str, tokens: int = 12) -> str:
    """Text as data in one line, which may stand in a cell of a table."""
    return quote(" ".join(text.split()), tokens).replace("|", "/")
