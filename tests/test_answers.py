"""What models write and what is read out of it."""

import ast
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import errors
from models.answers import (
    AnswerError,
    check_schema,
    extract_code,
    extract_json,
    is_schema,
    match_action,
    strip_thoughts,
)

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
    "a byte order mark": f"\ufeff{MODULE}",
    "a byte order mark in the fence": f"```python\n\ufeff{MODULE}```",
    "characters without a width around the fence": f"\u200b```python\u200b\n\u2060{MODULE}\ufeff\n```\u200b",
    "a chat template's marks": f"<|im_start|>assistant\n{FENCED}<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>",
    "an end mark without a fence": f"{MODULE}</s>",
    "channels": "<|channel|>analysis<|message|>class Draft: pass<|end|><|start|>assistant<|channel|>final"
    f"<|message|>{FENCED}<|return|>",
    "thoughts with a fence that the template opened": f"I had\n```python\nclass Wrong: pass\n```\n</think>\n{FENCED}",
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


def _design(name: str, lines: int = 0, imported: str = "memory_base", base: str = "MemoryDesign") -> str:
    notes = "".join(f"    # a note, number {number}\n" for number in range(lines))
    return (
        f"from {imported} import {base}\n\n\nclass {name}({base}):\n{notes}"
        "    async def general_update(self, trajectory):\n        self.last = trajectory\n\n"
        f"    async def general_retrieve(self, trajectory):\n        return {name!r}\n"
    )


def _fenced(*modules: str) -> str:
    return "\n\nAnd then:\n".join(f"```python\n{module}```" for module in modules)


OLD, NEW = _design("Old", lines=50), _design("New")
HELPER = "class Helper:\n" + "".join(f"    field{number} = {number}\n" for number in range(60))
PATCH = "class New(MemoryDesign):\n    async def general_retrieve(self, trajectory):\n        return 1\n"
OUTLINE = "class New(MemoryDesign):\n    async def general_update(self, t): ...\n\n    async def general_retrieve(self, t): ...\n"
LAST_MODULE = {
    "the old module quoted": _fenced(OLD, NEW),
    "the old module quoted twice": _fenced(OLD, _design("Old", lines=80), NEW),
    "a draft in a thought": f"<thought>First:\n{_fenced(OLD)}\nShorter!</thought>\n{_fenced(NEW)}",
    "a draft in thoughts that the template opened": f"First:\n{_fenced(OLD)}\nShorter!\n</think>\n{_fenced(NEW)}",
    "a helper first": _fenced(HELPER, NEW),
    "a helper after": _fenced(NEW, HELPER),
    "an example of its use after": _fenced(OLD, NEW, "memory = New()\nprint(memory)\n"),
    "a test after": _fenced(OLD, NEW, "class TestNew:\n    def test_it(self):\n        assert New()\n"),
    "a subclass after": _fenced(NEW, "class Quiet(New):\n    verbose = False\n"),
    "a patch after": _fenced(OLD, NEW, PATCH),
    "an outline after": _fenced(OLD, NEW, OUTLINE),
    "an outline before": _fenced(OUTLINE, NEW),
    "commands after": _fenced(OLD, NEW) + "\n```bash\npython alma.py check new.py\n```",
    "many fences before": "```text\na\n```\n" * 60 + _fenced(OLD, NEW),
    "no end of the last fence": _fenced(OLD, NEW)[:-3],
}


@pytest.mark.parametrize("answer", LAST_MODULE.values(), ids=LAST_MODULE.keys())
def test_the_last_whole_design_counts_and_not_the_longest(answer):
    assert extract_code(answer) == NEW


def test_a_design_for_the_authors_interface_or_without_a_base_is_one_too():
    theirs = _design("New", imported="agents.memo_structure", base="MemoStructure")
    plain = NEW.replace("(MemoryDesign)", "")
    for design in (theirs, plain):
        assert extract_code(_fenced(OLD, design, HELPER)) == design


def test_without_a_design_the_last_class_counts():
    assert extract_code(_fenced(HELPER, "class Small:\n    pass\n", "print(1)\n")) == "class Small:\n    pass\n"


def test_a_fence_inside_a_string_does_not_cut_the_last_design():
    prompt = 'PROMPT = """Answer so:\n```json\n{}\n```\nor\n```\nnothing\n```\n"""\n\n\n'
    assert extract_code(_fenced(OLD, prompt + NEW, "print(1)\n")) == prompt + NEW


def test_an_old_design_does_not_hide_the_error_in_the_new_one():
    broken = NEW.replace("return", "return (")
    assert extract_code(_fenced(OLD, broken)) == broken


@pytest.mark.parametrize("after", [HELPER, PATCH, "def helper():\n    return 1\n"])
def test_a_part_after_a_design_that_does_not_parse_does_not_hide_its_error(after):
    broken = NEW.replace("return", "return (")
    assert extract_code(_fenced(broken, after)) == broken


def test_of_two_designs_that_do_not_parse_the_last_counts():
    old, new = (design.replace("return", "return (") for design in (OLD, NEW))
    assert extract_code(_fenced(old, new)) == new
    assert extract_code(f"```bash\nls\n```\nThe module:\n```python\n{new}```\nDone.") == new


def test_a_long_sum_in_a_method_is_read():
    long = NEW.replace("return 'New'", "return " + " + ".join(["'New'"] * 600))
    assert extract_code(_fenced(OLD, long)) == long


def test_characters_inside_the_code_stay_as_they_are():
    code = "class Marks:\n    text = 'Action：“go”\u200b, ｒｉｇｈｔ、<|im_end|> <think>'\n"
    assert extract_code(f"```python\n{code}```") == code
    assert extract_code(code) == code


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


def test_items_behind_those_that_have_a_schema_each_are_no_schema_of_all():
    pair = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": False}
    schema = {"type": "object", "properties": {"pair": pair}, "required": ["pair"]}
    assert extract_json('{"pair": ["a", 1]}', schema) == {"pair": ["a", 1]}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("No.", "no JSON object"),
        (TEXT[:-5], "no JSON object that can be parsed: Expecting"),
        ('{"worked": NaN, "verdicts": []}', "NaN"),
        ('{"worked": []}', "'verdicts' is a required property"),
        ('{"worked": "a", "verdicts": []}', r"\$\.worked: 'a' is not of type 'array'"),
        ('{"worked": [1], "verdicts": []}', r"\$\.worked\[0\]"),
        ('{"worked": [], "verdicts": [{"item": "x", "verdict": "good"}]}', r"not one of \['helped', 'misled'\]"),
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


@pytest.mark.parametrize(
    ("value", "part", "message"),
    [
        ({"changes": [{"what": 3}]}, {"changes": {"type": "array", "items": {"type": "object", "properties": {"what": {"type": "string"}}}}},
         "The JSON is wrong at $.changes[0].what: 3 is not of type 'string'."),
        ({"n": 7}, {"n": {"maximum": 5}}, "The JSON is wrong at $.n: 7 is greater than the maximum of 5."),
        ({"n": "b" * 90}, {"n": {"enum": ["a"]}}, f"The JSON is wrong at $.n: '{'b' * 59}... is not one of ['a']."),
        ({"n": []}, {"n": {"minItems": 1}}, "The JSON is wrong at $.n: [] should be non-empty."),
        ({"n": "b"}, {"n": {"const": "a"}}, "The JSON is wrong at $.n: 'a' was expected."),
        ({"n": {"m": 1}}, {"n": {"required": ["m", "k"]}}, "The JSON is wrong at $.n: 'k' is a required property."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(value, part, message):
    with pytest.raises(AnswerError) as caught:
        check_schema(value, {"type": "object", "properties": part})
    assert str(caught.value) == message


def _object(**part) -> dict:
    return {"type": "object", "properties": {"a": part}}


def _nested(depth: int) -> dict:
    schema = _object()
    for _ in range(depth):
        schema = _object(**schema)
    return schema


CIRCLE = _object()
CIRCLE["properties"]["a"] = CIRCLE


@pytest.mark.parametrize(
    "schema",
    [
        None, "object", [], {}, {"facts": ["an example"]}, {"type": "array"}, {"type": ["object"]}, CIRCLE, _nested(5000),
        _object(type="text"), _object(type=3), _object(required=True), _object(items=[{}]), _object(minLength=-1),
        _object(properties=[]), _object(enum="a"), _object(default=b"bytes"), _object(maximum=float("nan")),
        _object(enum=list(range(10_000))),
    ],
)  # fmt: skip
def test_what_is_no_usable_schema_of_an_object_is_told(schema):
    assert not is_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        PLAN,
        _object(**{"$ref": "http://127.0.0.1:9/schema"}),
        {"type": "object", "$ref": "#", "allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        _object(pattern="(a+)+$"),
        _object(**{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(a+)+$", "$ref": "http://127.0.0.1:9/"}),
        _object(**{"$id": "http://[broken"}),
        _object(items={"enum": list(range(10, 1600))}),
        _object(anyOf=[{"type": "string"}] * 300),
    ],
)  # fmt: skip
def test_a_hostile_schema_neither_reaches_the_network_nor_takes_forever(schema, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    assert is_schema(schema)
    for value in ("a" * 60 + "!", [1599] * 8000):
        try:
            extract_json(json.dumps({"a": value, "worked": [], "verdicts": []}), schema)
        except AnswerError as error:
            assert "The JSON is wrong at $" in str(error)


def test_thoughts_and_marks_are_no_json():
    draft = '{"worked": ["a draft that is longer than the answer"], "verdicts": []}'
    for answer in (f"<reasoning>{draft}</reasoning>{TEXT}", f"{TEXT}<|eot_id|>", f"It is {draft}\n◁/think▷{TEXT}"):
        assert extract_json(answer, PLAN) == GOOD


def test_the_error_is_one_of_the_projects_kinds():
    assert AnswerError is errors.AnswerError
    assert str(AnswerError("It is wrong.", "so")) == "It is wrong."


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


# Each is a form in which models give an action; {} is the action.
FORMS = [
    # marks of chat templates
    "{}<|im_end|>", "{}</s>", "{}<|eot_id|>", "{}<end_of_turn>", "{}<|endoftext|>", "{}<eos>", "{}<|end|>\n",
    "<s>{}</s>", "{}<｜end▁of▁sentence｜>", "<|im_start|>assistant\n{}<|im_end|>", "<start_of_turn>model\n{}<end_of_turn>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>", "{}<|im_end|>\n<|im_start|>user\nwait<|im_end|>",
    "I don't know why.\n{}<|im_end|>", "{}.<|eot_id|><|eot_id|>", "<|assistant|>{}", "{}[/INST]",
    # channels
    "<|channel|>analysis<|message|>Is it wait?<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "<|channel|>final<|message|>{}", "analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{}",
    '<|channel|>final <|constrain|>json<|message|>{{"action": "{}"}}<|return|>', "analysisMaybe wait.assistantfinal{}",
    '<|channel|>commentary to=functions.act <|constrain|>json<|message|>{{"action": "{}"}}<|call|>',
    # thoughts
    "◁think▷wait? No.◁/think▷{}", "<thought>wait</thought>{}", "<reasoning>\n`wait`?\n</reasoning>\n\n{}",
    "<think>wait</think>\n{}", "<thinking>wait</thinking> {}", "[THINK]wait[/THINK]{}", "<seed:think>wait</seed:think>{}",
    "<|begin_of_thought|>wait<|end_of_thought|>\n<|begin_of_solution|>{}<|end_of_solution|>", "<scratchpad>wait</scratchpad>{}",
    "Well. <think>wait</think>{}", "Don't I \"wait\"? I'd say no.</think>{}", "Let me see: `wait`?\n◁/think▷\n{}",
    "<|im_start|>assistant\n<think>wait</think>\n\n{}<|im_end|>", '<think>The "</think>" ends it. wait</think>{}',
    "<inner_thoughts>wait</inner_thoughts>{}", "<reason>wait</reason><action>{}</action>", "<thought_process>wait</thought_process>{}",
    "<|channel|>analysis<|message|>wait<|end|><|start|>assistant<|message|>{}<|return|>", "<|channel>thought\nwait<channel|>{}<turn|>",
    # LaTeX
    "\\boxed{{{}}}", "\\boxed{{\\text{{{}}}}}", "The answer is $\\boxed{{{}}}$.", "\\[\\boxed{{\\mathbf{{\\text{{{}}}}}}}\\]",
    "wait is worse.\n\n$$\\fbox{{{}}}$$", "<|begin_of_box|>{}<|end_of_box|>",
    # a label before it
    "Thought: to wait is slow. Action: {}", "Thought: to wait is slow\nAction: {}", "Thought: not wait Action: {}",
    "Thought: Action: wait is slow.\nAction: {}\nObservation: a wall.\nThought: then so.\nAction: wait",
    "Action：{}", "Action： {}。", "**Action**: {}", "Act: {}", "Action 1: {}", "My final decision: {}", "Next move = {}",
    "wait, or {}? Final answer: {}", "Action: wait\nFinal action: {}", "I see. The best move is to {}.", "Command:\n{}",
    "### Answer\n{}", "## Final Answer\n\n**{}**", "**Answer**\n\n`{}`", "Answer\n------\n{}", "Answer:\n```\n{}\n```",
    "Action: {} (to wait is slow)", "Action: {}, because it is near.", "Action: {}. It is near.", "Action: {} - it is near",
    "Previous action: wait\nAction: {}", "Action -> {}", "I think that the best move is {}.", "Assistant: {}", "I choose: {}",
    # quotes and invisible or wide characters
    "“{}”", "‘{}’", "«{}»", "「{}」", "\u200b{}\u200b", "\ufeff{}", "Action:\u00a0{}\u2060", "\u00a0{}\u3000", "I choose “{}”.",
    # tags and JSON
    "<answer>{}</answer>", "<answer>\n{}\n</answer>", "To wait is slow. <answer>{}</answer>", "<final_answer>{}</final_answer>",
    "<answer>{}", "<answer><b>{}</b></answer>", "<answer>Action: {}</answer>", "<answer><answer>{}</answer></answer>",
    '{{"action": "{}"}}', '```json\n{{"action": "{}"}}\n```', '{{"thought": "wait is slow", "action": "{}"}}', "{{'action': '{}'}}",
    '{{"name": "act", "arguments": {{"action": "{}"}}}}', '<tool_call>{{"arguments": {{"action": "{}"}}}}</tool_call>',
    '{{"choice": {{"value": "{}"}}}}', '{{"action": "{}", "why": "to wait is slow"}}', '{{"why": "the action is wait", "move": "{}"}}',
    '[{{"selected_action": "{}", "others": ["wait"]}}]', "action: {}\nreason: to wait is slow", '<action kind="one">{}</action>',
    '<action name="{}"/>', '{{\n "reason": "to wait is slow",\n "next_action": "{}"\n}}',
    # a sentence
    "I will {}.", "I'll {}!", "I’ll {}.", "So I should {}, because it is near.", "I'm going to {}.", "Let's {}.",
    "To wait is slow, so I will {}.", "The wall is near. I choose {}.", "I will now {} since it is near.",
    # lists
    "I can\n- wait\n- {}\n\n{}",
]  # fmt: skip
WORDS = ["wait", "up", "right", "far north", "go north", "go to desk 1", "take mug 1 from desk 1", "open fridge"]


@pytest.mark.parametrize("form", FORMS)
def test_an_action_is_found_in_every_form(form):
    for action in WORDS[1:]:
        assert match_action(form.format(*[action] * 2), WORDS) == action


@settings(deadline=None)
@given(st.data())
def test_a_listed_action_is_found_again_in_each_form(data):
    word = st.text("bcdfghjklmnpqrstvxz", min_size=3, max_size=8)  # without vowels it is no English word
    actions = data.draw(st.lists(st.lists(word, min_size=1, max_size=4).map(" ".join), min_size=1, unique=True))
    action, form = data.draw(st.sampled_from(actions)), data.draw(st.sampled_from(FORMS))
    case = data.draw(st.sampled_from([str, str.upper, str.capitalize, _full_width]))
    assert match_action(form.format(*[case(action)] * 2), ["wait", *actions]) == action


def _full_width(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_an_answer_that_is_a_listed_action_is_that_action(actions, data):
    action = data.draw(st.sampled_from(actions))
    assert match_action(action, actions) == action


@pytest.mark.parametrize(
    "answer",
    [
        "left or right", "left, right", "left/right", "left\nright", "Either left or right.", "left, then right", "left -> right",
        "Action: left or right", "Action: left, right", "Action: left\nAction: right", "Action: `left` or `right`", "Action: left then up",
        "Action: left. Wait, actually right.", "Action: left and some more", "Action: left or `jump`", "Action: left. Action: right",
        '{"action": ["left", "right"]}', '{"left": 0.4, "right": 0.6}', '{"action": "left", "move": "right"}', '"left" or "right"',
        "<answer>left</answer> <answer>right</answer>", "<answer>left or right</answer>", "\\boxed{left} or \\boxed{right}",
        "I will go left or right.", "I will go left. Then I will go right.", "I will left and then right.", "`left`, so I will go right.",
        "Final answer: left\nFinal answer: right", "- left\n- right", "\\boxed{left}\nFinal answer: right", "The best move is left.\nright",
        "not left", "I will not go left.", "I will not choose `left`.", "I could go left.", "Should I go left?", "left?", "Wrong answer: left",
        "The last action: left", "I think the best action is not left.", "The answer is not left.", "pick up", "left is blocked", "Valid actions: left, right, up, down",
        "<think>left", "<thought>left", "◁think▷left", "<|channel|>analysis<|message|>left", "<|im_end|>", "</s>",
    ],
)  # fmt: skip
def test_an_answer_that_may_mean_another_action_is_none(answer):
    assert match_action(answer, ["up", "down", "left", "right", "idle"]) is None


@pytest.mark.parametrize("answer", ["I will go right.", "Move right", "I'll move to the right.", "Action: go right", "So I press right."])
def test_a_direction_may_have_a_verb_before_it(answer):
    expected = None if answer.startswith("So") else "right"  # "so I press" says no decision
    assert match_action(answer, ["up", "down", "left", "right", "idle"]) == expected


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
