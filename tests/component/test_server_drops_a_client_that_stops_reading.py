"""A client that takes no byte for ``client_stall_s`` is dropped, and never blocks anything that has to end."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
import trio
import trustme
from h2.connection import H2Connection
from h2.settings import SettingCodes

from tests.component.server_peer import PATIENCE_S, Peer, app_of, request, running

Message = dict[str, Any]


class Flood:
    """An app that streams until it is stopped."""

    def __init__(self) -> None:
        self.cancelled = trio.Event()
        self.sent_bytes = 0
        self.begun = trio.Event()

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.begun.set()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 4_096, "more_body": True})
                self.sent_bytes += 4_096
        except trio.Cancelled:
            self.cancelled.set()
            raise


async def test_it_is_dropped_and_the_app_cancelled() -> None:
    flood = Flood()
    async with running(app_of(flood), client_stall_s=0.2) as server:
        async with await server.connect(receive_buffer_bytes=4_096) as peer:
            await peer.send(request())
            with trio.fail_after(PATIENCE_S):
                await flood.cancelled.wait()
                await server.service.empty()
            with pytest.raises(trio.BrokenResourceError):
                await peer.to_the_end()
        statistics = server.statistics()
    assert (statistics.client_stalled, statistics.client_left, statistics.app_failed) == (1, 1, 0)
    assert flood.sent_bytes < 8_000_000, "bounded by the kernel's buffers"


async def test_a_slow_reader_is_not_dropped() -> None:
    flood = Flood()
    async with (
        running(app_of(flood), client_stall_s=0.5) as server,
        await server.connect(receive_buffer_bytes=4_096) as peer,
    ):
        await peer.send(request())
        started = trio.current_time()
        while trio.current_time() - started < 1.0:
            assert await peer.stream.receive_some(65_536)
            await trio.sleep(0.02)
        assert server.statistics().client_stalled == 0


async def test_over_tls_it_is_dropped_as_well(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "all.pem"))
    files = {"tls_cert": str(tmp_path / "all.pem"), "tls_key": str(tmp_path / "all.pem")}
    context = ssl.create_default_context()
    authority.configure_trust(context)
    flood = Flood()
    async with (
        running(app_of(flood), client_stall_s=0.2, **files) as server,
        await server.connect(receive_buffer_bytes=4_096) as peer,
    ):
        stream = trio.SSLStream(peer.stream, context, server_hostname="127.0.0.1")
        await stream.send_all(request())
        with trio.fail_after(PATIENCE_S):
            await flood.cancelled.wait()
            await server.service.empty()
        assert server.statistics().client_stalled == 1


async def test_over_http2_it_is_dropped_as_well() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Flood(), scope, receive, send)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

    h2 = H2Connection()
    h2.initiate_connection()
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    h2.increment_flow_control_window(2**30)
    headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "h")]
    h2.send_headers(1, headers, end_stream=True)
    async with (
        running(app_of(handler), client_stall_s=0.2) as server,
        await server.connect(receive_buffer_bytes=4_096) as peer,
    ):
        await peer.send(h2.data_to_send())
        with trio.fail_after(PATIENCE_S):
            while server.statistics().requests == 0:
                await trio.lowlevel.checkpoint()
            await server.service.empty()
        assert server.statistics().client_stalled == 1


async def test_it_does_not_block_the_end_of_the_server() -> None:
    flood = Flood()
    async with running(app_of(flood), client_stall_s=60.0, drain_timeout_s=0.0) as server:
        peers = [await server.connect(receive_buffer_bytes=4_096) for _ in range(20)]
        for peer in peers:
            await peer.send(request())
        await flood.begun.wait()
        server.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        for peer in peers:
            await trio.aclose_forcefully(peer.stream)
    assert flood.cancelled.is_set()


async def test_a_pipelining_client_that_reads_no_refusal_is_dropped() -> None:
    async with (
        running(client_stall_s=0.2, header_timeout_s=30.0) as server,
        await server.connect(receive_buffer_bytes=2_048) as peer,
        trio.open_nursery() as nursery,
    ):
        await peer.send(request())
        assert (await peer.answer()).status == 200
        nursery.start_soon(_ask_and_never_read, peer)
        with trio.fail_after(PATIENCE_S):
            await server.service.empty()
        assert server.statistics().client_stalled == 1


async def _ask_and_never_read(peer: Peer) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            await peer.send(request("/" + "a" * 1_000) * 10)
