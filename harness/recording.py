"""Makes a recording of a finished search, and gives a replay its settings; `models/recorded.py` gives the answers.

Promises: the recording holds every answer of the meta agent that made the archive, as it came, and they give the
archive's designs; a run that is not finished, or that holds a secret, is refused; each file is written whole.
"""

import argparse
import ast
import gzip
import json
import zlib
from dataclasses import asdict
from pathlib import Path

from alma import design_id
from errors import AnswerError, UserError
from harness.config import NAMES, SHAPELESS, Config, arguments, command_line, flag, from_json
from harness.run_folder import RunFolder, write_atomic
from models import MANUAL, OFFLINE, RECORDED
from models.answers import extract_code
from models.credentials import find_secret
from models.recorded import FILE, Recording
from models.store import Store
from report.data import LEARNED, Node, RunData, read_result, read_run
from report.page import picture, recorded
from report.words import difference_words, experience_words, line, percent


def settings_of(folder: Path, env: str, agent_model: str) -> dict:
    """The settings of a recorded search, by name: the defaults of its replay. Raises UserError."""
    head = Recording.read(path := folder / FILE).head
    if head["domain"] != env:
        raise UserError(f"{path} is of the domain {head['domain']}, not of {env}")
    found = {name: value for name, value in head["settings"].items() if name in NAMES and name not in SHAPELESS}
    if wrong := [name for name, value in found.items() if type(value) is not type(getattr(Config, name))]:
        raise UserError(f"{path}, line 1: the setting {wrong[0]} is not of its type")
    flags = argparse.ArgumentParser(exit_on_error=False)  # a value that no flag takes is none for a recording
    for one, options in arguments():
        flags.add_argument(*one, **options)
    for name, value in found.items():
        try:
            flags.parse_args([] if value in (False, "") else flag(name, value)[: 1 if value is True else None])
        except argparse.ArgumentError as error:
            raise UserError(f"{path}, line 1: {error}") from None
    if found.get("agent_model") != agent_model:  # it becomes another search, which only has as many steps
        found = {"steps": found.get("steps", 0)}
    return {name: value for name, value in found.items() if name not in ("env", "seed") and not name.endswith("_model")}


def write_recording(path: Path, to: Path, by: str = "", force: bool = False) -> list[Path]:
    """Record the run in the folder `path` in the folder `to`; returns the files. Raises UserError. `by` says who
    answered as the meta agent, where the name of the model does not; `force` replaces a recording."""
    folder, run = RunFolder.open(path), read_run(path)
    settings = from_json(folder.config())
    if settings.meta_model in (OFFLINE, RECORDED):
        raise UserError(f"{path}: no model wrote its designs, but {settings.meta_model}: there is nothing to record")
    learned, steps = run.learned, max((node.step for node in run.nodes), default=0)
    if not learned or steps < settings.steps or run.state.kind != "finished":
        raise UserError(f"{path} holds no finished search: {run.state.words}")
    if (to / FILE).exists() and not force:
        raise UserError(f"there is a recording in {to}: --force replaces it")
    with Store(path / "store.sqlite") as store:
        calls, others = store.calls("meta"), store.calls("memory")

    def refuse_secrets(place: Path, data: bytes | str) -> None:
        if found := find_secret(data if isinstance(data, bytes) else data.encode("utf-8", "replace")):
            raise UserError(f"{place} holds {found}: nothing is recorded")

    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        try:
            refuse_secrets(file, gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"cannot read {file}: {error}: nothing is recorded") from None
    for call in (*calls, *others):  # which are compressed in their file
        refuse_secrets(path / "store.sqlite", f"{call.request}\n{call.answer}")

    # The answers that made each candidate, in the order in which they were asked for, must give its design.
    answers = []
    for design in folder.archive():
        name = design["candidate"]
        # An answer that came again in place of a useless one counts.
        last = {(call.stage, call.sample.removeprefix(name).strip()): call for call in calls if call.design == name}
        code = [call.answer for (stage, _), call in last.items() if stage != "ideate"]
        try:
            made = design_id(extract_code(code[-1])) if code else ""
        except AnswerError:
            made = ""
        if not last or (design["state"] != "dropped" and made != design["id"]):
            why = "do not give its design (was the run resumed with other prompts?)"
            raise UserError(f"{path}: the stored answers of candidate {name} {why}")
        answers += [{"candidate": name, "id": design["id"], "parents": design["parents"], "stage": stage, "try": again,
                     "prompt": call.prompt_hash, "answer": call.answer, **({"fault": call.fault} if call.fault else {})}
                    for (stage, again), call in last.items()]  # fmt: skip

    who = line(by, 200) or (f"somebody, by hand ({MANUAL})" if settings.meta_model == MANUAL else settings.meta_model)
    head = {"domain": settings.env, "seed": settings.seed, "by": who, "meta_model": settings.meta_model,
            "date": f"{run.state.ended:%Y-%m-%d}" if run.state.ended else "unknown",
            "settings": {name: value for name, value in asdict(settings).items() if name not in SHAPELESS},
            "versions": {name: value for name, value in run.about.items() if name not in ("command", "labels")},
            "answers": len(answers)}  # fmt: skip
    facts = [*about_design(run, learned), f"Written by: {who}. Labels of the run: {', '.join(run.labels) or 'none'}."]
    replay = command_line("reproduce", *flag("env", settings.env), *flag("seed", settings.seed), *flag("recording", to))
    files = {
        "archive.jsonl": (path / "archive.jsonl").read_text(encoding="utf-8"),
        "archive.svg": picture(run),
        "learned.py": with_docstring(folder.code(learned.id), "\n".join(facts) + "\n"),
        "README.md": recorded(run, head, replay),
        # Last, for it is what makes the folder a recording.
        FILE: "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in (head, *answers)),
    }
    for name, content in files.items():
        refuse_secrets(to / name, content)
    for name, content in files.items():
        write_atomic(to / name, content)
    return [to / name for name in files]


def about_design(run: RunData, node: Node) -> list[str]:
    """Where a design of a run comes from: its lineage and its scores, a line each."""
    lineage = " > ".join(f"{one.name} ({one.id}, {percent(one.score)} %)" for one in run.lineage(node))
    lines = [f"Memory design {node.id}, learned by ALMA on {run.config['env']}, candidate {node.name} of its search.",
             f"Lineage, first design first, with the success on the learning set: {lineage}"]  # fmt: skip
    tests = {key: rows[LEARNED] for key, rows in run.results.items() if LEARNED in rows and node is run.learned}
    for key, score in {"learning-static": read_result(node.name, run.design(node).score), **tests}.items():
        if score and score.interval:
            lead = difference_words(score.difference, score.interval)
            text = f"{percent(score.mean)} % ± {percent(score.stderr)} (standard error), {lead} points to no memory [95 %]"
            text += f"; {experience_words(score.experience, run.noise(key))}" if score.experience else ""
            lines.append(f"{key.replace('-', ' set, ')}: {text}")
    return lines


def with_docstring(code: str, facts: str) -> str:
    """A module with these facts at the end of its docstring."""
    tree, head, rest = ast.parse(code), "", f"\n\n{code}"
    if (own := ast.get_docstring(tree, clean=False)) is not None:
        head, _, rest = code.partition(ast.get_source_segment(code, tree.body[0]))
    text = f"{own.rstrip()}\n\n{facts}" if own else facts
    text = text.translate({ord("\\"): "\\\\", 0: "\\0", ord("\r"): "\\r"}).replace('"""', '\\"\\"\\"')
    return f'{head}"""{text}"""{rest}'
