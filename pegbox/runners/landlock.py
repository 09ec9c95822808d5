"""Take the server's data directory away from this process, for good, where the kernel lets us (Linux's Landlock, from
5.19 on). No rights are needed for it.

What stays: reading and running all that lies elsewhere on the machine, reading what the run trains on, writing in the
run's own folder and to devices. Landlock knows no exceptions, only what is allowed; so everything is allowed by name
that lies beside the way from the root down to the data directory. Names can still be listed everywhere, because Python
lists the folders that it imports from.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pegbox

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same numbers on every machine
_ABI_ONLY = 1  # flag of _CREATE: say which version of Landlock this is
_OLDEST = 2  # before that, no file can be renamed from one folder to another
_SIGNALS_FROM = 6  # the version from which a process can be kept from sending signals to others
_PR_SET_NO_NEW_PRIVS = 38
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_ALL = {2: (1 << 14) - 1}  # by version; later ones know of truncation too
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE  # what can be said of a file and not only of a folder
_SCOPE_SIGNALS = 1 << 1
_WRITABLE = ("/dev", "/proc", "/sys")


def confine(store: Path, *, writes: Path, reads: Sequence[Path]) -> str:
    """Keep out of `store`, but for the folder `writes` and for what is in `reads`. Returns what was done, in words.
    Never raises.

    Files that are made later, in a folder on the way to `store`, can't be read.
    """
    if platform.system() != "Linux":
        return f"not confined: {platform.system()} has no way that we know"
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, _ABI_ONLY)
    if version < _OLDEST:
        return "not confined: this kernel has no Landlock, or one that is too old"
    everything = _ALL[2] | (_TRUNCATE if version >= 3 else 0)
    scope = _SCOPE_SIGNALS if version >= _SIGNALS_FROM else 0
    wanted = struct.pack("QQQ", everything, 0, scope) if scope else struct.pack("Q", everything)
    rules = libc.syscall(_CREATE, wanted, len(wanted), 0)
    if rules < 0:
        return _refused()
    try:
        _allow(libc, rules, Path("/"), _LIST)
        for path in _beside(store.resolve()):
            device = str(path) in _WRITABLE
            _allow(libc, rules, path, everything if device else _READ | _EXECUTE | _LIST)
        for path in (*_python(store.resolve()), *reads, *_linked(reads)):
            _allow(libc, rules, path, _READ | _EXECUTE | _LIST)
        _allow(libc, rules, writes, everything)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.syscall(_RESTRICT, rules, 0) != 0:
            return _refused()
    finally:
        os.close(rules)
    return "confined to the run's own folder by Landlock"


def _beside(store: Path) -> Iterator[Path]:
    """Everything that neither is `store`, nor lies in it, nor has it inside. No links: they may lead there, and what
    they lead to elsewhere is allowed where it lies."""
    for parent, kept_out in zip(store.parents, (store, *store.parents), strict=False):
        with suppress(OSError):  # a folder that we may not list, we may not read from either
            yield from (path for path in parent.iterdir() if path != kept_out and not path.is_symlink())


def _python(store: Path) -> Iterator[Path]:
    """What Python runs from, in case that lies in the data directory: somebody may serve a checkout's own folder."""
    for name in (sys.prefix, sys.base_prefix, *sys.path, str(Path(pegbox.__file__).parent)):
        path = Path(name).resolve()
        if not store.is_relative_to(path):
            yield path


def _linked(folders: Sequence[Path]) -> Iterator[Path]:
    """What links in the folders lead to: a model's files may be links into a cache."""
    for folder in folders:
        with suppress(OSError):
            yield from (path.resolve() for path in folder.iterdir() if path.is_symlink())


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    """Does nothing for what is not there: then there is nothing to allow."""
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        libc.syscall(_ADD, rules, 1, struct.pack("=Qi", rights, at), 0)
    finally:
        os.close(at)


def _refused() -> str:
    return f"not confined: the kernel refused ({os.strerror(ctypes.get_errno())})"
