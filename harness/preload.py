"""Imported by the fork server, which forks the workers: what is loaded here, they share.

It is the one module that works when it is imported, for a fork server of `multiprocessing` takes nothing but names
of modules. It saves each worker up to two seconds of CPU and most of its memory.
"""

import contextlib
import os

import envs
from harness.pool import PRELOAD_DOMAIN

if PRELOAD_DOMAIN in os.environ:
    with contextlib.suppress(Exception):  # a worker meets it again, and can say what it is
        envs.domain_class(os.environ[PRELOAD_DOMAIN]).load()
