"""The walls around code that nobody has read: resource limits, and what the kernel and the interpreter refuse.

`raise_walls` shuts this process in for good. The kernel's part needs no privilege: seccomp (no new process or program,
no socket but a pair, no signal, no tracing, no namespaces), Landlock (files outside of the scratch folder and of the
interpreter's libraries do not exist; no TCP), and namespaces of its own where seccomp is lacking. Above them an audit
hook refuses the same things with a plain PermissionError; where a kernel permits none of its walls it stands alone, and
stops a program that does not set out to break the interpreter. Standard library alone, and no import of this package:
it is read by an interpreter that runs without site-packages.
"""

# pathlib would double the time in which this starts:
# ruff: noqa: PTH110, PTH112, PTH117, PTH118, PTH120, PTH123
from __future__ import annotations

import os
import resource
import struct
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_NEWIPC, _NEWUSER, _NEWNET, _THREAD = 0x08000000, 0x10000000, 0x40000000, 0x10000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
# Refused calls on x86-64 and on aarch64 (arch/*/syscall_64.tbl, asm-generic/unistd.h of Linux 6): fork, vfork, exec,
# sockets, signals to others, tracing, mounts, namespaces, keys, bpf, io_uring, limits, shared memory that outlives us.
_REFUSED = {
    "x86_64": (0xC000003E, 56, (
        57, 58, 59, 322, 41, 42, 43, 49, 50, 288, 101, 310, 311, 62, 200, 234, 129, 297, 424, 434, 438, 165, 166, 272,
        308, 161, 155, 248, 249, 250, 321, 298, 425, 426, 427, 323, 160, 302, 135, 304, 175, 313, 246, 169, 167, 163,
        29, 68, 64, 240)),
    "aarch64": (0xC00000B7, 220, (
        221, 281, 198, 203, 202, 200, 201, 242, 117, 270, 271, 129, 130, 131, 138, 240, 424, 434, 438, 40, 39, 97, 268,
        51, 41, 217, 218, 219, 280, 241, 425, 426, 427, 282, 164, 261, 92, 265, 105, 273, 104, 142, 224, 89, 194, 186,
        190, 180)),
}  # fmt: skip
_CLONE3, _ENOSYS, _EPERM, _X32 = 435, 38, 1, 0x40000000
# Landlock's rights. A folder that is read: READ_FILE, READ_DIR. The scratch folder: also WRITE_FILE, REMOVE_*,
# MAKE_DIR, MAKE_REG, REFER, TRUNCATE; no links, sockets, pipes or devices.
_READ, _WRITE = sum(1 << bit for bit in (2, 3)), sum(1 << bit for bit in (1, 4, 5, 7, 8, 13, 14))


def raise_walls(scratch: str, *, cpu_seconds: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Shut this process in; the names of the walls that stand (`limits` and `audit` always do). `scratch` is the one
    folder, without links in its path, that it may write to. Call once, with one thread."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    _offer_to_the_oom_killer()
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # its memory is nobody's to read
    filtered = os.uname().machine in _REFUSED
    raised = ["limits"]
    if not filtered and (libc.unshare(_NEWUSER | _NEWNET | _NEWIPC) == 0 or libc.unshare(_NEWNET) == 0):
        raised.append("namespaces")
    for name, limit in (("CPU", cpu_seconds + 1), ("AS", memory_bytes), ("FSIZE", file_bytes), ("NPROC", 0),
                        ("CORE", 0), ("NOFILE", 64), ("MEMLOCK", 0)):  # fmt: skip
        _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        soft = max(0, limit - 1) if name == "CPU" else limit  # SIGXCPU first, SIGKILL for who ignores it
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, limit))
    readable = _readable()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        raised += ["landlock"] if _landlock(libc, scratch, readable) else []
        raised += ["seccomp"] if filtered and _seccomp(libc, ctypes) else []
    for name in [name for name in sys.modules if "ctypes" in name]:
        del sys.modules[name]
    stub = types.ModuleType("_posixsubprocess")
    stub.fork_exec = _refuse  # type: ignore[attr-defined]
    sys.modules["_posixsubprocess"] = stub  # asyncio imports it; the true one raises no event
    sys.addaudithook(_hook(scratch, readable))
    return [*raised, "audit"]


def _refuse(*_: object) -> None:
    raise PermissionError("an answer starts no process")


def _offer_to_the_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write("1000")
    except OSError:
        pass


def _readable() -> tuple[str, ...]:
    """Folders and files that an interpreter reads: its libraries, the system's, time zones."""
    folders = [os.path.dirname(os.__file__), os.path.join(sys.base_prefix, "lib"), *sys.path, "/lib", "/lib64",
               "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache",
               "/dev/null", "/dev/urandom"]  # fmt: skip
    real = (os.path.realpath(path) for path in folders if os.path.isabs(path) and os.path.exists(path))
    return tuple(dict.fromkeys([*real, *(path for path in folders if os.path.isabs(path) and os.path.exists(path))]))


def _landlock(libc: Any, scratch: str, readable: Sequence[str]) -> bool:
    """Whether the kernel took a rule set that knows the scratch folder and the readable files alone."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", handled, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, 24 if version >= 6 else 16 if version >= 4 else 8, 0)
    if rules < 0:
        return False
    for path, rights in [(path, _READ) for path in readable] + [(scratch, _READ | _WRITE)]:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights = 0b110 if path == "/dev/null" else 0b100
        rights &= handled
        libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    taken = bool(libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0)
    os.close(rules)
    return taken


def _seccomp(libc: Any, ctypes: Any) -> bool:
    """Whether the kernel took the filter: EPERM for what is refused and for clone without CLONE_THREAD, ENOSYS for
    clone3 (so that the C library asks clone)."""
    arch, clone, refused = _REFUSED[os.uname().machine]
    load, equal, at_least, bits, ret = 0x20, 0x15, 0x35, 0x45, 0x06
    permit, deny, unknown = 0x7FFF0000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (ret, 0, 0, deny), (load, 0, 0, 0), (at_least, 0, 1, _X32),
               (ret, 0, 0, deny), (equal, 0, 1, _CLONE3), (ret, 0, 0, unknown)]  # fmt: skip
    for number in refused:
        program += [(equal, 0, 1, number), (ret, 0, 0, deny)]
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (bits, 1, 0, _THREAD), (ret, 0, 0, deny), (ret, 0, 0, permit)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    return bool(libc.prctl(_PR_SET_SECCOMP, 2, head, 0, 0) == 0)


_EVENTS = frozenset((
    "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "os.kill",
    "os.killpg", "os.chdir", "os.fchdir", "os.symlink", "os.link", "os.chown", "os.setxattr", "os.removexattr",
    "pty.spawn", "cpython.PyInterpreterState_New", "resource.setrlimit", "resource.prlimit",
    "sqlite3.connect", "signal.pthread_kill", "webbrowser.open", "gc.get_objects", "gc.get_referrers",
    "gc.get_referents", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo", "socket.getservbyname",
    "syslog.openlog", "syslog.syslog"))  # fmt: skip
_IMPORTS = frozenset(("ctypes", "_ctypes", "_posixsubprocess", "_xxsubinterpreters", "_interpreters", "_testcapi",
                      "_testinternalcapi", "_gdbm", "_dbm", "_multiprocessing", "readline"))  # fmt: skip
_CHANGES = frozenset(("os.remove", "os.rmdir", "os.mkdir", "os.rename", "os.truncate", "os.chmod", "os.utime"))


def _hook(scratch: str, readable: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """The audit hook. Its constants are its default arguments: it has no globals, cells or built-ins to be changed, and
    nothing leads to the function itself."""

    def hook(event: Any, arguments: Any, refused: Any = _EVENTS, imports: Any = _IMPORTS, changes: Any = _CHANGES,
             inside: Any = (scratch + "/",), scratch: Any = scratch, exact: Any = (scratch, *readable),
             below: Any = (scratch + "/", *(path + "/" for path in readable)), text: Any = str, raw: Any = bytes,
             number: Any = int, kind: Any = type, mode: Any = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND,
             local: Any = 1, error: Any = PermissionError) -> None:  # fmt: skip
        if event in refused or event.startswith(("subprocess.", "ctypes.")):
            raise error(event + " is refused")
        if event == "import" and arguments[0] in imports:
            raise error("import is refused")
        if event == "socket.__new__" and arguments[1] != local:
            raise error("the network is refused")
        if event == "open" or event in changes or event in ("os.listdir", "os.scandir"):
            path = arguments[0]
            if kind(path) is raw:
                path = path.decode("utf-8", "surrogateescape")
            if kind(path) is number or (path is None and event in ("os.listdir", "os.scandir")):
                return
            if kind(path) is not text or "/../" in path + "/" or path.startswith("../"):
                raise error("this path is refused")
            writes = event in changes or (event == "open" and arguments[2] & mode)
            if event == "open" and arguments[1] is None and not path.startswith("/"):
                raise error("os.open of a relative path is refused")
            if event in changes and event not in ("os.rename", "os.truncate") and arguments[-1] != -1:
                raise error("dir_fd is refused")
            if path.startswith("/") and path != "/dev/null" and not (
                    path.startswith(inside) if writes else path.startswith(below) or path in exact):  # fmt: skip
                raise error("this path is outside of the scratch folder")
        if event == "os.rename":
            other = arguments[1]
            if kind(other) is not text or "/../" in other + "/" or other.startswith("../") or (
                    other.startswith("/") and not other.startswith(inside)) or (
                    arguments[2] != -1 or arguments[3] != -1):  # fmt: skip
                raise error("this path is outside of the scratch folder")

    return types.FunctionType(hook.__code__, {"__builtins__": {}}, "hook", hook.__defaults__)
