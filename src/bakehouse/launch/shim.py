"""Stands between the server and an app's process: applies limits and isolation, then runs the app's Python.

Run by path with the server's interpreter (``python -I -S shim.py PLAN``), standard library only, because it must start
within milliseconds. PLAN is a JSON object: ``argv``, ``cwd``, ``isolate`` (what to apply: ``namespaces``,
``landlock``), ``read``, ``write``, ``devices`` (paths), ``hide`` (``[directory, replacement or null]``), ``keep``,
``limits`` (name of an RLIMIT to a number), ``shm`` (bytes of /dev/shm), ``parent`` (the server's process id). The
environment is the app's own.

With namespaces there are three processes. This one stays outside and ends the way the app ends, so that the server
reads the app's exit status from it. Its child is process 1 of a PID namespace and only reaps; the app is the third.
When process 1 dies the kernel kills everything inside, so nothing outlives an instance. Every one of them dies with
its parent. Without namespaces this process is the subreaper of what the app leaves behind, and ends it.

Exit status 120 means that the isolation could not be applied; the reason is on descriptor 2.
"""

# Importing pathlib would cost a tenth of the start.
# ruff: noqa: PTH103, PTH112, PTH120, PTH123
from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

FAILED = 120

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 36, 38, 24
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_RDONLY, _MS_NOEXEC = 2, 4, 1, 8
_MS_NOATIME, _MS_NODIRATIME = 1024, 2048
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18

# Landlock: the same numbers on every architecture that Python runs on here.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_FS_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, read a directory
_FS_FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # what can be asked of a single file
_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FS_NEVER = 1 << 6 | 1 << 11  # nobody makes device files
_SCOPES = 3  # no signals and no abstract sockets across the border


def main() -> None:
    """Run the plan; does not return before the app has ended."""
    plan = json.loads(sys.argv[1])
    _check("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if os.getppid() != plan["parent"]:
        os._exit(FAILED)  # the server died before the line above
    for name, value in plan["limits"].items():
        _limit(getattr(resource, name), value)
    namespaces = plan["isolate"].get("namespaces")
    if namespaces:
        _enter_namespaces(plan)
    else:
        _check("prctl", _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1))
    child = os.fork()
    if child == 0:
        if namespaces:
            _be_init(plan)
        else:
            _become_app(plan)
    _let_go()
    _forward_signals(child)
    status = _wait_for(child)
    if not namespaces:
        _end_orphans()
    _end_like(status)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


# ---- the three processes ------------------------------------------------------------------------------------


def _be_init(plan: dict[str, Any]) -> None:
    """Process 1 of the namespace: start the app, reap whatever ends, end when the app ends."""
    _check("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    # A new /proc shows only this namespace. Where it is refused (some containers), the old one stays.
    _libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    app = os.fork()
    if app == 0:
        _become_app(plan)
    _let_go()
    _forward_signals(app)
    status = _wait_for(app)
    # Process 1 cannot die of a signal that comes from inside, so a signal travels as a number above 128.
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else min(os.WEXITSTATUS(status), 127))


def _become_app(plan: dict[str, Any]) -> None:
    try:
        _check("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
        os.setsid()
        _check("prctl", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        os.chdir(plan["cwd"])
        if plan["isolate"].get("landlock"):
            _landlock(plan)
        if os.geteuid() == 0 or plan["isolate"].get("namespaces"):
            _drop_capabilities()
        os.execve(plan["argv"][0], plan["argv"], os.environ)
    except BaseException as error:  # a forked child must never return into the parent's code
        os.write(2, f"isolation failed: {error}\n".encode())
        os._exit(FAILED)


def _let_go() -> None:
    """Close everything: the message socket and the pipes must end with the app, not with its keepers."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 4096)


def _forward_signals(child: int) -> None:
    """SIGTERM goes to *child* as it is; SIGUSR1 kills it, so that we are still there to reap it."""

    def forward(signum: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(child, signal.SIGKILL if signum == signal.SIGUSR1 else signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGUSR1, forward)


def _wait_for(child: int) -> int:
    """The wait status of *child*, reaping everything else on the way."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def _end_orphans() -> None:
    """Kill and reap what the app left behind: as their subreaper we are their parent now."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the kill
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _end_like(status: int) -> None:
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if code > 128:
        signum = code - 128
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    os._exit(code)


# ---- namespaces ---------------------------------------------------------------------------------------------


def _enter_namespaces(plan: dict[str, Any]) -> None:
    wanted = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(wanted) != 0:
        _check("unshare", _libc.unshare(wanted | _CLONE_NEWUSER))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    for directory, replacement in plan["hide"]:
        _hide(directory, replacement, plan["keep"], plan["write"])
    _mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={plan['shm']},mode=1777")


def _hide(directory: str, replacement: str | None, keep: list[str], write: list[str]) -> None:
    """Cover *directory* with *replacement* (None: nothing, read-only); only what is in *keep* stays visible."""
    kept = [(path, os.open(path, os.O_PATH)) for path in keep if path.startswith(directory + "/")]
    if replacement is None:
        _mount("tmpfs", directory, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    else:
        _mount(replacement, directory, None, _MS_BIND)
    for path, fd in kept:
        _mount_point(path, fd)
        _mount(f"/proc/self/fd/{fd}", path, None, _MS_BIND | _MS_REC)
        os.close(fd)
        if not any(path == top or path.startswith(top + "/") for top in write if top != directory):
            _read_only(path)
    if replacement is None:
        _read_only(directory)


def _read_only(path: str) -> None:
    """Flags that the mount has already are kept: in a user namespace they may not be taken away."""
    kept = os.statvfs(path).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME)
    _mount(None, path, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _mount_point(path: str, fd: int) -> None:
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    _check(f"mount {target}", _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


# ---- Landlock and capabilities ------------------------------------------------------------------------------


def landlock_abi() -> int:
    """The version of Landlock that the kernel has; 0 or less when it has none."""
    return int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def _landlock(plan: dict[str, Any]) -> None:
    abi = _check("landlock", landlock_abi())
    every = _FS_BY_ABI[max(known for known in _FS_BY_ABI if known <= abi)]
    attributes = struct.pack("=QQQ", every, 0, _SCOPES)[: 24 if abi >= 6 else 8]
    ruleset = _check("landlock", _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0))
    for path in plan["read"]:
        _allow(ruleset, path, _FS_READ & every)
    for path in plan["write"]:
        _allow(ruleset, path, every & ~_FS_NEVER)
    for path in plan["devices"]:
        _allow(ruleset, path, (_FS_FILE | 1 << 3) & every & ~1)
    _check("landlock", _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a machine need not have every system path; an own path that is missing shows when it is used
    if not os.path.isdir(path):
        access &= _FS_FILE
    rule = struct.pack("=Qi", access, fd)
    _check(f"landlock {path}", _libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0))
    os.close(fd)


def _drop_capabilities() -> None:
    """Root without capabilities: no mounts, devices, modules, tracing or reading across permissions."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # past the last one that the kernel knows, or none may be dropped because we have none
    header = struct.pack("=Ii", 0x20080522, 0)
    _check("capset", _libc.capset(header, bytes(24)))


def _check(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:  # the server reads the reason from descriptor 2
        os.write(2, f"isolation failed: {error}\n".encode())
        os._exit(FAILED)
