"""Sandbox: what a worker takes from itself once its models are loaded: the network, other programs, files, memory.

Each way is tried, and `shut` says which were had, since not every system allows each.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import stat
import struct
import sys
from pathlib import Path
from typing import Any

_X86 = {
    "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "ptrace": 101, "execve": 59, "kill": 62,
    "setns": 308, "unshare": 272, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "init_module": 175,
    "process_vm_readv": 310, "process_vm_writev": 311, "execveat": 322, "bpf": 321, "accept4": 288,
    "io_uring_setup": 425, "perf_event_open": 298, "keyctl": 250, "reboot": 169, "open_by_handle_at": 304,
    "pidfd_send_signal": 424, "pidfd_getfd": 438,
}  # fmt: skip
_ARM = {
    "socket": 198, "connect": 203, "accept": 202, "bind": 200, "listen": 201, "ptrace": 117, "execve": 221,
    "kill": 129, "setns": 268, "unshare": 97, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
    "init_module": 105, "process_vm_readv": 270, "process_vm_writev": 271, "execveat": 281, "bpf": 280,
    "accept4": 242, "io_uring_setup": 425, "perf_event_open": 241, "keyctl": 219, "reboot": 142,
    "open_by_handle_at": 265, "pidfd_send_signal": 424, "pidfd_getfd": 438,
}  # fmt: skip
_CALLS = {"x86_64": (0xC000003E, _X86), "aarch64": (0xC00000B7, _ARM)}

_BLOCKED = frozenset(
    """socket.connect socket.bind socket.getaddrinfo socket.__new__ subprocess.Popen os.system os.exec os.posix_spawn
    os.fork os.forkpty os.kill os.remove os.rename os.rmdir os.mkdir os.chmod os.chown os.link os.symlink os.truncate
    os.putenv os.unsetenv os.chdir shutil.rmtree shutil.move shutil.copyfile ctypes.dlopen code.__new__
    pty.spawn webbrowser.open""".split()
)


def shut(memory: int | None, file: int | None = None) -> list[str]:
    """Take away what jobs do not need; gives in words what was taken.

    Args:
        memory: bytes that the process may have beside what it has now; None for as many as it likes.
        file: bytes that a file it writes may have.
    """
    done = []
    _close_sockets()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file, file))
    if memory is not None and _limit_memory(memory):
        done.append("memory is limited")
    if _own_network():
        done.append("a network of its own, with nothing in it")
    if _filter_calls():
        done.append("no sockets and no other programs (seccomp)")
    _watch_python()
    done.append("no sockets, programs or written files from Python (audit hook)")
    return done


def die_with_parent() -> None:
    """Be killed when the parent is: a job that runs would go on for nobody."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


_writable: set[str] = set()


def may_write(*paths: Path) -> None:
    """The files that may be written from now on, and no others."""
    _writable.clear()
    _writable.update(str(path) for path in paths)


def _close_sockets() -> None:
    """Connections that loading has left open."""
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        number = int(name)
        try:
            if number > 2 and stat.S_ISSOCK(os.fstat(number).st_mode) and number not in KEPT:
                os.close(number)
        except OSError:
            continue


KEPT: set[int] = set()
"""Pipes to the parent, which may be sockets."""


def _limit_memory(memory: int) -> bool:
    """By address space, where no GPU's driver reserves more of it than there is memory."""
    torch: Any = sys.modules.get("torch")
    if not sys.platform.startswith("linux") or (torch is not None and torch.cuda.is_initialized()):
        return False
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return True


def _own_network() -> bool:
    """A network namespace without interfaces, for this thread and those it starts."""
    if not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET


def _filter_calls() -> bool:
    """A filter in the kernel, for all threads: calls that reach out of the process are refused."""
    if not sys.platform.startswith("linux") or platform.machine() not in _CALLS:
        return False
    architecture, calls = _CALLS[platform.machine()]
    numbers = sorted(calls.values())
    refuse = len(numbers) + 1
    program = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 1, 0, architecture),
        (0x06, 0, 0, 0x00050001),  # another: EPERM
        (0x20, 0, 0, 0),  # load the number of the call
        (0x35, refuse, 0, 0x40000000),  # a call of another kind (x32): EPERM
        *[(0x15, refuse - 1 - index, 0, number) for index, number in enumerate(numbers)],
        (0x06, 0, 0, 0x7FFF0000),  # allow
        (0x06, 0, 0, 0x00050001),  # EPERM
    ]
    code = b"".join(struct.pack("HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no new privileges, which a filter needs
        return False
    seccomp = 317 if platform.machine() == "x86_64" else 277
    return libc.syscall(seccomp, 1, 1, ctypes.create_string_buffer(header, len(header))) == 0  # for all threads


def _watch_python() -> None:
    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = any(letter in (mode or "") for letter in "wax+") or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            )
            if writes and str(path) not in _writable and str(path) != os.devnull:
                raise PermissionError("a job writes no files")
        elif event in _BLOCKED and not (event == "os.rename" and str(args[0]) in _writable):
            raise PermissionError(f"a job does not call {event}")

    sys.addaudithook(hook)
