"""Domains with short episodes, for evaluations in seconds: `--env bench.short:minihack_4` has 4 steps.

A module of its own, because every worker process imports it and should import nothing else.
"""

import functools

import envs


@functools.cache
def __getattr__(name: str) -> type[envs.Domain]:
    domain, _, steps = name.partition("_")
    if domain not in envs.DOMAINS or not steps.isdigit():
        raise AttributeError(name)
    engine = envs.domain_class(domain)
    return type(engine.__name__, (engine,), {"max_steps": int(steps), "__module__": engine.__module__})
