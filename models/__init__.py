"""What stands behind `llm.py`: endpoints, answers, credentials, prices, storage."""

ROLES = ("meta", "agent", "memory", "embedding")  # what a model can be asked for
MOST_OUTPUT = {"meta": 32_000, "agent": 8_000, "memory": 8_000}  # tokens of an answer, reasoning included
OFFLINE = "offline"  # the name of the stand-in for any model
MANUAL = "manual"  # the name of a model that is answered by files
RECORDED = "recorded"  # the name of a meta agent whose answers are those of an earlier search
