"""Domains with short episodes: `--env bench.short:minihack_4` has 4 steps. Worker processes import this and no more."""

import functools

import envs


@functools.cache
def __getattr__(name: str) -> type[envs.Domain]:
    domain, _, steps = name.partition("_")
    if domain not in envs.DOMAINS or not steps.isdigit():
        raise AttributeError(name)
    engine = envs.domain_class(domain)
    return type(engine.__name__, (engine,), {"max_steps": int(steps), "__module__": engine.__module__})
