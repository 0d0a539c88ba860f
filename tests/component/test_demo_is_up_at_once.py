"""``sluice demo`` answers within 3 s of its start, says what to do, ends quietly; an idle gateway is small."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from tests.component.served import kill, port_said, served, start
from tests.component.stage import chat, hear, request_bytes

UP_WITHIN_S = 3.0
IDLE_BYTES = 90 * 1024 * 1024
DEMO = [sys.executable, "-m", "gateway", "demo", "--no-open", "--bind"]


@pytest.mark.alone
async def test_the_first_answer_has_begun_within_three_seconds_of_the_commands_start() -> None:
    began = trio.current_time()
    process = await start([*DEMO, "127.0.0.1:0"], stderr=subprocess.PIPE)
    try:
        port = await port_said(process)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            document = chat("support", content="Is my pump covered?", user="anna", stream=True)
            await stream.send_all(request_bytes(document, key=None, headers={"host": "127.0.0.1"}))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            assert trio.current_time() - began < UP_WITHIN_S
        process.send_signal(signal.SIGINT)
        with trio.fail_after(10):
            code = await process.wait()
            assert process.stderr is not None
            said = b"".join([data async for data in process.stderr]).decode()
        assert code in (0, 130)
        assert "Traceback" not in said
        assert all(json.loads(line)["level"] == "info" for line in said.splitlines() if line.startswith("{"))
    finally:
        await kill(process)
        if process.stderr is not None:
            await process.stderr.aclose()


async def test_it_says_where_the_page_is_and_how_to_ask_by_hand_and_how_to_end_it() -> None:
    process = await start([*DEMO, "127.0.0.1:0"], stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        said = b""
        with trio.fail_after(30):
            while b"ends it" not in said:
                said += await process.stdout.receive_some()
        found = re.search(r"open http://127\.0\.0\.1:(\d+)/\n", said.decode())
        assert found is not None
        assert "curl -N" in said.decode()
        assert "Ctrl+C ends it" in said.decode()
        async with await trio.open_tcp_stream("127.0.0.1", int(found[1])) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            page = await hear(stream)
        assert (page.status, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    finally:
        await kill(process)


async def test_a_port_in_use_is_said_with_the_fix() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await start([*DEMO, address], stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            with trio.fail_after(30):
                said = b"".join([data async for data in process.stderr]).decode()
                code = await process.wait()
            assert code == 1
            assert f"{address} is in use" in said
            assert "--bind" in said
            assert "Traceback" not in said
        finally:
            await kill(process)
            await process.stderr.aclose()


async def test_an_idle_gateway_takes_ninety_megabytes_at_most(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        assert (await gateway.ask(chat("chat"))).status == 200
        idle = psutil.Process(gateway.process.pid).memory_info().rss
    assert idle <= IDLE_BYTES
