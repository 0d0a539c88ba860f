"""Real PostgreSQL and Redis servers for tests: found or installed, on free ports, in a temporary folder.

``tests/conftest.py`` makes one of each per test session, when the first test asks for it (fixtures ``postgres`` and
``redis``). They are Debian's packages; where they are missing and may not be installed, the test is skipped and says
so. A server ends with the session, and with the test process if that is killed.

PostgreSQL refuses to run as root, so both run as another user then. They keep nothing: no fsync, no snapshots.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_S = 30.0


class Service:
    """A server process that can be stopped and started again on the same port, with what it has kept.

    Args:
        command: The program with all its arguments.
        port: Where it listens on 127.0.0.1.
        stop_signal: What ends it in an orderly way.
    """

    def __init__(self, command: list[str], port: int, stop_signal: signal.Signals, log: Path) -> None:
        self._command, self._stop_signal, self._log = command, stop_signal, log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                _as_other_user(self._command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + _START_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"{self._command[0]} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it takes requests; not only connections."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it in an orderly way; a second later by force."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """End it as a power cut would: its children, too, which would go on for a moment."""
        pids = self._pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)
        until = time.monotonic() + _START_S
        while any(_runs(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.005)

    def pause(self) -> None:
        """Let it keep its connections and answer nothing until :meth:`resume`: as seen over a cut network."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _pids(self) -> list[int]:
        """The server and its children."""
        assert self._process is not None
        pids = [self._process.pid]
        children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children")
        return pids + [int(pid) for pid in children.read_text().split()]


class Postgres(Service):
    """A PostgreSQL server."""

    def __init__(self, folder: Path) -> None:
        programs = _programs("initdb", "postgres", package="postgresql", folders="/usr/lib/postgresql/*/bin")
        data = folder / "data"
        initdb = [programs["initdb"], "-D", str(data), "-U", "sluice", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run(_as_other_user([*initdb, "--no-locale"]), capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "shared_buffers": "32MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        super().__init__([programs["postgres"], "-D", str(data), *options], port, signal.SIGINT, folder / "log")
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://sluice@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database, and say its URL."""
        import psycopg

        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class Redis(Service):
    """A Redis (or Valkey) server."""

    def __init__(self, folder: Path) -> None:
        program = _programs("redis-server", package="redis-server")["redis-server"]
        port = free_port()
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder, "databases": 64}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        super().__init__([program, *arguments], port, signal.SIGTERM, folder / "log")
        self._numbers = itertools.cycle(range(1, 64))

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Take an empty database, and say its URL."""
        number = next(self._numbers)
        assert self._ask(f"SELECT {number}\r\nFLUSHDB\r\n") == b"+OK\r\n+OK\r\n"
        return self.url(number)

    def answers(self) -> bool:
        try:
            return self._ask("PING\r\n") == b"+PONG\r\n"
        except OSError:
            return False

    def _ask(self, commands: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(commands.encode())
            answer = b""
            while answer.count(b"\r\n") < commands.count("\r\n"):
                more = connection.recv(4096)
                if not more:
                    break
                answer += more
            return answer


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server for the length of the block. Tests use the fixture ``postgres`` instead."""
    with _folder() as folder:
        yield from _running(Postgres(folder))


@contextmanager
def redis() -> Iterator[Redis]:
    """A running Redis server for the length of the block. Tests use the fixture ``redis`` instead."""
    with _folder() as folder:
        yield from _running(Redis(folder))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _runs(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody waits for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _running(service: Postgres | Redis) -> Iterator[Postgres | Redis]:
    service.start()
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that the servers' user can use; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    user = _other_user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _other_user() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_other_user(command: list[str]) -> list[str]:
    """The command so that it does not run as root, and ends when the test process does."""
    user = _other_user()
    change = [] if user is None else ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return ["setpriv", "--pdeathsig", "KILL", *change, *command]


def _programs(*names: str, package: str, folders: str = "/usr/bin") -> dict[str, str]:
    """Where the programs are; their package is installed if they are missing and that is allowed."""
    found = _find(names, folders)
    if len(found) < len(names):
        _install(package)
        found = _find(names, folders)
    if len(found) < len(names):
        pytest.skip(f"{package} is not installed: apt-get install {package}")
    return found


def _find(names: tuple[str, ...], folders: str) -> dict[str, str]:
    root = Path("/")
    for folder in sorted(root.glob(folders.lstrip("/")), reverse=True):
        found = {name: str(folder / name) for name in names if (folder / name).exists()}
        if len(found) == len(names):
            return found
    return {name: path for name in names if (path := shutil.which(name))}


def _install(package: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (sudo and not shutil.which("sudo")):
        return
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    for command in (install, [*sudo, "apt-get", "update", "-qq"], install):
        if subprocess.run(command, env=environ, capture_output=True).returncode == 0 and command is install:
            return
