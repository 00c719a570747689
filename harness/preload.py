"""Imported by the fork server before it forks: what is loaded here saves each worker two seconds and most memory."""

import contextlib
import os

import envs
from harness.pool import PRELOAD_DOMAIN

if PRELOAD_DOMAIN in os.environ:
    with contextlib.suppress(Exception):  # a worker will meet the same error and report it
        envs.domain_class(os.environ[PRELOAD_DOMAIN]).load()
