"""What plays where there is no model. No result of theirs is a result of the method."""

from standins.offline import chat, embed

__all__ = ["chat", "embed"]
