"""Promise: metrics say what each model cost, lost and saved; unknown prices are counted, and names stay bounded."""

from __future__ import annotations

from attrs import evolve
from ledgers import CONFIG, record

from gateway.ledger.entry import make_entry
from gateway.ledger.prices import Prices
from gateway.ledger.unread import Lengths, Unread
from gateway.observe.metrics import Metrics


def test_cost_loss_and_savings_are_counted() -> None:
    entry = make_entry(record(), id="1", now_s=0.0, prices=Prices(CONFIG), lengths=Lengths())
    metrics = Metrics(["chat"])
    for _ in range(2):
        metrics.spend(
            evolve(
                entry, lost_micro_usd=1_000, unread=Unread(delivered=10, generated=12, saved=50, saved_micro_usd=500)
            )
        )
    metrics.spend(evolve(entry, record=record(model="made up by a client")))
    metrics.spend(evolve(entry, cost_micro_usd=None))
    text = metrics.expose()[0].decode()
    for line in (
        'sluice_cost_usd_total{model="chat"} 0.0054',
        'sluice_cost_usd_total{model="other"} 0.0027',
        'sluice_lost_usd_total{model="chat"} 0.002',
        'sluice_left_tokens_total{fate="delivered",model="chat"} 20.0',
        'sluice_left_tokens_total{fate="generated",model="chat"} 24.0',
        'sluice_tokens_saved_total{model="chat"} 100.0',
        'sluice_saved_usd_total{model="chat"} 0.001',
        'sluice_unpriced_total{model="chat"} 1.0',
    ):
        assert line in text
    assert "made up" not in text
