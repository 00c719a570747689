"""Stand-ins for the models, so that the whole method runs with no key and no network.

Each answer follows from the text of the prompt and the seed alone, in every process and on every machine. These are
no language models; their scores reproduce nothing but the loop around them.
"""

from errors import UserError
from standins.agent import act
from standins.memory import embed, extract
from standins.sketch import write

__all__ = ["chat", "embed"]


def chat(role: str, messages: list[dict], schema: dict | None = None, seed: int = 0) -> str:
    """The answer of a role, "agent", "meta" or "memory" (in designs); UserError for unknown roles or stages."""
    if role == "agent":
        return act(messages, seed)
    if role == "meta":
        return write(messages, seed)
    if role == "memory":
        return extract(messages, schema)
    raise UserError(f"no stand-in for the role {role!r}: agent, meta or memory")
