"""A budget that is spent refuses what is passed through, too, although nobody knows what that will cost."""

from __future__ import annotations

import pytest
import trio

from gateway.accounts import Account, Accounts
from gateway.config import Config
from gateway.core.errors import Rejected
from gateway.core.limits import LimitRule
from gateway.core.principal import Principal
from gateway.quota.backend import MemoryLimits
from gateway.quota.refusals import header_text

BUDGET = LimitRule(scope="key", owner="anna", kind="usd", amount=1_000, period="total")
ANNA = Principal(name="anna", limits=(BUDGET,))


async def test_passing_through_needs_money_that_is_left(autojump_clock: trio.testing.MockClock) -> None:
    accounts = Accounts(Config(), lambda *_, **__: None, lambda _: None)
    accounts._rates.keeper = MemoryLimits(trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accounts.quota.run)
        account = accounts.enter(ANNA, trio.current_time())
        assert isinstance(account, Account)
        await account.pass_through()
        account.give_up()
        ticket = accounts.quota.enter(ANNA.limits, trio.current_time())
        assert not isinstance(ticket, Rejected)
        assert await ticket.reserve_soon((), 0, 1_000) is None
        ticket.settle(0, 1_000, trio.current_time())
        await trio.sleep(2)
        account = accounts.enter(ANNA, trio.current_time())
        assert isinstance(account, Account)
        with pytest.raises(Rejected) as refused:
            await account.pass_through()
        assert refused.value.code == "budget_exhausted"
        account.give_up()
        nursery.cancel_scope.cancel()


def test_a_warning_is_one_header_whatever_a_name_holds() -> None:
    assert header_text("team 'a\r\nset-cookie: b é'") == b"team 'a??set-cookie: b ?'"
