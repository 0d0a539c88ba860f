"""Several processes' quotas in one Trio loop with a virtual clock, and one keeper in memory whose line can be cut."""

from contextlib import asynccontextmanager

import trio

from gateway.quota.backend import MemoryLimits
from gateway.quota.quota import Quota


class Keeper:
    """A keeper in memory whose line can be cut, and that counts rounds."""

    def __init__(self):
        self.inner = MemoryLimits(trio.current_time)
        self.is_cut = False
        self.hangs = False
        self.rounds = 0

    async def settle(self, holder, lease_s, claims, *, new):
        await trio.sleep(0.002)
        if self.hangs:
            await trio.sleep_forever()
        if self.is_cut:
            raise ConnectionError("cut")
        self.rounds += 1
        return await self.inner.settle(holder, lease_s, claims, new=new)

    async def leave(self, holder, claims):
        if self.is_cut:
            raise ConnectionError("cut")
        await self.inner.leave(holder, claims)

    async def reconcile(self, name, spent):
        return await self.inner.reconcile(name, spent)


class Process:
    """A quota and its background, which can be ended in good order or as by kill -9."""

    def __init__(self, nursery, keeper, lease_s, wall):
        self.said = []
        self.keeper = keeper
        self.quota = Quota(
            keeper, lease_s=lease_s, say=lambda level, event, **fields: self.said.append(event), wall=wall
        )
        self._scope = trio.CancelScope()
        nursery.start_soon(self._run)

    async def _run(self):
        with self._scope:
            await self.quota.run()

    def end(self):
        self._scope.cancel()

    def crash(self):
        for lessee in self.quota._lessees:

            async def dead(*args, **kwargs):
                raise ConnectionError("dead")

            lessee._backend = type("Dead", (), {"settle": dead, "leave": dead})()
        self.end()

    async def ask(self, rules, tokens=0, micro_usd=0, *, model=(), hold=None):
        """One request from its door to its end; the refusal if there is one."""
        ticket = self.quota.enter(rules, trio.current_time())
        if isinstance(ticket, Exception):
            return ticket
        refused = await ticket.reserve_soon(model, tokens, micro_usd)
        if refused is not None:
            ticket.abandon()
            return refused
        if hold is not None:
            await hold.wait()
        ticket.settle(tokens, micro_usd, trio.current_time())
        return None


@asynccontextmanager
async def processes(count, *, keeper=None, lease_s=5.0, wall=None):
    keeper = keeper or Keeper()
    async with trio.open_nursery() as nursery:
        yield [Process(nursery, keeper, lease_s, wall or trio.current_time) for _ in range(count)]
        nursery.cancel_scope.cancel()
