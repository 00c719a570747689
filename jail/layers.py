"""The jail: what the template and each worker do to themselves before a design runs.

Layers, from the outside in; a worker names those that hold in its first message:
1. clean start: the template was started by exec in an empty environment (`template.py`),
2. `namespaces`: of users, pids, net, ipc, uts and mounts; the root is a small tmpfs with read-only binds of the Python
   runtime, and each worker has a scratch folder of limited size,
3. `no-new-privs` and `no-capabilities`; the worker dies with the template, the template with the host,
4. `limits`: resource limits,
5. `landlock`: read the runtime, write the scratch folder, no TCP, no signals to the outside,
6. `seccomp`: a list of allowed system calls; no fork, exec, socket, kill, ptrace, shared memory, ...

Where namespaces are refused (Docker's default profile), layers 3 to 6 hold alone. The scratch folder is then on the
host's disk, and no file is created in it that the template does not count: else a design could fill the disk.
Elsewhere than on Linux on x86-64, whose numbers of system calls and flags stand here, the host refuses to go on.
"""

import contextlib
import ctypes
import errno
import gc
import itertools
import operator
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import sysconfig
import threading
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
SCRATCH = "/scratch"  # in the mount namespace
FIRST_USER = 1 << 31  # as root, workers run as users from here on, one each; nobody else uses these
NOBODY = 65534  # what the only user of a user namespace is called in it
DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")  # not zero: mapped, it is memory that forks share
WHOLE = 0xFFFFFFFF  # a word, all of it

CLONE_PARENT, CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00008000, 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SYS_CLONE, SYS_SETSID, SYS_CAPSET, SYS_PIVOT_ROOT, SYS_SECCOMP = 56, 112, 126, 155, 317
SYS_CLOSE_RANGE, SYS_MOUNT_SETATTR = 436, 442
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446


def _call(function, *arguments) -> int:
    """A libc function's value; OSError where it fails."""
    arguments = [os.fsencode(one) if isinstance(one, str) else one for one in arguments]
    result = function(*[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")
    return result


def enter_template(setup: dict) -> None:
    """Make this process end with the host, and enter namespaces where the kernel allows them."""
    os.umask(0o022)  # workers are other users and have to read what is made here
    # What a design may read: Python, its packages, the libraries beside it, shared ones, time zones, some devices.
    paths = [sysconfig.get_path(name) for name in ("platstdlib", "purelib", "platlib")]
    paths += [os.path.dirname(sysconfig.get_path("stdlib")), "/lib", "/lib64", "/usr/lib", "/usr/lib64",
              "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    paths = sorted({os.path.abspath(path) for path in paths if os.path.exists(path)})
    inside = [path for path in paths if not any(path.startswith(other + "/") for other in paths)]
    setup.update(runtime=[*inside, *filter(os.path.exists, DEVICES)], namespaces=None, own_users=False)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1024 if hard == resource.RLIM_INFINITY else min(hard, 1024)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    setup["limits"]["open_files"] = min(setup["limits"]["open_files"], most - 8)
    setup["next_user"] = FIRST_USER + int.from_bytes(os.urandom(3), "big") * 64
    setup["linux"] = sys.platform == "linux" and platform.machine() == "x86_64" and "linux" not in setup["disable"]
    if not setup["linux"]:
        return
    _call(LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != setup["host"]:
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("900")  # where memory runs out, a worker goes before the host does
    last = FIRST_USER + (1 << 30)  # the root of a container may have only a few user ids
    setup["own_users"] = os.geteuid() == 0 and _works(lambda: os.setresuid(last, last, last))
    # Can the template enter namespaces, and then a worker?
    if "namespaces" not in setup["disable"] and _works(lambda: (_enter_namespaces(setup), _enter_own_root(setup))):
        _enter_namespaces(setup)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        _call(LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGTERM)  # there may be scratch folders to remove
    setup["template"] = os.getpid()


def _works(attempt: Callable) -> bool:
    """Whether something is allowed that cannot be undone, tried in another process."""
    if (pid := os.fork()) == 0:
        with contextlib.suppress(OSError):
            attempt()
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in (-signal.SIGKILL, -signal.SIGKILL & 0xFF):  # the process, or the one inside that it is the stub of
        sys.exit("something killed the process in which it tried what the kernel allows")
    return code == 0


def _enter_namespaces(setup: dict) -> None:
    """Become process 1 of new namespaces with a root of their own; the caller stays as a stub outside."""
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    # No user namespace is made here where each worker can be given a user of its own.
    _call(LIBC.unshare, flags | (0 if setup["own_users"] else CLONE_NEWUSER))
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    if not setup["own_users"]:
        _map_user(proc, user, group)
    alive, ours = os.pipe()
    if pid := os.fork():
        os.close(alive)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
    os.close(ours)
    _call(LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # the stub has died before the line above
    own = os.open("self/ns/pid", os.O_RDONLY, dir_fd=proc)
    # A small tmpfs becomes the root of this mount namespace.
    place = "/proc"  # a folder that is always there and holds nothing that is bound below
    _call(LIBC.mount, None, "/", None, MS_REC | MS_PRIVATE, None)
    _call(LIBC.mount, "tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    for path in setup["runtime"]:
        target = place + path
        os.makedirs(target if os.path.isdir(path) else os.path.dirname(target), exist_ok=True)
        if not os.path.isdir(path):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        _call(LIBC.mount, path, target, None, MS_BIND | MS_REC, None)
    os.mkdir(place + SCRATCH)
    if not os.path.exists(place + "/tmp"):
        os.symlink(SCRATCH, place + "/tmp")
    attributes = struct.pack("QQQQ", 1 | 2, 0, 0, 0)  # MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
    _call(LIBC.syscall, SYS_MOUNT_SETATTR, -100, place, 0x8000, attributes, len(attributes))  # AT_RECURSIVE
    socket.sethostname("sandbox")
    os.chdir(place)
    _call(LIBC.syscall, SYS_PIVOT_ROOT, b".", b".")
    _call(LIBC.umount2, b".", 2)  # MNT_DETACH
    os.chdir("/")
    setup["namespaces"] = {"proc": proc, "pid": own}


def _map_user(proc: int, user: int, group: int) -> None:
    """Let this process's new user namespace have one user and one group, which are called NOBODY inside."""
    lines = ("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")
    for name, line in lines:
        with open(os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc), "w") as file:
            file.write(line)


def fork(setup: dict, forks: bool) -> tuple[int, int]:
    """Fork a worker in a process group (and pid namespace) of its own: its process id (0 in it) and the group's id."""
    setup["next_user"] += 1
    setup["threads"] = setup["limits"]["threads"] * (1 + setup["most_forks"] * forks)  # of a worker and its forks
    space, first = setup["namespaces"], 0
    if space is None and setup["linux"] and not setup["own_users"]:  # the kernel counts all that this user runs
        setup["threads"] += 400  # that other programs may start meanwhile
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == os.geteuid():
                    setup["threads"] += os.stat(f"/proc/{name}/task").st_nlink - 2
    if space is not None:
        _call(LIBC.unshare, CLONE_NEWPID)
        if forks and (first := os.fork()) == 0:
            # The first process of the pid namespace, with which all others end, leads the process group. The
            # worker is the second: the first one may have no siblings.
            _call(LIBC.syscall, SYS_CLOSE_RANGE, 0, WHOLE, 0)
            while True:
                LIBC.pause()
        if forks:
            os.setpgid(first, first)
    if pid := os.fork():
        os.setpgid(pid, first or pid)
        if space is not None:
            _call(LIBC.setns, space["pid"], CLONE_NEWPID)  # else the next unshare is refused
    return pid, first or pid


def lock_down(setup: dict, scratch: str | None, notify: int) -> tuple[list[str], bool]:
    """Apply every layer to this process of one thread: the layers that hold, whether the template supervises it.

    Through the socket `notify` the template gets the listener for notified system calls.
    """
    layers, supervised, limits, own_root = [], False, setup["limits"], setup["namespaces"] is not None
    scratch = scratch or SCRATCH
    if setup["linux"]:
        if own_root:
            _enter_own_root(setup)
            layers.append("namespaces")
        elif setup["own_users"]:
            # The kernel counts threads for a real user id other than 0 only. The effective id, by which files
            # are judged, stays 0; seccomp refuses to change either.
            os.setresuid(setup["next_user"], 0, 0)
        # Above the limit of descriptors: none can be put in its place when it is closed.
        notify = os.dup2(notify, limits["open_files"] + 1)
        # Close what is not one of the first four, also what leads out of the root.
        _call(LIBC.syscall, SYS_CLOSE_RANGE, 4, notify - 1, 0)
        _call(LIBC.syscall, SYS_CLOSE_RANGE, notify + 1, WHOLE, 0)

    # Enter the scratch folder, and limit what the kernel counts.
    os.chdir(scratch)
    os.environ["HOME"] = os.environ["TMPDIR"] = scratch
    wanted = {
        "AS": limits["memory_bytes"], "CPU": limits["life_cpu_seconds"],
        "FSIZE": limits["scratch_bytes"] if own_root else 2 << 20,  # of each file
        "NOFILE": limits["open_files"], "NPROC": setup["threads"],
        "CORE": 0, "MEMLOCK": 0, "MSGQUEUE": 0, "SIGPENDING": 256,
    }
    for name, value in wanted.items():
        if (kind := getattr(resource, f"RLIMIT_{name}", None)) is not None:  # it is on Linux
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
    threading.stack_size(2 << 20)  # of a thread that Python starts
    if not setup["linux"]:
        return ["limits"], supervised

    # Gain no rights, and give up those there are.
    _call(LIBC.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # past the last one, or not allowed to, and then none is held either
    _call(LIBC.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _call(LIBC.syscall, SYS_CAPSET, struct.pack("Ii", 0x20080522, 0), bytes(24))
    _call(LIBC.prctl, PR_SET_DUMPABLE, 0)
    _call(LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGKILL)  # after the changes of user above, which clear it
    if os.getppid() != (0 if own_root else setup["template"]):
        os._exit(1)
    layers += ["no-new-privs", "no-capabilities", "limits"]

    # Landlock, if the kernel offers a version of it (else -1): read the runtime, write the scratch folder, no more.
    abi = LIBC.syscall(SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_long(0), ctypes.c_long(1))
    if "landlock" not in setup["disable"] and abi > 0:
        handled = (1 << (16 if abi >= 5 else 15 if abi >= 3 else 14 if abi >= 2 else 13)) - 1
        # Besides files: bind and connect by TCP, which no rule allows; abstract unix sockets and signals.
        attributes = struct.pack("QQQ", handled, 3, 3)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
        ruleset = _call(LIBC.syscall, SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
        read = 1 << 2 | 1 << 3  # files and folders
        use_file = 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # write, read, truncate, ioctl: what a file can be used for
        special = 1 << 0 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11  # execute; make devices, sockets and pipes
        rights = {path: handled & (use_file if path in DEVICES else read) for path in setup["runtime"]}
        for path, allowed in {**rights, scratch: handled & ~special}.items():
            allowed &= WHOLE if os.path.isdir(path) else use_file
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _call(LIBC.syscall, SYS_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, place), 0)
            os.close(place)
        _call(LIBC.syscall, SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)
        layers.append(f"landlock ABI {abi}")

    if "seccomp" not in setup["disable"]:
        with socket.socket(fileno=notify) as template:
            try:
                listener = _filter_calls(own_root, notify, RET_NOTIFY, RET_NOTIFY, NEW_LISTENER)
            except OSError:  # an outer filter may have the only listener already
                _filter_calls(own_root, WHOLE, RET_ALLOW if own_root else REFUSE, REFUSE, 0)
            else:
                socket.send_fds(template, [b"n"], [listener])
                os.close(listener)
                supervised = True
        layers.append("seccomp")
    return layers, supervised


def _enter_own_root(setup: dict) -> None:
    """Enter a user and a mount namespace for this worker alone, with its scratch folder."""
    space, limits, user = setup["namespaces"], setup["limits"], os.geteuid()
    if setup["own_users"]:
        user = setup["next_user"]
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        _call(LIBC.prctl, PR_SET_DUMPABLE, 1)  # else the files of /proc are not this user's
    group = os.getegid()
    _call(LIBC.unshare, CLONE_NEWUSER | CLONE_NEWNS)
    _map_user(space["proc"], user, group)
    options = f"size={limits['scratch_bytes']},nr_inodes={limits['scratch_files']},mode=0700"
    _call(LIBC.mount, "tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)


# System calls of x86-64 that are allowed whatever their arguments.
ALLOWED = """read=0 write=1 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mprotect=10 munmap=11 brk=12 rt_sigaction=13
rt_sigprocmask=14 rt_sigreturn=15 pread64=17 pwrite64=18 readv=19 writev=20 access=21 pipe=22 select=23 sched_yield=24
mremap=25 msync=26 mincore=27 madvise=28 dup=32 dup2=33 pause=34 nanosleep=35 getitimer=36 alarm=37 setitimer=38
getpid=39 sendfile=40 sendto=44 recvfrom=45 recvmsg=47 shutdown=48 getsockname=51 getpeername=52 getsockopt=55 exit=60
wait4=61 uname=63 flock=73 fsync=74 fdatasync=75 ftruncate=77 getdents=78 getcwd=79 chdir=80 fchdir=81 rename=82
rmdir=84 unlink=87 readlink=89 umask=95 gettimeofday=96 getrlimit=97 getrusage=98 sysinfo=99 times=100 getuid=102
getgid=104 geteuid=107 getegid=108 getppid=110 getpgrp=111 getgroups=115 getresuid=118 getresgid=120 getpgid=121
getsid=124 rt_sigpending=127 rt_sigtimedwait=128 rt_sigsuspend=130 sigaltstack=131 statfs=137 fstatfs=138
getpriority=140 sched_getparam=143 sched_getscheduler=145 sched_get_priority_max=146 sched_get_priority_min=147
gettid=186 fgetxattr=193 flistxattr=196 time=201 futex=202 sched_getaffinity=204 epoll_create=213 getdents64=217
set_tid_address=218 restart_syscall=219 fadvise64=221 clock_gettime=228 clock_getres=229 clock_nanosleep=230
exit_group=231 epoll_wait=232 epoll_ctl=233 newfstatat=262 unlinkat=263 renameat=264 readlinkat=267 faccessat=269
pselect6=270 ppoll=271 set_robust_list=273 get_robust_list=274 epoll_pwait=281 eventfd=284 eventfd2=290
epoll_create1=291 dup3=292 pipe2=293 preadv=295 pwritev=296 getcpu=309 renameat2=316 getrandom=318 membarrier=324
copy_file_range=326 preadv2=327 pwritev2=328 statx=332 rseq=334 close_range=436 faccessat2=439 epoll_pwait2=441
futex_waitv=449"""
# Where the worker has a mount namespace of its own: Landlock does not govern these.
ALLOWED_IN_OWN_ROOT = """truncate=76 chmod=90 fchmod=91 utime=132 getxattr=191 lgetxattr=192 listxattr=194
llistxattr=195 utimes=235 futimesat=261 fchmodat=268 utimensat=280 fallocate=285"""
AUDIT_ARCH_X86_64, X32_BIT = 0xC000003E, 0x40000000
CALL, ARCH, ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; arguments have 8 bytes each
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # BPF instructions
RET_ALLOW, RET_ERRNO, RET_NOTIFY, RET_KILL = 0x7FFF0000, 0x00050000, 0x7FC00000, 0x80000000
REFUSE, UNKNOWN = RET_ERRNO | errno.EPERM, RET_ERRNO | errno.ENOSYS
NEW_LISTENER, NOTIFY_RECEIVE, NOTIFY_SEND, CONTINUE = 8, 0xC0502100, 0xC0182101, 1
NOTIFY_ADD_DESCRIPTOR, AT_THIS_NUMBER = 0x40182103, 1
# Flags of clone when a worker is forked: a child of the template, in the worker's process group, which the template
# can find, end and reap whatever the design does. Seccomp holds such a call until the template has decided.
FORK = CLONE_PARENT | signal.SIGCHLD
REPORT = SYS_SETSID  # the call by which a fork tells the template that it is there; nothing comes of it


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value & WHOLE)


def _rule(call: int, *tests: tuple[int, int, tuple[int, ...], int], then: int = RET_ALLOW) -> bytes:
    """For one call: `then`, or the last item of the first test whose word (offset, mask) is none of its values."""
    body = b""
    for offset, mask, values, otherwise in tests:
        body += _instruction(LOAD, offset) + _instruction(AND, mask)
        for position, value in enumerate(values):
            body += _instruction(EQUAL, value, len(values) - position)
        body += _instruction(RETURN, otherwise)
    body += _instruction(RETURN, then)
    return _instruction(EQUAL, call, 0, len(body) // 8) + body


def _filter_calls(own_root: bool, notify: int, creation: int, fork: int, flags: int) -> int:
    """Seccomp: refuse system calls from here on. Returns the listener, if `flags` ask for one.

    `creation` and `fork` are the answers to calls that create files and that fork the worker. Descriptors can be
    sent through `notify` alone: the kernel counts those on their way for all processes of a user together, and
    one design could use up what others need.
    """
    first, second, third, fourth = (ARGUMENT + 8 * number for number in range(4))
    kill = _instruction(RETURN, RET_KILL)
    program = _instruction(LOAD, ARCH) + _instruction(EQUAL, AUDIT_ARCH_X86_64, 1) + kill
    program += _instruction(LOAD, CALL) + _instruction(AT_LEAST, X32_BIT, 0, 1) + kill
    for item in f"{ALLOWED} {ALLOWED_IN_OWN_ROOT if own_root else ''}".split():
        program += _rule(int(item.split("=")[1]))
    # mkdir, mkdirat; link, symlink, linkat, symlinkat
    for call in (83, 258, *((86, 88, 265, 266) if own_root else ())):
        program += _rule(call, then=creation)
    # openat: it may create; older versions of Landlock let a file be truncated that is opened for reading only
    writable = (0, 1, 2, 3, *(os.O_TRUNC | mode for mode in (1, 2, 3)))
    whole = [] if own_root else [(third, os.O_TRUNC | os.O_ACCMODE, writable, REFUSE)]
    program += _rule(257, *whole, (third, os.O_CREAT | 0o20000000, (0,), creation))  # the flag of O_TMPFILE
    # A fork's flags are in a register, which no other thread can change.
    program += _instruction(EQUAL, SYS_CLONE, 0, 4) + _instruction(LOAD, first)
    program += _instruction(EQUAL, FORK, 0, 1) + _instruction(RETURN, fork) + _instruction(LOAD, CALL)
    program += _rule(SYS_CLONE, (first, WHOLE, (0x3D0F00, 0x7D0F00), REFUSE))  # else threads of glibc or musl alone
    program += _rule(REPORT, then=fork)
    program += _rule(9, (fourth, 0x23, (0x22, 0x02, 0x01, 0x03), REFUSE))  # mmap: no memory that forks share
    program += _rule(234, (first, WHOLE, (os.getpid(),), REFUSE))  # tgkill: itself, as abort() does
    # socketpair: unix streams, for a datagram socket could send to any name
    program += _rule(53, (first, WHOLE, (1,), REFUSE), (second, 0xFF, (1,), REFUSE))
    program += _rule(157, (first, WHOLE, (3, 15, 16), REFUSE))  # prctl: get dumpable, set and get name
    program += _rule(302, (third, WHOLE, (0,), REFUSE), (third + 4, WHOLE, (0,), REFUSE))  # prlimit64: reading
    # fcntl: duplicate, flags, locks, size of a pipe; not owners, leases and signals
    program += _rule(72, (second, WHOLE, (*range(8), 36, 37, 38, 1030, 1032), REFUSE))
    # ioctl: is it a terminal and its size, not blocking, close on exec, bytes to read
    program += _rule(16, (second, WHOLE, (0x5401, 0x5413, 0x5421, 0x5450, 0x5451, 0x541B), REFUSE))
    program += _rule(46, (first, WHOLE, (notify,), REFUSE))  # sendmsg
    program += _rule(435, then=UNKNOWN)  # clone3: its flags are out of a filter's reach
    # Calls newer than 334 are answered by ENOSYS, so that libc falls back to older ones.
    program += _instruction(AT_LEAST, 335, 0, 1) + _instruction(RETURN, UNKNOWN) + _instruction(RETURN, REFUSE)
    kept = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(kept))
    return _call(LIBC.syscall, SYS_SECCOMP, 1, flags, header)


def fork_worker() -> int:
    """Fork this worker as its own sibling, else as `os.fork` does: 0 in the fork, -1 if the template refuses.

    No other thread may be at work in Python or its libraries. It may wait for the interpreter's lock: a line of
    Python in the fork before `PyOS_AfterFork_Child` could then hand the lock to that thread, which the fork does
    not have, and wait for ever. So C alone goes from the one call to the other.
    """
    libc = ctypes.PyDLL(None, use_errno=True)  # does not give up the interpreter's lock
    after = {0: ctypes.pythonapi.PyOS_AfterFork_Child}.get
    collects = gc.isenabled()
    gc.disable()  # it may run a design's `__del__`
    ctypes.pythonapi.PyOS_BeforeFork()
    forked, pids = itertools.tee(map(libc.syscall, [SYS_CLONE], [FORK], [0], [0], [0], [0]))
    list(map(operator.call, map(after, forked, [ctypes.pythonapi.PyOS_AfterFork_Parent])))
    if collects:
        gc.enable()
    pid = next(pids)
    if pid < 0 and ctypes.get_errno() == errno.ENOSYS:
        os._exit(1)  # nobody answers: the template is gone
    if pid == 0 and LIBC.syscall(REPORT) != 0:
        os._exit(1)  # it would talk in the worker's place
    return pid
