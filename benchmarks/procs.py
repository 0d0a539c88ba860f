"""Processes of a benchmark: started pinned, measured as a group, ended for certain.

A contestant is a process group of its own, whatever it forks, so its cost is the sum over the group: user and system
time of every member and of its reaped children from ``/proc/<pid>/stat`` (a resolution of 10 ms), memory as PSS, in
which pages shared between members count once. Affinity is inherited: the parent takes the child's core for the moment
of the fork, so no wrapper process and no ``preexec_fn`` (unsafe beside the progress display's thread) is needed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from attrs import frozen

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class NotReady(Exception):
    """A process ended or stayed silent instead of becoming ready; the message holds the end of its log."""


def raise_descriptor_limit() -> int:
    """Allow as many open files as the system lets us, for us and all children; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@frozen(kw_only=True, slots=True)
class Cores:
    """Which core runs what; both the same on a machine with one."""

    contestant: int
    instrument: int

    @classmethod
    def choose(cls) -> Cores:
        """The first two of the cores this process may use. Call before pinning anything."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(contestant=allowed[0], instrument=allowed[1 % len(allowed)])


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on ``core``."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def spawn(
    argv: Sequence[str],
    *,
    core: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: IO[bytes] | None,
    pipes: bool = False,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` on ``core`` as the leader of a new process group.

    Args:
        log: Where its output goes; None is where ours goes.
        pipes: Talk to it over its standard input and output; errors still go to ``log``.
    """
    with pinned(core):
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else log,
            stderr=log,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], grace_s: float = 2.0) -> None:
    """SIGTERM to the group, SIGKILL to whatever is left of it after ``grace_s``."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def members(group: int) -> Iterator[tuple[int, list[str]]]:
    """Each process of ``group`` with the fields of its stat line from the third (state) on."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry.name}/stat").read_text()
        except OSError:  # it ended while we looked
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        if int(fields[2]) == group:
            yield int(entry.name), fields


def cpu_s(group: int) -> float:
    """User plus system time of the group so far, reaped children included."""
    return sum(sum(int(field) for field in fields[11:15]) for _, fields in members(group)) * _TICK_S


def core_busy_s(core: int) -> float:
    """Time ``core`` has been busy with anything since the machine started; waiting and stolen time excluded."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _, _, irq, softirq = (int(field) for field in line.split()[1:8])
            return (user + nice + system + irq + softirq) * _TICK_S
    return 0.0


def memory_bytes(group: int) -> int:
    """Proportional set size of the group; resident set size where the kernel keeps no PSS."""
    total = 0
    for pid, _ in members(group):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return total


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path, timeout_s: float) -> None:
    """Ask ``GET path`` every few milliseconds until the answer is 200.

    Raises:
        NotReady: The process ended, or ``timeout_s`` passed.
    """
    deadline = time.monotonic() + timeout_s
    question = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReady(f"ended with code {process.returncode}; {_tail(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            sock.sendall(question)
            if sock.recv(64).split(b" ")[1:2] == [b"200"]:
                return
        time.sleep(0.005)
    raise NotReady(f"GET {path} was not answered with 200 within {timeout_s:g} s; {_tail(log)}")


def _tail(log: Path) -> str:
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        text = ""
    return f"the end of its log: {text[-1500:]}" if text else "its log is empty"
