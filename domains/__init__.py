"""The four domains and their engines; `envs.py` has the registry and the interface."""
