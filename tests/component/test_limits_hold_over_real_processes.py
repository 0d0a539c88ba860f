"""Limits over real processes and a real keeper: never exceeded, nearly all usable, nobody waits, crashes are healed."""

import os
import select
import subprocess
import sys
import time
from bisect import bisect_left
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.alone

WORKER = Path(__file__).with_name("limits_worker.py")
ROOT = WORKER.parents[2]


class Told(NamedTuple):
    """What one request was told; ``at_once`` if it waited for nothing."""

    passed: bool
    asked_at: float
    waited_s: float
    at_once: bool

    @property
    def told_at(self):
        return self.asked_at + self.waited_s


class Worker:
    """A process of ``limits_worker.py``."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def ready(self):
        assert self.process.stdout.readline() == "ready\n"

    def line(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def passed(self, count):
        """Wait until so many have passed."""
        for _ in range(count):
            assert self.process.stdout.readline().startswith("yes ")

    def end(self):
        """Let it give back what it has; what it was told."""
        self.line()
        out, _ = self.process.communicate(timeout=60)
        rows = [line.split() for line in out.splitlines() if line.count(" ") == 3]
        return [Told(row[0] == "yes", float(row[1]), float(row[2]), row[3] == "1") for row in rows]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()


@contextmanager
def workers(count, *arguments):
    with ExitStack() as stack:
        all_of_them = [Worker(*arguments) for _ in range(count)]
        for worker in all_of_them:
            stack.callback(worker.kill)
        for worker in all_of_them:
            worker.ready()
        for worker in all_of_them:
            worker.line()
        yield all_of_them


def wait_for_any(several):
    """Wait until a request of one of them has passed."""
    assert select.select([worker.process.stdout for worker in several], [], [], 30)[0]


def url_of(kind, request, tmp_path):
    if kind == "sqlite":
        return str(tmp_path / "sluice.db")
    return request.getfixturevalue("postgres" if kind == "postgresql" else kind).new_database()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_four_processes_of_a_hundred_clients_never_pass_more_than_the_limit_and_use_nearly_all_of_it(
    kind, request, tmp_path
):
    limit, window_s = 100, 10.0  # 600 a minute
    with workers(4, kind, url_of(kind, request, tmp_path), "rpm", limit, window_s, "100x", 5.0, 0.0) as four:
        began = time.monotonic()
        time.sleep(2 * window_s + 0.5)
        told = [row for worker in four for row in worker.end()]
    times = sorted(row.told_at for row in told if row.passed)
    most = max(bisect_left(times, begin + window_s) - place for place, begin in enumerate(times))
    assert most <= limit
    usable = len([at for at in times if began + window_s < at <= began + 2 * window_s]) / limit
    assert usable >= 0.95


def test_a_second_without_redis_delays_and_refuses_nobody(redis):
    with workers(2, "redis", redis.new_database(), "rpm", 600, 10.0, 20.0, 5.0, 0.0) as two:
        time.sleep(2.0)
        cut_at = time.monotonic()
        redis.pause()
        try:
            time.sleep(1.0)
        finally:
            redis.resume()
        time.sleep(0.5)
        told = [row for worker in two for row in worker.end()]
    during = [row for row in told if cut_at <= row.asked_at < cut_at + 1.0]
    assert len(during) >= 30
    assert all(row.passed for row in during)
    assert all(row.at_once for row in during), "nobody waited for anything"
    assert sorted(row.waited_s for row in during)[-3] < 0.05, "each process may have stood still in one of them"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
def test_what_a_killed_process_held_is_free_when_its_lease_is_over(kind, request, tmp_path):
    url = url_of(kind, request, tmp_path)
    with workers(1, kind, url, "concurrent", 10, 0, 50.0, 1.5, 60.0) as (first,):
        first.passed(10)  # it holds all ten
        with workers(1, kind, url, "concurrent", 10, 0, 50.0, 1.5, 60.0) as (second,):
            first.kill()
            killed_at = time.monotonic()
            wait_for_any([second])
            time.sleep(1.0)
            told = second.end()
    passed_at = [row.asked_at for row in told if row.passed]
    assert len(passed_at) == 10
    assert killed_at + 0.5 < passed_at[0] < killed_at + 2.5


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
def test_processes_that_are_killed_again_and_again_never_overspend_a_budget(kind, request, tmp_path):
    url, passed = url_of(kind, request, tmp_path), 0
    for nothing_spent in (True, False):
        with workers(3, kind, url, "usd", 200, 0, 200.0, 1.0, 0.0) as three:
            if nothing_spent:
                wait_for_any(three)
            time.sleep(0.3)
            for worker in three[:2]:
                worker.process.kill()
            for worker in three:
                if worker is three[2]:
                    passed += sum(row.passed for row in worker.end())
                else:
                    passed += worker.process.stdout.read().count("yes")
    assert 0 < passed <= 200
