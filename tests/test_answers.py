"""What models write and what is read out of it."""

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.answers import AnswerError, check_schema, extract_code, extract_json, match_action, strip_thoughts

MODULE = 'import json\n\n\nclass Memory:\n    """Keeps all."""\n\n    def get(self):\n        return json.dumps({})\n'
FENCED = f"```python\n{MODULE}```"
WITH_FENCE_IN_STRING = f'PROMPT = """Answer so:\n```json\n{{}}\n```\nor\n```\nnothing\n```\n"""\n\n\n{MODULE}'

CODE_ANSWERS = {
    "one fence": FENCED,
    "no fence": MODULE,
    "prose around": f"I changed two things.\n\n{FENCED}\n\nIt should be better.",
    "prose around code without a fence": f"Here is the module:\n\n{MODULE}\nThat's all, it's done!",
    "several fences": f"Install:\n```bash\npip install x\n```\nOld:\n```python\nclass Old: pass\n```\nNew:\n{FENCED}\nUse:\n```python\nMemory().get()\n```",
    "unclosed fence": f"```python\n{MODULE}",
    "no language": f"```\n{MODULE}```",
    "tildes": f"~~~python\n{MODULE}~~~",
    "four ticks": f"````python\n{MODULE}````",
    "indented": "1. The module:\n   ```python\n"
    + "".join(f"   {line}\n" for line in MODULE.split("\n"))
    + "   ```",
    "thoughts": f"<think>What of\n```python\nclass Wrong:\n    def {'x' * 400}(self): pass\n```\n</think>\n{FENCED}",
    "thoughts that the template opened": f"Let me see.\nFirst this, then that.\n</think>\n\n{FENCED}",
    "windows lines": FENCED.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("answer", CODE_ANSWERS.values(), ids=CODE_ANSWERS.keys())
def test_the_module_is_found_in_every_form_of_answer(answer):
    code = extract_code(answer)
    assert ast.unparse(ast.parse(code)) == ast.unparse(ast.parse(MODULE))


AROUND = (
    "```python\n{}```",
    "Text.\n```python\n{}```\nText.",
    "```bash\nls\n```\n```python\n{}```\n```json\n{{}}\n```",
    "```python\n{}",
    "{}",
    "# The module\nIt keeps all:\n\n{}\nDone.",
)


@pytest.mark.parametrize("around", AROUND)
def test_a_fence_inside_a_string_of_the_code_does_not_cut_the_code(around):
    answer = around.format(WITH_FENCE_IN_STRING)
    assert ast.dump(ast.parse(extract_code(answer))) == ast.dump(ast.parse(WITH_FENCE_IN_STRING))


def test_code_that_does_not_parse_is_handed_on_for_its_error_to_be_shown():
    broken = "class Memory:\n    def get(self:\n        pass\n"
    assert extract_code(f"Here:\n```python\n{broken}```\nDone.") == broken


def test_broken_code_without_a_fence_is_not_cut_to_the_part_that_parses():
    broken = "class Memory:\n    def get(self):\n        return 1\n\n    def put(self:\n        self.x = 1\n"
    assert extract_code(f"Here it is:\n\n{broken}") == broken


@pytest.mark.parametrize(
    "answer", ["", "I cannot do that.", "<think>class A: pass", "Sorry - from what I see, no."]
)
def test_an_answer_without_code_is_an_error_that_can_be_sent_back(answer):
    with pytest.raises(AnswerError, match="no Python code"):
        extract_code(answer)


def test_hostile_code_is_neither_run_nor_fatal_to_the_parser(tmp_path):
    trace = tmp_path / "trace"
    for code in ("(" * 100_000, "-" * 100_000 + "1", "\0", f"open({str(trace)!r}, 'w')", "class A:\n" * 2000):
        assert isinstance(extract_code(f"```python\n{code}\n```"), str)
    assert not trace.exists()


# ---------------------------------------------------------------------------------------- JSON

PLAN = {
    "type": "object",
    "required": ["worked", "verdicts"],
    "properties": {
        "worked": {"type": "array", "items": {"type": "string"}},
        "verdicts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["item", "verdict"],
                "properties": {"item": {"type": "string"}, "verdict": {"enum": ["helped", "misled"]}},
            },
        },
    },
}
GOOD = {"worked": ["a {brace}"], "verdicts": [{"item": "x", "verdict": "helped"}]}
TEXT = json.dumps(GOOD, indent=1)


@pytest.mark.parametrize(
    "answer",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"Here is {{the}} plan:\n{TEXT}\nGood luck!",
        f'For example {{"worked": []}} would miss a key.\n{TEXT}',
        f"<think>{{}} or {TEXT[:20]}</think>{TEXT}",
        f"{TEXT}\n{TEXT}",
    ],
)
def test_the_object_that_fits_the_schema_is_found(answer):
    assert extract_json(answer, PLAN) == GOOD


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("No.", "no JSON object"),
        (TEXT[:-5], "no JSON object that can be parsed: Expecting"),
        ('{"worked": NaN, "verdicts": []}', "NaN"),
        ('{"worked": []}', "'verdicts' is missing"),
        ('{"worked": "a", "verdicts": []}', r"\$\.worked: \"a\" is not of type array"),
        ('{"worked": [1], "verdicts": []}', r"\$\.worked\[0\]"),
        ('{"worked": [], "verdicts": [{"item": "x", "verdict": "good"}]}', "not one of helped, misled"),
        ("{" * 50_000, "no JSON object"),
        ('{"a": ' + "[" * 50_000, "nested too deeply"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_json(answer, message):
    with pytest.raises(AnswerError, match=message):
        extract_json(answer, PLAN)


def test_json_types_are_not_pythons():
    check_schema(3, {"type": "number"})
    check_schema(3.0, {"type": "integer"})
    check_schema(None, {"type": ["string", "null"]})
    for value, kind in (
        (True, "integer"),
        (True, "number"),
        (1, "boolean"),
        (2.5, "integer"),
        (None, "string"),
    ):
        with pytest.raises(AnswerError):
            check_schema(value, {"type": kind})


# -------------------------------------------------------------------------------------- actions

ACTIONS = ["north", "far north", "go to desk 1", "take mug 1 from desk 1", "look"]


@pytest.mark.parametrize(
    "answer",
    [
        "go to desk 1",
        "Go To Desk 1",
        " go  to desk 1.\n",
        "`go to desk 1`",
        '"go to desk 1"',
        "Action: go to desk 1",
        "ACTION: `Go to desk 1`.",
        "**Action:** go to desk 1",
        "> go to desk 1",
        "- go to desk 1",
        "1. go to desk 1",
        "The next action is: go to desk 1",
        "So the best action is go to desk 1.",
        "I have seen the room.\nAction: go to desk 1",
        "I need the mug, so I go there.\n\ngo to desk 1",
        "go to desk 1\n\nThe mug may be there.",
        "Action: go to desk 1\nThis will show me the desk.",
        "```\ngo to desk 1\n```",
        "<think>look? north?</think>go to desk 1",
        "I choose `go to desk 1` because it is near.",
        "<action>go to desk 1</action>",
    ],
)
def test_an_action_is_matched_however_it_is_dressed(answer):
    assert match_action(answer, ACTIONS) == "go to desk 1"


@pytest.mark.parametrize(
    "answer", ["", "fly", "go to desk", "I go north and then look", "`north` or `look`", "\n\n", "..."]
)
def test_what_means_no_action_or_two_is_no_action(answer):
    assert match_action(answer, ACTIONS) is None


def test_a_list_that_tells_cases_apart_is_taken_at_its_word():
    assert [match_action(answer, ["k", "K"]) for answer in ("k", "K", "Action: K")] == ["k", "K", "K"]


def test_punctuation_can_be_an_action():
    assert [match_action(answer, ["<", ">", "."]) for answer in ("<", ">", ".")] == ["<", ">", "."]


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("take carrot from fridge", "take carrot from fridge"),
        ("> take carrot.", "take carrot"),
        ("Action: open `fridge`", "open fridge"),
        ('"open the fridge".', "open the fridge"),
        ("open the fridge\nIt may hold the carrot that I need for the meal.", "open the fridge"),
        ("I think that the carrot is in the fridge over there.\nopen fridge", "open fridge"),
        ("", None),
    ],
)
def test_without_a_list_the_line_of_the_action_is_cleaned(answer, action):
    assert match_action(answer, []) == action


# ---------------------------------------------------------------------------------- any answer


@given(st.text(alphabet="`~ \n<think>/{}[]\"':.aA#class\\"))
def test_no_text_makes_a_reader_fail_in_another_way(text):
    match_action(text, ACTIONS)
    match_action(text, [])
    for read in (extract_code, extract_json):
        try:
            read(text)
        except AnswerError as error:
            assert str(error)


def test_a_tag_in_a_string_of_the_code_is_no_thought():
    code = 'class A:\n    END = "</think>"\n'
    assert strip_thoughts(code) == code.strip()
    assert strip_thoughts("<think>a</think><think>b</think>c") == "c"
    assert strip_thoughts("<think>never ends") == ""
