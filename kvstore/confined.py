"""What a thread, and all that it starts, may do with files: read some folders, and nothing else.

DuckDB's own settings keep DuckDB from files, but its `lance` extension opens and changes what its SQL names,
whatever they say. So the kernel confines who runs SQL over vectors: Landlock, in Linux since 5.13, needs no
privilege, and lasts until the thread ends. Elsewhere there is nothing of the kind, see `available`.

The system calls: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38
#: Rights, by their bits: to run a program, to write, to read, to list, to cut short; and all that there are.
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _ALL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, (1 << 15) - 1
#: Bits that a kernel's version of Landlock knows: moving between folders came with 2, cutting short with 3.
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1}
#: To bind and connect TCP sockets, since version 4.
_NETWORK = 0b11
#: What programs read of any system: libraries, time zones, devices, how many cores there are.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc", "/sys/fs/cgroup"),
    *("/sys/devices/system", "/dev/urandom", "/dev/random", "/dev/zero"),
)

Submit = Callable[..., Future[Any]]


class _Process:
    """Whether this process is the program's, which works on one store."""

    programs = False


@cache
def available() -> int:
    """The version of Landlock that the kernel has; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, 1))


def confine(read: Iterable[Path] = (), write: Iterable[Path] = (), execute: Iterable[Path] = ()) -> None:
    """Confine this thread, for good, and what it starts, to these files and folders, and to no network.

    read     what it may read, beside Python and the libraries
    write    folders in which it may do anything, and files that it may write
    execute  programs that it may run

    Does nothing where the kernel has no Landlock. Raises `OSError` where it refuses.
    """
    version = available()
    if not version:
        return
    known = _KNOWN.get(version, _ALL)
    fields = [known, _NETWORK] if version >= 4 else [known]
    ruleset = _checked(_syscall(_CREATE_RULESET, struct.pack(f"{len(fields)}Q", *fields), 8 * len(fields), 0))
    try:
        for path in (*map(Path, _SYSTEM), *_python(), *read):
            _allow(ruleset, path, _READ | _LIST)
        for path in (Path(os.devnull), *write):
            _allow(ruleset, path, known & ~_EXECUTE)
        for path in execute:
            _allow(ruleset, path, _READ | _EXECUTE)
        _checked(_libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def program() -> None:
    """This process is the program `kvstore`: it works on one store and ends, so threads may be confined.

    Not so in Python at large. Lance keeps one set of threads for a whole process: confined to the first store
    that was read, they would read no other.
    """
    _Process.programs = True


def spill() -> Path:
    """A folder for what a query of this process cannot keep in memory; DuckDB makes and removes it.

    It is in a folder of the user's own, which stays.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    home = Path(tempfile.gettempdir(), f"kvstore-{user}")
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or (user and home.stat().st_uid != user):
        home = Path(tempfile.mkdtemp(prefix="kvstore-"))
    return home / str(os.getpid())


@contextmanager
def thread(read: Iterable[Path] = (), write: Iterable[Path] = ()) -> Iterator[Submit]:
    """A thread that is confined to these folders where `program` allows it; gives what submits work to it.

    A connection that it makes has its threads from it, and must be used by it alone. After an error, a signal
    say, its work is not waited for.
    """
    begin = partial(confine, list(read), list(write)) if _Process.programs else None
    executor = ThreadPoolExecutor(1, "confined", begin)
    try:
        yield executor.submit
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow `rights` below a folder, or of a file those that files have; a path that is not there is none."""
    try:
        there = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _EXECUTE | _WRITE | _READ | _TRUNCATE
        rule = struct.pack("=Qi", rights, there)
        _checked(_syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(there)


def _python() -> Iterator[Path]:
    """Folders of Python, of packages and of kvstore; not the working folder, whose files are others'."""
    yield from {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1] / "kvstore"}
    yield from map(
        Path, {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    )
    yield from (Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages"))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *args: Any) -> int:
    # A syscall takes words: a bare int would be passed as 32 bits.
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    _libc().syscall.restype = ctypes.c_long
    return int(_libc().syscall(ctypes.c_long(number), *words))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
