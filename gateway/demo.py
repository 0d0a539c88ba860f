"""``sluice demo``: everything on this machine alone, with nothing to configure.

A simulated provider on a socket of its own, sample documents and profiles, and the ordinary gateway in front of them,
configured by ``demo_data/demo.toml`` (which is worth reading as an example). The provider is a task of this process;
the gateway talks to it over TCP as it would to any other, so what the page shows of it is the provider's own view.
"""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from gateway.config import Config, load
from gateway.context.index import index_folder
from gateway.context.profile_files import parse_profiles
from gateway.edge.run import run_gateway
from gateway.edge.sockets import BindError
from gateway.flow.groups import unwrapped
from gateway.instance import Gateway
from gateway.sim import Behaviour, Simulator
from gateway.store.sqlite import Store

DATA = Path(__file__).parent / "demo_data"
COLLECTION = "larkhill"
USERS = ("anna", "ben", "chiara", "dmitri")
QUESTIONS = (
    "My machine leaks water under the drip tray. What should I check?",
    "How often should I descale, with my water?",
    "Is the pump covered by the warranty?",
    "Can I return a machine that I have used for ten days?",
)


class DemoView:
    """What the page shows of the embedded provider."""

    users: Sequence[str] = USERS
    questions: Sequence[str] = QUESTIONS

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def provider_statistics(self) -> dict[str, Any]:
        return self._simulator.statistics().as_dict()


def run(bind: tuple[str, int], open_page: bool | None) -> None:
    """Run the demo until Ctrl+C.

    Args:
        open_page: Open the page in a browser; None: only say where it is.
    """
    host, port = bind
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-demo-") as folder:
            trio.run(_run, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", Path(folder), bool(open_page))
    except BindError as error:
        raise click.ClickException(f"{error}; try --bind 127.0.0.1:8090") from error


async def _run(bind: str, folder: Path, open_page: bool) -> None:
    simulator = Simulator(Behaviour(ttft_s=0.4, tokens_per_s=25, tokens=160))
    with unwrapped():
        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(simulator.serve)
            environ = {"SIM_URL": f"http://{host}:{port}/v1", "DEMO_BIND": bind, "DEMO_STORE": str(folder / "demo.db")}
            config = load(DATA / "demo.toml", environ=environ)
            await _fill_store(config)
            gateway = Gateway(config, demo=DemoView(simulator))
            await run_gateway(gateway, announce=False, on_listening=partial(_welcome, open_page))
            nursery.cancel_scope.cancel()


async def _fill_store(config: Config) -> None:
    async with Store.open(config.store.url) as store:
        await index_folder(store, COLLECTION, DATA)
        await store.profiles.put(parse_profiles((DATA / "profiles.csv").read_bytes(), json_lines=False))


async def _welcome(open_page: bool, addresses: list[str]) -> None:
    url = addresses[0]
    click.echo(
        f"Sluice is running: open {url}/\n"
        f"  Ask, watch the context load side by side, press Cancel, and see the provider stop at that moment.\n"
        f"  The same by hand:  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        """      -d '{"model": "support", "user": "anna", "stream": true, """
        """"messages": [{"role": "user", "content": "Is my pump covered?"}]}'\n"""
        "  Ctrl+C ends it."
    )
    if open_page:
        await trio.to_thread.run_sync(webbrowser.open, url, abandon_on_cancel=True)
