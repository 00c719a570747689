"""Domains with short episodes, for evaluations in seconds: `--env bench.short:minihack_4` has 4 steps.

A module of its own, because every worker process imports it and should import nothing else.
"""

import functools

import envs


def __getattr__(name: str) -> type[envs.Domain]:
    domain, _, steps = name.partition("_")
    if domain in envs.DOMAINS and steps.isdigit():
        return _short(domain, int(steps))
    raise AttributeError(name)


@functools.cache
def _short(domain: str, steps: int) -> type[envs.Domain]:
    engine = envs.domain_class(domain)
    return type(engine.__name__, (engine,), {"max_steps": steps, "__module__": engine.__module__})
