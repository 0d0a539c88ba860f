"""The configuration is read again while the gateway runs: from the next request on, and only if it has no fault."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from gateway.app import Gateway, make_app
from gateway.config import Source
from gateway.core.principal import ANONYMOUS
from gateway.edge.serve import serve
from gateway.sim import Behaviour, Simulator
from tests.component.served import Served, served
from tests.component.stage import KEY, Heard, hear, request_bytes

RELOADED_S = 10.0  # watching, reading and a busy machine

FILE = """
server = {{ bind = "{bind}", reload = {watched}, keep_alive_s = {keep_alive_s} }}
admission = {{ workers = {workers}, queue = 5 }}
store.url = "sqlite:///:memory:"
log = {{ requests = false, level = "info" }}
provider = [
    {{ name = "one", base_url = "{one}", api_key = "{key_of_one}" }},
    {{ name = "two", base_url = "{two}" }},
]
model = [{{ name = "chat", targets = [{targets}] }}]
assistant = [{{ name = "helper", model = "chat", system = "{system}" }}]
key = [{{ name = "dev", secret = "{key}" }}]
"""
ONE = '{ provider = "one", model = "sim" }'
TWO = '{ provider = "two", model = "sim" }'


@define
class Running:
    """A gateway in the test's own loop, its file, and two providers behind it."""

    gateway: Gateway
    one: Simulator
    two: Simulator
    port: int
    file: Path
    log_file: Path
    fields: dict[str, Any]

    def write(self, **fields: Any) -> None:
        """Put a new file in the old one's place, as editors do."""
        self.fields |= fields
        self.write_text(FILE.format(**self.fields))

    def write_text(self, text: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    async def ask(self, model: str = "chat", *, key: str = KEY, stream: bool = False) -> Heard:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as client:
            await client.send_all(request_bytes(document(model, stream=stream), key=key))
            return await hear(client)

    async def asked(self) -> str:
        """Who answers now."""
        heard = await self.ask()
        assert heard.status == 200
        return heard.headers["x-sluice-target"].partition("/")[0]

    async def told(self, event: str, times: int = 1) -> dict[str, Any]:
        """The log's line of the ``times``-th such event."""
        with trio.fail_after(RELOADED_S):
            while len(lines := [line for line in log_lines(self.log_file) if line["event"] == event]) < times:
                await trio.sleep(0.01)
        return lines[times - 1]

    def counted(self) -> dict[str, float]:
        return {outcome: n for (outcome,), n in self.gateway.metrics.counters["sluice_config_reloads"].items()}


def document(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}


def log_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]


@asynccontextmanager
async def running(
    folder: Path, *, watched: bool = True, sim_options: Mapping[str, Any] | None = None, **fields: Any
) -> AsyncIterator[Running]:
    behaviour = Behaviour(ttft_s=0.0, tokens_per_s=0.0, tokens=20)
    one, two = (Simulator(behaviour, **(sim_options or {})) for _ in range(2))
    async with trio.open_nursery() as nursery:
        addresses = [await nursery.start(sim.serve) for sim in (one, two)]
        all_fields = {
            **dict(zip(("one", "two"), (f"http://{host}:{port}/v1" for host, port in addresses), strict=True)),
            "bind": "127.0.0.1:0",
            "watched": str(watched).lower(),
            "keep_alive_s": 75,
            "workers": 20,
            "key_of_one": "",
            "targets": ONE,
            "system": "Be brief.",
            "key": KEY,
            **fields,
        }
        file, log_file = folder / "sluice.toml", folder / "log"
        file.write_text(FILE.format(**all_fields))
        source = Source(path=file)
        config = source.read(os.environ)
        assert config is not None
        with log_file.open("wb") as log:
            gateway = Gateway(config, source=source, log_fd=log.fileno())
            app = make_app(gateway)
            [url] = await nursery.start(serve_app, app, gateway)
            yield Running(gateway, one, two, int(url.rpartition(":")[2]), file, log_file, all_fields)
            nursery.cancel_scope.cancel()


async def serve_app(app: Any, gateway: Gateway, task_status: trio.TaskStatus[list[str]]) -> None:
    await serve(app, gateway.config.server, gate=app.door, task_status=task_status)


async def test_a_changed_target_is_asked_by_the_next_request(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert await gateway.asked() == "one"
        gateway.write(targets=TWO)
        line = await gateway.told("config_reloaded")
        assert await gateway.asked() == "two"
        assert (line["level"], line["file"]) == ("info", str(gateway.file))
        assert gateway.counted() == {"applied": 1}


async def test_changed_weights_hold_from_the_next_request_on(tmp_path: Path) -> None:
    balanced = '{{ provider = "one", model = "sim", weight = {} }}, {{ provider = "two", model = "sim", weight = {} }}'
    file = FILE.replace('name = "chat", ', 'name = "chat", balance = "weighted", ')
    async with running(tmp_path) as gateway:
        gateway.write_text(file.format(**gateway.fields | {"targets": balanced.format(1, 0)}))
        await gateway.told("config_reloaded")
        assert {await gateway.asked() for _ in range(20)} == {"one"}
        gateway.write_text(file.format(**gateway.fields | {"targets": balanced.format(0, 1)}))
        await gateway.told("config_reloaded", 2)
        assert {await gateway.asked() for _ in range(20)} == {"two"}


async def test_a_rotated_provider_key_is_used_by_the_next_request(tmp_path: Path) -> None:
    old, new = "sk-provider-old", "sk-provider-new"
    async with running(tmp_path, sim_options={"api_key": new}, key_of_one=old) as gateway:
        assert (await gateway.ask()).status == 502  # and the breaker leaves this target alone for long
        gateway.write(key_of_one=new)
        await gateway.told("config_reloaded")
        assert (await gateway.ask()).status == 200
        assert old not in gateway.log_file.read_text()
        assert new not in gateway.log_file.read_text()


async def test_a_rotated_client_key_is_asked_for_at_once(tmp_path: Path) -> None:
    new = "sk-test-fedcba9876543210"
    async with running(tmp_path) as gateway:
        gateway.write(key=new)
        await gateway.told("config_reloaded")
        assert (await gateway.ask(key=KEY)).status == 401
        assert (await gateway.ask(key=new)).status == 200


async def test_a_changed_assistant_and_a_smaller_admission_hold_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert (await gateway.ask("helper")).status == 200
        gateway.write(system="Be long.", workers=3)
        await gateway.told("config_reloaded")
        assert (await gateway.ask("helper")).status == 200
        assert gateway.gateway.config.assistant[0].system == "Be long."
        assert gateway.gateway.admission.statistics().permits == 3


async def test_a_stream_ends_on_the_provider_it_began_with(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        gateway.one.behave(Behaviour(ttft_s=0.0, tokens_per_s=20.0, tokens=30))
        async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as client:
            await client.send_all(request_bytes(document("chat", stream=True)))
            await gateway.one.until(lambda now: now.active == 1)
            gateway.write(targets=TWO, key_of_one="sk-another-key", workers=1)
            await gateway.told("config_reloaded")
            assert gateway.one.statistics().active == 1
            heard = await hear(client)
        assert heard.finished
        assert heard.headers["x-sluice-target"] == "one/sim"
        assert gateway.two.statistics().started == 0
        assert await gateway.asked() == "two"


FAULTS = [
    ("server = ", "not TOML"),
    (FILE.replace("targets = [{targets}]", "targets = []"), "model[0].targets: is empty"),
    (FILE.replace('model = "chat"', 'model = "caht"'), "assistant[0].model: no model is called 'caht'"),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS)
async def test_a_broken_file_is_refused_with_its_faults_and_the_old_one_kept(
    tmp_path: Path, text: str, fault: str
) -> None:
    async with running(tmp_path) as gateway:
        before = gateway.gateway.current
        gateway.write_text(text.format(**gateway.fields) if "{bind}" in text else text)
        line = await gateway.told("config_refused")
        assert line["level"] == "error"
        assert [found for found in line["faults"] if found.startswith(fault)] == line["faults"]
        assert gateway.gateway.current is before
        assert await gateway.asked() == "one"
        gateway.write(targets=TWO)
        await gateway.told("config_reloaded")
        assert await gateway.asked() == "two"
        assert gateway.counted() == {"refused": 1, "applied": 1}


async def test_what_needs_a_restart_is_named_and_kept_and_the_rest_is_applied(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        gateway.write(bind="127.0.0.1:1", keep_alive_s=5, targets=TWO)
        line = await gateway.told("config_reloaded")
        assert (line["level"], line["needs_restart"]) == ("warning", ["server.bind", "server.keep_alive_s"])
        assert gateway.gateway.config.server.bind == "127.0.0.1:0"
        assert await gateway.asked() == "two"


async def test_a_file_that_says_the_same_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        before = gateway.gateway.current
        gateway.write_text(gateway.file.read_text() + "\n# a remark\n")
        await gateway.told("config_unchanged")
        assert gateway.gateway.current is before
        assert gateway.counted() == {"unchanged": 1}


async def test_variables_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "one")
    target = '{ provider = "${WHO}", model = "sim" }'
    async with running(tmp_path, watched=False, targets=target) as gateway:
        assert await gateway.asked() == "one"
        monkeypatch.setenv("WHO", "two")
        gateway.gateway.ask_reload()
        await gateway.told("config_reloaded")
        assert await gateway.asked() == "two"


async def test_a_link_that_leads_to_another_file_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes replaces a ConfigMap: the file is a link into a folder that is a link."""
    async with running(tmp_path) as gateway:
        for name, targets in (("v1", ONE), ("v2", TWO)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "sluice.toml").write_text(FILE.format(**gateway.fields | {"targets": targets}))
        (tmp_path / "data").symlink_to("v1")
        gateway.file.unlink()
        gateway.file.symlink_to("data/sluice.toml")
        await gateway.told("config_unchanged")
        (tmp_path / "new").symlink_to("v2")
        (tmp_path / "new").rename(tmp_path / "data")
        await gateway.told("config_reloaded")
        assert await gateway.asked() == "two"


async def test_a_file_that_is_gone_for_a_while_is_no_fault(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        gateway.file.rename(tmp_path / "away")
        gateway.write(targets=TWO)
        await gateway.told("config_reloaded")
        assert "refused" not in gateway.counted()


async def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        config = gateway.gateway.config
    with (tmp_path / "other-log").open("wb") as log:
        from_environment = Gateway(config, source=Source(path=None), log_fd=log.fileno())
        from_environment.ask_reload()
        async with from_environment.running():
            pass
    assert [line["event"] for line in log_lines(tmp_path / "other-log")] == ["nothing_to_reload"]


async def test_what_was_learnt_of_a_provider_stays_where_its_settings_did(tmp_path: Path) -> None:
    async with running(tmp_path, targets=f"{ONE}, {TWO}") as gateway:
        await gateway.asked()
        book = gateway.gateway.health
        one, two = (book.of(target) for target in gateway.gateway.routes.resolve("chat", ANONYMOUS).targets)
        gateway.write(key_of_one="sk-another-key")
        await gateway.told("config_reloaded")
        after = [book.of(target) for target in gateway.gateway.routes.resolve("chat", ANONYMOUS).targets]
        assert after[0] is not one
        assert after[1] is two


# ── a process, and processes ──────────────────────────────────────────────────────────────────────────────────────


async def until(holds: Callable[[], bool], *, seconds: float = 20.0) -> None:
    with trio.fail_after(seconds):
        while not holds():
            await trio.sleep(0.01)


def events(gateway: Served, name: str) -> list[dict[str, Any]]:
    return [line for line in log_lines(gateway.log_file) if line["event"] == name]


def renamed(folder: Path, old: str, new: str) -> None:
    file = folder / "sluice.toml"
    file.write_text(file.read_text().replace(f'name = "{old}"', f'name = "{new}"', 1))


async def test_sighup_reloads_two_workers_and_one_that_is_started_again_has_the_new_file(tmp_path: Path) -> None:
    async with served(tmp_path, server="reload = false", arguments=("--workers", "2")) as gateway:
        await until(lambda: len(events(gateway, "listening")) == 2)
        first, second = (line["pid"] for line in events(gateway, "listening"))
        renamed(tmp_path, "chat", "talk")
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: len(events(gateway, "config_reloaded")) == 2)
        assert (await gateway.ask(document("talk"))).status == 200
        assert (await gateway.ask(document("chat"))).status == 404
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(events(gateway, "listening")) == 3)
        os.kill(second, signal.SIGKILL)  # now only the new one answers, until a fourth is there
        assert (await gateway.ask(document("talk"))).status == 200
        await until(lambda: len(events(gateway, "listening")) == 4)
        gateway.process.terminate()
        assert (await gateway.ended(seconds=20))[0] == 0


async def test_sighup_ends_nothing_and_a_command_line_holds_over_a_new_file(tmp_path: Path) -> None:
    async with served(tmp_path, server="reload = false", arguments=("--bind", "127.0.0.1:0")) as gateway:
        (tmp_path / "sluice.toml").write_text((tmp_path / "sluice.toml").read_text() + "[admission2]\n")
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: bool(events(gateway, "config_refused")))
        assert (await gateway.ask(document("chat"))).status == 200
        text = (tmp_path / "sluice.toml").read_text().removesuffix("[admission2]\n")
        (tmp_path / "sluice.toml").write_text(text.replace('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:1"'))
        renamed(tmp_path, "chat", "talk")
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: bool(events(gateway, "config_reloaded")))
        assert "needs_restart" not in events(gateway, "config_reloaded")[0]
        assert (await gateway.ask(document("talk"))).status == 200
        gateway.process.terminate()
        assert (await gateway.ended(seconds=20))[0] == 0
