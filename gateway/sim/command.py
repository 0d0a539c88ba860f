"""``sluice sim``: the simulated provider alone, until it is interrupted."""

from __future__ import annotations

import sys

from gateway.sim.behaviour import Behaviour
from gateway.sim.server import Simulator


async def run(host: str, port: int, behaviour: Behaviour, api_key: str | None, seed: int = 0) -> None:
    """Serve on ``host:port`` until cancelled; prints the address (port 0 picks one) and how to try it.

    Raises:
        OSError: The address cannot be bound.
    """
    simulator = Simulator(behaviour, seed=seed, api_key=api_key)
    await simulator.serve(host=host, port=port, task_status=_Announcement())


class _Announcement:
    """Tells a person where the simulator listens."""

    def started(self, value: tuple[str, int] | None = None) -> None:
        host, port = value or ("", 0)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        sys.stdout.write(
            f"simulated provider on {url}/v1 (counters: {url}/stats)\n"
            "the model name sets its behaviour, e.g. sim-ttft=0.5-tps=30-tokens=200, sim-status=503, sim-cut=40\n"
        )
        sys.stdout.flush()
