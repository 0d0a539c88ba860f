"""``--workers 2``: two processes on one socket that share the limits, the metrics and nothing else."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import trio
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import Admission, Config
from gateway.current import share_of
from gateway.sim import Behaviour
from tests.component.served import Served, served
from tests.component.stage import Heard, chat, hear, request_bytes

TWO = ("--workers", "2")
SUMMED_S = 2.0
RESTARTED_S = 20.0  # a pause of half a second and a start on a busy machine


def worker_pids(gateway: Served) -> set[int]:
    """The supervisor's children that serve, not the interpreter's resource tracker."""
    children = psutil.Process(gateway.process.pid).children()
    return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}


def serving_pids(gateway: Served) -> set[int]:
    """Workers that said in the log that they listen."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return {line["pid"] for line in lines if line["event"] == "listening"}


async def until(holds: Callable[[], bool], *, seconds: float) -> None:
    with trio.fail_after(seconds):
        while not holds():
            await trio.sleep(0.01)


async def both_listen(gateway: Served) -> set[int]:
    await until(lambda: len(serving_pids(gateway)) >= 2, seconds=RESTARTED_S)
    return serving_pids(gateway)


async def counted(gateway: Served) -> tuple[float, float]:
    """From ``/metrics``: requests that ended well, and requests in flight."""
    heard = await gateway.get("/metrics")
    families = text_string_to_metric_families(heard.body.decode())
    samples = [sample for family in families for sample in family.samples]
    ended = sum(s.value for s in samples if s.name == "sluice_requests_total" and s.labels["outcome"] == "ok")
    return ended, sum(s.value for s in samples if s.name == "sluice_requests_in_flight")


def test_the_shares_of_the_limits_add_up() -> None:
    config = Config(admission=Admission(workers=21, queue=5))
    shares = [share_of(config, index, 4).admission for index in range(4)]
    assert [share.workers for share in shares] == [6, 5, 5, 5]
    assert [share.queue for share in shares] == [2, 1, 1, 1]


async def test_both_answer_and_any_of_them_tells_the_sum_of_their_metrics(tmp_path: Path) -> None:
    async with served(tmp_path, arguments=TWO) as gateway:
        assert await both_listen(gateway) == worker_pids(gateway)
        asked, served_by_each = 0, 0
        with trio.fail_after(20):
            while served_by_each < 2:  # the kernel decides who accepts
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(gateway.ask, chat())
                asked += 20
                served_by_each = len(request_id_prefixes(gateway))
                await trio.sleep(0.15)
        await until_summed(gateway, asked)


def request_id_prefixes(gateway: Served) -> set[str]:
    """Each process makes its ids with a prefix of its own; the log has both."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return {line["request_id"][:20] for line in lines if line["event"] == "request"}


async def until_summed(gateway: Served, asked: int) -> None:
    with trio.fail_after(SUMMED_S):
        agreed = 0
        while agreed < 10:  # in a row, so that both have been asked
            agreed = agreed + 1 if (await counted(gateway))[0] == asked else 0


async def test_together_they_take_what_the_limits_say(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=10_000, tokens_per_s=5)
    async with served(tmp_path, arguments=TWO, workers=4, queue=1, behaviour=behaviour) as gateway:
        await both_listen(gateway)
        statuses: list[int] = []

        async def client() -> None:
            async with await gateway.connect() as stream:
                await stream.send_all(request_bytes(chat(stream=True)))
                head = await stream.receive_some()
                statuses.append(int(head.split()[1]))
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            with trio.fail_after(20):
                while statuses.count(200) < 4:
                    for _ in range(10):
                        nursery.start_soon(client)
                    await trio.sleep(0.2)
            assert gateway.sim.statistics().peak_active == 4
            with trio.fail_after(SUMMED_S + 1):
                while (await counted(gateway))[1] != 4:
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        assert set(statuses) <= {200, 429}


async def test_a_killed_worker_is_started_again_and_the_other_goes_on(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=120, tokens_per_s=100)
    heard: list[Heard | None] = []
    async with served(tmp_path, arguments=TWO, workers=40, behaviour=behaviour) as gateway:
        before = await both_listen(gateway)
        victim = min(before)

        async def client() -> None:
            try:
                async with await gateway.connect() as stream:
                    await stream.send_all(request_bytes(chat(stream=True)))
                    heard.append(await hear(stream))
            except (trio.BrokenResourceError, AssertionError):
                heard.append(None)

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(client)
            with trio.fail_after(10):
                await gateway.sim.until(lambda now: now.active == 16 and now.tokens_sent > 64)
            os.kill(victim, signal.SIGKILL)
        whole = [one for one in heard if one is not None and one.whole]
        assert all(one.finished for one in whole), "what is shown as whole is whole"
        assert len(heard) == 16
        await until(lambda: len(serving_pids(gateway)) == 3, seconds=RESTARTED_S)
        assert victim not in worker_pids(gateway)
        assert len(worker_pids(gateway)) == 2
        assert (await gateway.ask(chat("sim/sim-tps=0"))).status == 200
        assert gateway.sim.statistics().active == 0
        assert f"ended with exit code -{signal.SIGKILL:d}; starting it again" in gateway.log


async def test_sigterm_drains_both(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=50, tokens_per_s=50)
    heard: list[Heard] = []
    async with served(tmp_path, arguments=TWO, workers=40, behaviour=behaviour) as gateway:
        pids = await both_listen(gateway)

        async def client() -> None:
            heard.append(await gateway.ask(chat(stream=True)))

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(client)
            with trio.fail_after(10):
                await gateway.sim.until(lambda now: now.active == 16)
            gateway.process.send_signal(signal.SIGTERM)
        code, _ = await gateway.ended(seconds=5)
    assert code == 0
    assert [(one.status, one.finished, one.whole) for one in heard] == [(200, True, True)] * 16
    assert not any(psutil.pid_exists(pid) for pid in pids)
