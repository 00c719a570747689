"""What stands behind `llm.py`: endpoints, answers, credentials, prices, storage."""

ROLES = ("meta", "agent", "memory", "embedding")  # what a model can be asked for
OFFLINE = "offline"  # the name of the stand-in for any model
