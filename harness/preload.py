"""Imported by the fork server alone, which forks the workers: what is loaded here they share.

The one module that works when it is imported, for a fork server of `multiprocessing` can be told
nothing else. It spares each worker up to two seconds of CPU and most of its memory.
"""

import os

import envs

DOMAIN = "ALMA_PRELOAD_DOMAIN"  # environment variable with a domain as in `--env`, set by `pool.Pool`

if DOMAIN in os.environ:
    envs.domain_class(os.environ[DOMAIN]).load()
