"""The four domains and their engines. `envs.py` has the interface that they share."""

# The domain of each `--env`, as "module:class": an engine is imported when its domain is first used.
DOMAINS = {
    "alfworld": "domains.alfworld:ALFWorld",
    "textworld": "domains.textworld:TextWorld",
    "babaisai": "domains.babaisai:BabaIsAI",
    "minihack": "domains.minihack:MiniHack",
}
