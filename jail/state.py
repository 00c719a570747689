"""What a memory has learned, as one text, so that it need not be learned again for each task.

Runs inside the sandbox alone: the text is the design's compiled code and a pickle, which only the same
design reads again, in a jail like the one that wrote it; the host passes it on and looks at nothing but its size.
It promises to give up (`None`) rather than to lose something that it can see: files, threads, and
whatever a design changed in its module's globals, its classes' attributes, its functions' defaults. What it
cannot see (a closure's variables, an object's address used as a key) the host finds out by
comparing a retrieval before and after (`evaluate.py`). Tried by `pytest tests/test_sandbox_state.py`.
"""

import base64
import inspect
import itertools
import marshal
import os
import pickle
import random
import sys
import threading
import types
import zlib

import numpy

LEVEL = 1  # of the compression: trajectories repeat themselves so much that more gains little
OUR_THREADS = {"MainThread", "replies"}
CODE = (types.ModuleType, type, types.FunctionType, staticmethod, classmethod, property, types.MemberDescriptorType,
        types.GetSetDescriptorType)


def save(design: object, code: types.CodeType, before: bytes | None, folder: str, most: int) -> str | None:
    """The design's code and state in at most `most` characters; None where that is not all of its state.

    `before`: its module's `surroundings` when it was loaded; `folder`: where it may have written files.
    """
    threads = {thread.name for thread in threading.enumerate()} - OUR_THREADS
    if before is None or threads or os.listdir(folder) or surroundings(sys.modules[type(design).__module__]) != before:
        return None
    try:
        state = pickle.dumps((design, random.getstate(), numpy.random.get_state()), protocol=5)
    except Exception:  # a design's own code pickles its objects, and may raise anything
        return None
    text = base64.b64encode(zlib.compress(pickle.dumps((marshal.dumps(code), state)), LEVEL)).decode()
    return text if len(text) <= most else None


def opened(text: str) -> tuple[types.CodeType, bytes]:
    """The code, and the state to `restore` once its module is there, of what `save` wrote."""
    code, state = pickle.loads(zlib.decompress(base64.b64decode(text)))
    return marshal.loads(code), state


def restore(state: bytes) -> object:
    """The design whose state `save` kept; its module must be there."""
    design, seeds, numpy_seeds = pickle.loads(state)
    random.setstate(seeds)
    numpy.random.set_state(numpy_seeds)
    return design


def surroundings(module: types.ModuleType) -> bytes | None:
    """What a design's module holds outside of the design itself; None where that is not known."""
    try:
        classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
        holders = [vars(module), *map(vars, classes)]
        functions = filter(inspect.isfunction, itertools.chain.from_iterable(holder.values() for holder in holders))
        defaults = [(one.__defaults__, one.__kwdefaults__, vars(one)) for one in functions]
        return pickle.dumps([[_data(holder) for holder in holders], defaults])
    except Exception:  # as above: what cannot be known is not kept
        return None


def _data(holder: dict) -> dict:
    """What in a module's or a class's names is data."""
    names = [name for name in holder if not name.startswith("__") and name != "_abc_impl"]
    return {name: holder[name] for name in names if not isinstance(holder[name], CODE) and not _wraps(holder[name])}


def _wraps(value: object) -> bool:
    """Whether a value is a decorated function: a cache of what can be calculated again."""
    return hasattr(value, "__wrapped__")
