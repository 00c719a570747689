# This file is shown to the meta agent word for word: its docstrings are inputs of the experiment.
"""What a memory design is, and the tools that it may use.

A memory design is a class that subclasses `MemoryDesign`. It starts empty, gets finished
episodes one at a time through `general_update`, and is asked through `general_retrieve` before
a new task; what that returns goes into the agent's prompt as it is. A design runs in a sandbox:
standard library, numpy and networkx are there, and the current folder can hold a few files;
network, other files and new processes are not. Models are reached through the tools below.

One call of a method may use 20 seconds of CPU time and 512 model calls of up to 400,000
characters, and a memory 768 MB and 64 threads; what is retrieved may have 1,000,000 characters.
"""

import asyncio
import dataclasses
import importlib.util
import inspect
import json
import sys
import threading
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

__all__ = ["Agent", "Document", "Embedding", "MemoryDesign", "MemoryLayer", "Trajectory", "VectorStore",
           "embed", "llm", "load_design"]


@dataclasses.dataclass
class Trajectory:
    """One episode of the agent in its environment.

    `init`: dict, what is known before the first action. Its keys depend on the domain:
        ALFWorld `obs`, `actions_list`, `goal`; TextWorld and Baba Is AI `obs`, `goal`;
        MiniHack `long_term_context`, `short_term_context`, `action_dict`, `goal`.
    `steps`: list of dicts, one for each action: `action_took` (text), then the observation that
        followed under the same keys as in `init`, `scores` (float, task score so far) and
        `dones` (bool). Empty in `general_retrieve`.
    `reward`: float in [0, 1], the score of the finished task: 1 is a success, 0 a failure.
    """

    init: dict[str, Any]
    steps: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reward: float = 0.0


class MemoryLayer(ABC):
    """One part of a memory: a database and the way it is read and written. Using it is optional."""

    @abstractmethod
    async def retrieve(self, **kwargs) -> Any:
        """Return what this layer knows of the arguments."""

    @abstractmethod
    async def update(self, **kwargs) -> Any:
        """Take the arguments into this layer."""


class MemoryDesign(ABC):
    """A memory: subclass it, keep any state in `self`, take no argument in `__init__`."""

    @abstractmethod
    async def general_update(self, trajectory: Trajectory) -> None:
        """Learn from one finished episode."""

    @abstractmethod
    async def general_retrieve(self, trajectory: Trajectory) -> dict[str, Any] | str:
        """Return what helps with the task that begins with `trajectory.init`.

        `trajectory.steps` is empty and `trajectory.reward` is 0. The answer must be JSON: an
        object by habit, or a plain string. It is shown to the agent before its first action, so
        it should be short, true and specific to the task. Empty means nothing is shown.
        """


class Agent:
    """A language model with a fixed instruction. Calls cost money and are limited in number.

    `output_schema`: JSON schema of an object; `ask` then returns a dict of that form.
    `model`: ignored unless the user allows designs to choose their models.
    """

    def __init__(self, system_prompt: str, output_schema: dict | None = None, model: str | None = None):
        self.system_prompt, self.model = system_prompt, model
        self.output_schema = _object_schema(output_schema) if output_schema else None
        self.history: list[tuple[str, str]] = []  # what was asked and answered so far

    async def ask(self, user_input: str, with_history: bool = False) -> Any:
        """The model's answer: text, or a dict where there is an `output_schema`.

        `with_history` shows the model what this object asked and was answered before. Raises
        TypeError for an input that is no string, ValueError for an answer that is no JSON object.
        """
        user = _text(user_input, "user_input")
        if with_history and self.history:
            turns = "\n\n".join(f"User: {asked}\nYou: {answered}" for asked, answered in self.history)
            user = f"Earlier in this conversation:\n\n{turns}\n\nNow:\n\n{user}"
        system = _text(self.system_prompt, "system_prompt")
        answer = await _connected().ask(system, user, self.output_schema, self.model)
        self.history.append((user_input, answer))
        return answer if self.output_schema is None else _parse_object(answer)


class Embedding:
    """Turns texts into vectors (lists of floats, all of one length)."""

    async def get_embedding(self, text: str) -> list[float]:
        return (await embed([text]))[0]

    async def get_batch_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await embed(texts)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The same from synchronous code; blocks."""
        return _from_sync_code(embed, list(texts))

    def embed_query(self, text: str) -> list[float]:
        """The same for one text, from synchronous code; blocks."""
        return _from_sync_code(embed, [text])[0]

    @staticmethod
    def compute_similarity(a: list[float], b: list[float]) -> float:
        """Cosine of two vectors, in [-1, 1]; 0 where one of them is all zeros."""
        return Embedding.compute_one_to_group_similarity(a, [b])[0]

    @staticmethod
    def compute_one_to_group_similarity(one: list[float], group: list[list[float]]) -> list[float]:
        """Cosine of `one` with each vector of `group`, in the same order."""
        if len(group) == 0:
            return []
        import numpy as np  # slow to import, and not all who read this module need it

        vector, matrix = np.asarray(one, float), np.asarray(group, float)
        norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
        return np.divide(matrix @ vector, norms, out=np.zeros(len(matrix)), where=norms > 0).tolist()


@dataclasses.dataclass
class Document:
    """A text in a vector store."""

    page_content: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    id: str = ""


class VectorStore:
    """Texts that are found again by the similarity of their embeddings.

    Its calls are synchronous and may be used inside `async` methods.
    """

    def __init__(self, embedding_function: Any = None):
        self._embedding = embedding_function or Embedding()
        self._documents: dict[str, Document] = {}  # by id, in the order of adding
        self._vectors: dict[str, list[float]] = {}

    def add_texts(self, texts: list[str], metadatas: list[dict] | None = None,
                  ids: list[str] | None = None) -> list[str]:
        """Add texts and return their ids; an id that exists is overwritten."""
        texts = list(texts)
        ids = list(ids) if ids else [str(uuid.uuid4()) for _ in texts]
        metadatas = metadatas or [{} for _ in texts]
        vectors = self._embedding.embed_documents(texts) if texts else []
        for key, text, metadata, vector in zip(ids, texts, metadatas, vectors, strict=True):
            self._documents[key] = Document(text, dict(metadata or {}), key)
            self._vectors[key] = vector
        return ids

    def similarity_search(self, query: str, k: int = 4, filter: dict | None = None) -> list[Document]:
        """The `k` most similar documents, best first; `filter` names metadata that must be equal."""
        keys = [key for key, document in self._documents.items()
                if all(document.metadata.get(name) == value for name, value in (filter or {}).items())]
        if not keys:
            return []
        group = [self._vectors[key] for key in keys]
        scores = Embedding.compute_one_to_group_similarity(self._embedding.embed_query(query), group)
        best = sorted(range(len(keys)), key=lambda i: -scores[i])[:k]
        return [self._documents[keys[i]] for i in best]

    def get(self, ids: list[str] | str | None = None) -> dict[str, list]:
        """Documents by id, or all: {"ids": [...], "documents": [texts], "metadatas": [dicts]}."""
        ids = [ids] if isinstance(ids, str) else self._documents if ids is None else ids
        found = [self._documents[key] for key in ids if key in self._documents]
        return {"ids": [one.id for one in found], "documents": [one.page_content for one in found],
                "metadatas": [one.metadata for one in found]}

    def delete(self, ids: list[str] | str | None = None) -> None:
        """Remove documents by id; an unknown id is ignored."""
        for key in [ids] if isinstance(ids, str) else ids or []:
            self._documents.pop(key, None)
            self._vectors.pop(key, None)


async def llm(prompt: str) -> str:
    """Short form: the model's answer to one prompt."""
    return await Agent("").ask(prompt)


async def embed(texts: list[str]) -> list[list[float]]:
    """Short form: one vector for each text."""
    if not isinstance(texts, (list, tuple)):
        raise TypeError(f"texts must be a list of strings, not {type(texts).__name__}")
    texts = [_text(text, "a text to embed") for text in texts]
    return await _connected().embed(texts) if texts else []


# ------------------------------------------------ for those who run designs; designs need none of it

from concurrent.futures import Future  # noqa: E402 - what stands above is an input of experiments
from typing import Protocol  # noqa: E402 - what stands above is an input of experiments

_connection: list["Tools"] = []  # the one object that answers the tools, see `connect`


class Tools(Protocol):
    """What designs may call outside of their process; arguments and results are JSON. The sandbox passes on each method
    that is declared here, by position, after it has checked the arguments against their declared types."""

    async def ask(self, system: str, user: str, schema: dict | None, model: str | None) -> str:
        """A model's answer; where there is a JSON schema, it should be of that form."""

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""


def connect(tools: Tools) -> None:
    """Let `tools` answer the tools above from now on, in this whole process. The sandbox does it for its designs."""
    _connection[:] = [tools]


def read_source(path: str | Path) -> str:
    """The text of a Python file as Python reads it: a byte order mark and a coding line hold. Raises SyntaxError."""
    try:
        return importlib.util.decode_source(Path(path).read_bytes())
    except UnicodeDecodeError as error:
        raise SyntaxError(f"{path}: {error}") from None


def load_design(path: str | Path) -> type[MemoryDesign]:
    """The design's class in a Python file. This runs the file here, with no sandbox around it."""
    spec = importlib.util.spec_from_file_location(f"design_{Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return find_design(module)


def find_design(module: Any) -> type[MemoryDesign]:
    """The last class of a module that subclasses MemoryDesign, else that has its two methods."""
    methods = ("general_update", "general_retrieve")
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    derived = [one for one in classes if issubclass(one, MemoryDesign)]
    found = [one for one in derived if not any(other is not one and issubclass(other, one) for other in derived)]
    if not found:  # where methods of a subclass are missing, making an instance says which
        found = [one for one in classes if all(callable(getattr(one, name, None)) for name in methods)]
    if not found:
        raise TypeError("no class subclasses MemoryDesign, nor does one define both " + " and ".join(methods))
    return found[-1]


def _connected() -> "Tools":
    if not _connection:
        raise RuntimeError("no models: call memory_base.connect(tools) first")
    return _connection[0]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return value


def _from_sync_code(function: Any, argument: Any) -> Any:
    """Run an async function to its end in a thread, for this thread may already run an event loop."""
    outcome: Future = Future()

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(function(argument)))
        except BaseException as error:  # raised again in the thread that asked
            outcome.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome.result()


def _object_schema(schema: dict) -> dict:
    """A JSON schema of an object; {"name": {"type": ...}, ...} is taken as its properties."""
    if isinstance(schema.get("schema"), dict):  # the wrapped form of chat endpoints
        schema = schema["schema"]
    if "properties" in schema or ("type" in schema and isinstance(schema["type"], str)):
        return schema
    return {"type": "object", "properties": schema, "required": list(schema), "additionalProperties": False}


def _parse_object(answer: str) -> dict[str, Any]:
    """The JSON object in a model's answer, which may stand in a code fence or between words."""
    try:
        return json.loads(answer[answer.find("{") : answer.rfind("}") + 1])
    except ValueError as error:
        raise ValueError(f"the model's answer is no JSON object: {answer[:200]!r}") from error
