"""Take the network away from this process, for good, where the kernel lets us. No rights are needed for it.

First choice is a seccomp filter that refuses to make sockets, but for those within the machine that CUDA's driver uses
(AF_UNIX, AF_NETLINK). Second, a network namespace of its own, in which there is nothing. Third, nothing: the caller is
told, and says so in the run's log.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
from contextlib import suppress
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF, as <linux/filter.h> has it
_ARCH_AT, _CALL_AT, _FIRST_ARGUMENT_AT = 4, 0, 16  # offsets in struct seccomp_data; little-endian
_IO_URING_SETUP = 425  # it could make sockets behind the filter's back
# Machine → (its audit number, the number of its socket call, the first number of a foreign call table).
_MACHINES = {"x86_64": (0xC000003E, 41, 0x40000000), "aarch64": (0xC00000B7, 198, 0xFFFFFFFF)}


def isolate_network() -> str:
    """Returns what was done, in words. Never raises."""
    if platform.system() != "Linux":
        return f"not isolated: {platform.system()} has no way that we know"
    libc = ctypes.CDLL(None, use_errno=True)
    if _refuse_sockets(libc) and not _can_make_socket():
        return "none (sockets are refused by seccomp)"
    if _leave_network(libc):
        return "none (a namespace of its own)"
    return f"not isolated: the kernel refused ({os.strerror(ctypes.get_errno())})"


def _refuse_sockets(libc: ctypes.CDLL) -> bool:
    known = _MACHINES.get(platform.machine())
    if known is None:
        return False
    program = _filter(*known)
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    given = Program(len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(given), 0, 0) == 0)


def _filter(arch: int, socket_call: int, foreign: int) -> bytes:
    """The filter as BPF instructions: code, jump if true, jump if false, operand."""
    steps = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 0, 8, arch),  # a program of another machine: refuse
        (_LOAD, 0, 0, _CALL_AT),
        (_AT_LEAST, 6, 0, foreign),  # another call table of this machine: refuse
        (_EQUAL, 5, 0, _IO_URING_SETUP),
        (_EQUAL, 0, 3, socket_call),  # any other call: allow
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 1, 0, socket.AF_UNIX),
        (_EQUAL, 0, 1, 16),  # AF_NETLINK
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _can_make_socket() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _leave_network(libc: ctypes.CDLL) -> bool:
    user, group = os.getuid(), os.getgid()
    if user == 0:
        return bool(libc.unshare(_CLONE_NEWNET) == 0)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    with suppress(OSError):  # if not: files are still ours, the kernel goes by the number outside
        for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(line, "ascii")
    return True
