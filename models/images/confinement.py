"""What a process that decodes foreign files gives up before it looks at one. Linux; elsewhere only what POSIX has.

Three locks, each on its own enough against most: Landlock (no file but those that are open, no network), a seccomp filter
(no sockets, programs, processes or signals), and limits of resources. ``locks()`` says which of them this system has.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights each version of Landlock knows."""
# linux/prctl.h, linux/seccomp.h
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER, _PARENT_DEATH_SIGNAL = 38, 22, 2, 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS, _ENOTTY = 1, 38, 25
_SIGKILL = 9
_NEW_THREAD = 0x00010000  # CLONE_THREAD

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_CALLS = """
    read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222,
    mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
    pread64 17 67, readv 19 65, access 21 -, sched_yield 24 124, mremap 25 216, madvise 28 233, dup 32 23,
    nanosleep 35 101, getpid 39 172, sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, shutdown 48 210,
    getsockname 51 204, getsockopt 55 209,
    exit 60 93, uname 63 160, fcntl 72 25, getcwd 79 17, mkdir 83 -, rmdir 84 -, unlink 87 -, symlink 88 -,
    readlink 89 -, gettimeofday 96 169, getrlimit 97 163, getrusage 98 165, sysinfo 99 179, times 100 153,
    getuid 102 174, getgid 104 176, geteuid 107 175, getegid 108 177, sigaltstack 131 132, gettid 186 178,
    futex 202 98, sched_getaffinity 204 123, getdents64 217 61, set_tid_address 218 96, fadvise64 221 223,
    clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, exit_group 231 94, openat 257 56,
    mkdirat 258 34, newfstatat 262 79, unlinkat 263 35, symlinkat 266 36, readlinkat 267 78, faccessat 269 48,
    ppoll 271 73, set_robust_list 273 99, preadv 295 69, getrandom 318 278, membarrier 324 283, statx 332 291,
    rseq 334 293, close_range 436 436, faccessat2 439 439, futex_wait 455 455, futex_wake 454 454
"""
"""All that decoders need, by their numbers on x86-64 and on 64-bit ARM. Every other call fails."""
_CLONE, _CLONE3, _IOCTL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (16, 29), (234, 131), (302, 261)


def landlock_version() -> int:
    """0 where the kernel has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, 1)))


_LIMITS, _FILES = "memory and files limited", "no other file and no network (Landlock)"
_CALLS_ONLY = "no sockets, programs or processes (seccomp)"


def locks() -> list[str]:
    """What confines a decoder on this system, for ``doctor``."""
    found = [_LIMITS] if hasattr(resource, "prlimit") else []
    if landlock_version():
        found.append(_FILES)
    if sys.platform == "linux" and platform.machine() in _ARCHITECTURES:
        found.append(_CALLS_ONLY)
    return found


def missing() -> list[str]:
    """What does not."""
    found = locks()
    return [each for each in (_LIMITS, _FILES, _CALLS_ONLY) if each not in found]


def limit_memory(pid: int, count: int) -> None:
    """Let a process have so many bytes of its own on top of what it has now; shared memory and code do not count."""
    if resource is None or not hasattr(resource, "prlimit"):
        return
    status = Path(f"/proc/{pid}/status").read_text()
    now = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    resource.prlimit(pid, resource.RLIMIT_DATA, (now * 1024 + count, resource.RLIM_INFINITY))


def die_first() -> None:
    """When the system runs out of memory, this process ends before the server does."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


def confine(*, files: Sequence[int], folders: Sequence[int], private: Path | None, most_files: int) -> None:
    """Give up everything but reading ``files`` (open descriptors), for good; also what is started later.

    folders: open ones of code, readable. private: where links may be made. A system that has a lock but refuses to
    close it raises OSError: nothing is decoded then.
    """
    if resource is not None:
        for limit, count in (("CORE", 0), ("FSIZE", 0), ("NOFILE", most_files)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (count, count))
    if sys.platform != "linux":
        return
    libc = _libc()
    _require(libc.prctl(_PARENT_DEATH_SIGNAL, _SIGKILL, 0, 0, 0))
    _require(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    if version := landlock_version():
        _landlock(libc, version, files, folders, private)
    if platform.machine() in _ARCHITECTURES:
        _seccomp(libc)


def _landlock(
    libc: ctypes.CDLL, version: int, files: Sequence[int], folders: Sequence[int], private: Path | None
) -> None:
    every = (1 << _FILE_RIGHTS_BY_VERSION[min(version, 5)]) - 1
    network = 3 if version >= 4 else 0  # bind and connect
    scoped = 3 if version >= 6 else 0  # signals and sockets of processes outside
    attributes = struct.pack("QQQ", every, network, scoped)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _require(libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))

    def allow(descriptor: int, rights: int) -> None:
        rule = struct.pack("=Qi", rights, descriptor)
        _require(libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0))

    for file in files:
        allow(file, _READ_FILE)
    for folder in folders:
        allow(folder, _READ_FILE | _READ_DIR)
    if private is not None:
        descriptor = os.open(private, os.O_RDONLY | os.O_CLOEXEC)
        allow(descriptor, every)
        os.close(descriptor)
    _require(libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _seccomp(libc: ctypes.CDLL) -> None:
    """A list of allowed calls as a program for the kernel's packet filter; the first rule that fits decides."""
    architecture, column = _ARCHITECTURES[platform.machine()]
    numbers = [entry.split()[1 + column] for entry in _CALLS.split(",")]

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    number_at, architecture_at, first, third = (
        0,
        4,
        16,
        32,
    )  # in struct seccomp_data; arguments low half first
    fails = step(answer, _ERRNO | _EPERM)
    program = [
        step(load, architecture_at),
        step(equal, architecture, yes=1),
        fails,
        step(load, number_at),
        # the C library takes the older call when it is told that there is no newer one
        *(step(equal, _CLONE3[column], no=1), step(answer, _ERRNO | _ENOSYS)),
        *(step(equal, _IOCTL[column], no=1), step(answer, _ERRNO | _ENOTTY)),
        # threads, no processes
        *(step(equal, _CLONE[column], no=4), step(load, first), step(any_bit, _NEW_THREAD, no=1)),
        *(step(answer, _ALLOW), fails),
        # signals for itself: abort() sends one
        *(step(equal, _TGKILL[column], no=4), step(load, first), step(equal, os.getpid(), no=1)),
        *(step(answer, _ALLOW), fails),
        # asking for limits, not setting them
        *(step(equal, _PRLIMIT[column], no=6), step(load, third), step(equal, 0, no=3)),
        *(step(load, third + 4), step(equal, 0, no=1), step(answer, _ALLOW), fails),
    ]
    for number in (int(text) for text in numbers if text != "-"):
        program += [step(equal, number, no=1), step(answer, _ALLOW)]
    program.append(fails)
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    _require(libc.prctl(_SET_SECCOMP, _FILTER, header, 0, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _require(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"cannot be confined: {os.strerror(ctypes.get_errno())}")
    return result
