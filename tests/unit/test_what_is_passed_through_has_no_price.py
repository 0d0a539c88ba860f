"""What nobody can price is unknown in the ledger, and never free."""

from gateway.config import Config, Price, Provider
from gateway.core.facts import AttemptFact, Kind, Outcome, Record, Usage
from gateway.ledger.entry import make_entry
from gateway.ledger.prices import Prices
from gateway.ledger.unread import Lengths

PRICES = Prices(
    Config(
        provider=(Provider(name="own", base_url="http://127.0.0.1:1/v1"),),
        prices={"own/m": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)},
    )
)


def entry(*, prices=PRICES, **fields):
    record = Record(request_id="r", endpoint="e", received_at=0.0, ended_at=1.0, outcome=Outcome.OK, **fields)
    return make_entry(record, id="1", now_s=100.0, prices=prices, lengths=Lengths())


def test_a_request_that_was_passed_through_costs_something_unknown():
    fact = AttemptFact(target="own", label="own", kind=Kind.PRIMARY, began_at=0.0, outcome="ok")
    assert entry(target="own", path="/files", attempts=[fact]).cost_micro_usd is None


def test_a_request_that_reached_nobody_costs_nothing():
    assert entry().cost_micro_usd == 0


def test_an_answer_costs_what_its_tokens_cost():
    usage = Usage(prompt_tokens=10, completion_tokens=20)
    fact = AttemptFact(target="own/m", label="own/m", kind=Kind.PRIMARY, began_at=0.0, outcome="ok", usage=usage)
    assert entry(target="own/m", attempts=[fact], usage=usage).cost_micro_usd == 50


def test_nobody_is_told_to_give_it_a_price():
    told = []
    elsewhere = Prices(Config(provider=(Provider(name="own", base_url="https://api.openai.com/v1"),)), told.append)
    fact = AttemptFact(target="own", label="own", kind=Kind.PRIMARY, began_at=0.0, outcome="ok")
    assert entry(prices=elsewhere, target="own", path="/files", attempts=[fact]).cost_micro_usd is None
    assert told == []


def test_a_model_that_does_not_exist_is_not_asked_for_its_price():
    told = []
    elsewhere = Prices(Config(provider=(Provider(name="own", base_url="https://api.openai.com/v1"),)), told.append)
    fact = AttemptFact(target="own/gtp-4", label="own/*", kind=Kind.PRIMARY, began_at=0.0, outcome="failed", status=404)
    made = entry(prices=elsewhere, target="own/gtp-4", attempts=[fact])
    assert (made.cost_micro_usd, made.price_version, told) == (0, "", [])
