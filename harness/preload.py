"""The fork server imports this module before it forks the workers, so they share what is loaded here.

It saves each worker up to two seconds of CPU and most of its memory. It does its work at import time, because
`multiprocessing` lets a fork server preload only modules.
"""

import contextlib
import os

import envs
from harness.pool import PRELOAD_DOMAIN

if PRELOAD_DOMAIN in os.environ:
    with contextlib.suppress(Exception):  # a worker will meet the same error and report it
        envs.domain_class(os.environ[PRELOAD_DOMAIN]).load()
