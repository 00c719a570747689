"""The prompts: files under `prompts/`, rendered with undefined names failing.

What a model is shown is part of the experiment, so it stands in files of its own and a test
compares each rendered prompt with a kept copy.
"""

import functools
import json
import re
import sys
from pathlib import Path

import jinja2

import envs
from errors import UserError

FOLDER = Path(__file__).parents[1] / "prompts"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.filters["fenced"] = fenced
    return environment


def render(name: str, **values) -> str:
    """The text of `prompts/<name>.md`; a name it needs and does not get is an error."""
    return _template(name).render(**values).strip()


@functools.cache  # jinja itself would look at the file's date at each turn
def _template(name: str) -> jinja2.Template:
    return _environment().get_template(f"{name}.md")


@functools.cache
def domain_text(domain: str) -> str:
    """What a domain is, as the agent and the meta agent are told.

    `prompts/domains/<name>.md`, or for a domain of one's own a file `<name>.md` beside its module.
    """
    cls = envs.domain_class(domain)
    places = [FOLDER / "domains" / f"{cls.name}.md"]
    places += [Path(sys.modules[cls.__module__].__file__).parent / f"{cls.name}.md"]
    for path in places:
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
    raise UserError(f"the domain {domain} has no description: write {places[0]} or {places[1]}")


def plan_schema() -> dict:
    """The JSON schema of the meta agent's plan."""
    return json.loads((FOLDER / "plan.json").read_text(encoding="utf-8"))


def count_tokens(text: str) -> int:
    """Tokens of a text, estimated as a quarter of its UTF-8 bytes: no tokenizer fits all models."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


def cut(text: str, tokens: int) -> str:
    """The first part of `text`, at most about `tokens` tokens long, with a mark where it was cut."""
    if count_tokens(text) <= tokens:
        return text
    kept = text.encode("utf-8", "replace")[: max(0, tokens * 4)].decode("utf-8", "ignore")
    return f"{kept} [... {len(text) - len(kept)} characters cut]"


def fenced(text: str, language: str) -> str:
    """`text` between fences that are longer than any that it holds."""
    fence = max(["``", *re.findall("`{3,}", text)], key=len) + "`"
    return f"{fence}{language}\n{text}\n{fence}"


# Control characters, and those that show nothing or turn the direction of what follows.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
_DATA_TAG = re.compile(r"<(?=\s*/?\s*data\b)", re.I)
_MARK = re.compile(r"^(?= {0,3}[#>])", re.M)  # a heading; an action of a trajectory


def quote(text: str, tokens: int = 500) -> str:
    """Text of a program or a game as data in a prompt: cut, without hidden or direction marks, and
    unable to close the `<data>` around it or to open a fence, a heading or an action of its own."""
    text = _DATA_TAG.sub("‹", _HIDDEN.sub(" ", cut(text, tokens)))
    return _MARK.sub(r"\\", text.replace("```", "'''"))
