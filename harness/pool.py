"""Where episodes are played: a pool of worker processes on this machine, or a Dask cluster.

If a worker dies, its episode is played again. The longest of the waiting episodes starts first. Episodes end in
any order. A worker holds no key: it asks the host for each answer of a real model.
"""

import asyncio
import contextlib
import errno
import functools
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from multiprocessing import forkserver, get_context, parent_process, resource_tracker, util
from pathlib import Path
from urllib.parse import urlsplit

from errors import InfrastructureError, UserError
from harness.run_folder import fingerprint
from models.fair_queue import FairQueue

PRELOAD_DOMAIN = "ALMA_PRELOAD_DOMAIN"  # environment variable that tells the fork server a domain to load
ATTEMPTS = 5  # times that an episode is sent to a worker before the run stops
CONNECT_SECONDS = 10.0  # that a scheduler has to answer
SOCKET_FOLDER = 75  # most characters of a folder in which `multiprocessing` makes sockets: an address has 107
ONE_AT_A_TIME = threading.Lock()  # all threads of a cluster's worker share one environment


def open_pool(domain: str, workers: int, scheduler: str, log: Callable[[str], None]) -> "Pool | Cluster":
    """The cluster of `scheduler` ("tcp://host:port"), or without one `workers` processes on this machine."""
    return Cluster(scheduler, log) if scheduler else Pool(domain, workers)


class Pool:
    """Worker processes on this machine, each with an executor of its own: if one dies, the others live on."""

    host = "127.0.0.1"  # address of this machine under which workers reach it

    def __init__(self, domain: str, workers: int):
        context = get_context("forkserver")  # it has neither the key nor a thread of the host
        context.set_forkserver_preload(["harness.preload"])
        # The folder for sockets, in TMPDIR or where its path is shorter; `multiprocessing` removes it at the end.
        chosen, places = tempfile.tempdir, ("/tmp", "/var/tmp", "/dev/shm")
        try:
            if len(os.fsencode(tempfile.gettempdir())) > SOCKET_FOLDER:
                tempfile.tempdir = next(place for place in places if os.access(place, os.W_OK))
            folder = util.get_temp_dir()
        except StopIteration:
            raise UserError(f"the path of TMPDIR is too long: at most {SOCKET_FOLDER} characters") from None
        finally:
            tempfile.tempdir = chosen
        self._domain, self._temporary = domain, tempfile.mkdtemp(prefix="alma-", dir=folder)
        try:
            context.Lock()
        except (OSError, ImportError) as error:
            if getattr(error, "errno", 0) in (errno.EMFILE, errno.ENFILE):
                raise
            raise UserError(f"worker processes need shared memory, and /dev/shm cannot be used here ({error}): "
                            "in a container, mount a tmpfs there (docker run --shm-size=64m)") from None  # fmt: skip
        # Makes a worker; its process starts with its first task.
        self._executor = functools.partial(ProcessPoolExecutor, 1, context, _start_worker, (self._temporary,))
        self._workers, self._idle = [self._executor() for _ in range(workers)], list(range(workers))
        self._queue = FairQueue(workers)
        with _starting(domain):
            pass  # the fork server loads the engine while the host goes on

    async def run(self, function: Callable, *args, length: float = 0.0):
        """`function(*args)` in a worker; an exception of the function itself is raised here.
        Of the calls that wait, the one with the greatest `length` (in any unit) starts first."""
        async with self._queue.turn(priority=length):
            number = self._idle.pop()
            try:
                for attempt in range(ATTEMPTS):
                    await asyncio.sleep(attempt / 2)  # the cause may pass
                    os.makedirs(self._temporary, exist_ok=True)  # somebody may have removed the workers' folder
                    try:
                        with _starting(self._domain):
                            future = self._workers[number].submit(function, *args)
                        return await asyncio.wrap_future(future)
                    except (BrokenProcessPool, ConnectionError, EOFError):  # a worker or the fork server died
                        self._workers[number].shutdown(wait=False, cancel_futures=True)
                        self._workers[number] = self._executor()
            finally:
                self._idle.append(number)
        raise InfrastructureError(f"workers died {ATTEMPTS} times over {function.__name__}{args}")

    def close(self) -> None:
        """End the workers at once and remove their temporary files."""
        processes = [process for executor in self._workers for process in (executor._processes or {}).values()]
        for executor in self._workers:
            executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(5.0)  # seconds that it has to end
        shutil.rmtree(self._temporary, ignore_errors=True)


@contextlib.contextmanager
def _starting(domain: str) -> Iterator[None]:
    """Block SIGINT for the processes started here: Ctrl-C is for the host alone."""
    resource_tracker.ensure_running()  # started later, by the fork server, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ[PRELOAD_DOMAIN] = domain
    try:
        forkserver.ensure_running()
        yield
    except FileNotFoundError:  # the fork server's socket; it cannot be started again while its workers live
        raise InfrastructureError("somebody has removed this run's temporary folder") from None
    finally:
        del os.environ[PRELOAD_DOMAIN]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(temporary: str) -> None:
    """Set a worker's temporary folder, and let the worker end with the host: the fork server outlives a killed one."""

    def end_with_host() -> None:
        parent_process().join()
        shutil.rmtree(Path(temporary).parent, ignore_errors=True)
        os._exit(1)

    tempfile.tempdir = temporary
    threading.Thread(target=end_with_host, daemon=True).start()


class Cluster:
    """The workers of a Dask scheduler. A lost worker's episodes are played by another one.
    Raises UserError where Dask is missing or the scheduler cannot be reached."""

    def __init__(self, address: str, log: Callable[[str], None]):
        try:
            import distributed  # slow, and installed only where it is wanted
        except ImportError:
            raise UserError("--scheduler needs Dask: pip install -r requirements-dask.txt, here and on every worker") from None
        self._distributed, self._address, self._code = distributed, address, fingerprint()
        self._connect = functools.partial(distributed.Client, address, timeout=CONNECT_SECONDS, set_as_default=False)
        self._reconnecting, host, port = asyncio.Lock(), None, None
        with contextlib.suppress(ValueError):
            if (place := urlsplit(address)).scheme == "tcp":
                host, port = place.hostname, place.port
        if not host or not port:
            raise UserError(f"--scheduler {address!r} is no address such as tcp://host:8786")
        try:  # the interface that reaches the scheduler: its workers can reach it too
            with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
                self.host = connection.getsockname()[0]
            self._client = self._connect()
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler answers at {address}: {error}") from None
        workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        log(f"episodes go to {address}: {workers} workers" + ("" if workers else "; waiting for the first"))

    async def run(self, function: Callable, *args, length: float = 0.0):
        """As `Pool.run`."""
        for _ in range(ATTEMPTS):
            executor = (client := self._client).get_executor(pure=False)
            future = executor.submit(in_worker, self._code, function, *args, priority=length)
            try:
                return await asyncio.wrap_future(future)
            except (self._distributed.KilledWorker, self._distributed.comm.CommClosedError):
                pass  # Dask itself gives up an episode over which several workers died
            except ImportError as error:
                raise InfrastructureError(f"a worker cannot play: {error}; start it in the repository") from None
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():
                    raise
            async with self._reconnecting:
                if client is self._client and client.status != "running":  # the scheduler has dropped it
                    try:
                        self._client = await asyncio.to_thread(self._connect)
                    except (OSError, ValueError) as error:
                        raise InfrastructureError(f"no Dask scheduler answers at {self._address}: {error}") from None
        raise InfrastructureError(f"workers of {self._address} died {ATTEMPTS} times over {function.__name__}{args}")

    def close(self) -> None:
        """Leave the cluster: this run's episodes there are dropped, the workers stay."""
        self._client.close(timeout=CONNECT_SECONDS)


def in_worker(code: str, function: Callable, *args):
    """`function(*args)` on a worker of a cluster, if it has the same code as the host."""
    if fingerprint() != code:
        raise InfrastructureError(f"the worker on {socket.gethostname()} has another version of this repository")
    with ONE_AT_A_TIME:
        return function(*args)
