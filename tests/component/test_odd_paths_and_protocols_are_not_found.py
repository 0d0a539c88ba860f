"""What is spelled like an endpoint but is none, or speaks what nobody here speaks, is refused in one line."""

from __future__ import annotations

import pytest

from tests.component.stage import ask, chat, hear, staged

WEBSOCKET = (
    b"GET /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/%2fv1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions//",
        "/./v1/chat/completions",
        "/v1/../v1/chat/completions",
        "/%2e/v1/chat/completions",
        "/v1/chat/completions%00",
        "/v1/chat/completions%0d%0ax:y",
        "/v1/chat/completions;x",
        "/V1/chat/completions",
    ],
)
async def test_a_path_that_is_nearly_an_endpoints_is_not_found(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with staged() as stage:
        heard = await ask(stage, chat(), path=path)
        assert (heard.status, heard.json()["error"]["code"]) == (404, "not_found")
        assert stage.sim.statistics().started == 0
    assert not caplog.records


async def test_a_websocket_is_refused_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with staged() as stage, await stage.connect() as stream:
        await stream.send_all(WEBSOCKET)
        assert (await hear(stream)).status == 403
    assert not caplog.records
