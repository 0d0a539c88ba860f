"""Only what may pass does: no credential of the client's goes on, nothing of our account or connection comes back."""

from __future__ import annotations

from tests.component.passed_provider import SECRET, Asked, passing
from tests.component.stage import KEY

SENT = f"""POST /v1/files
content-type: text/csv
accept: */*
openai-beta: assistants=v2
anthropic-beta: files-1
anthropic-beta: files-2
idempotency-key: i-1
range: bytes=0-3
cookie: session=1
x-api-key: {KEY}
x-goog-api-key: {KEY}
openai-organization: org-client
proxy-authorization: Basic x
forwarded: for=1.2.3.4
x-forwarded-for: 1.2.3.4
x-sluice-provider: media
x-priority: low
connection: keep-alive, idempotency-key
te: trailers
upgrade: h2c
accept-encoding: gzip
user-agent: client/1
"""
ANSWERED = {
    "content-type": "text/csv",
    "content-disposition": 'attachment; filename="a.csv"',
    "openai-processing-ms": "12",
    "openai-organization": "org-ours",
    "set-cookie": "session=2",
    "server": "theirs",
    "x-request-id": "req-theirs",
    "x-ratelimit-remaining-requests": "3",
    "location": "https://elsewhere.example",
    "etag": '"1"',
    "x-leak": SECRET,
    "access-control-allow-origin": "*",
    "strict-transport-security": "max-age=1",
    "connection": "keep-alive, etag",
    "keep-alive": "timeout=1",
}


async def test_headers_pass_by_lists() -> None:
    async def script(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(b"a,b", headers=ANSWERED, status="201 Created")

    async with passing(script) as run:
        heard = await run.ask(SENT, b"a,b\n")
    # `location` makes no redirect of a 201.
    assert (heard.status, heard.body) == (201, b"a,b")
    sent = run.asked[0].headers
    assert {name for name, _ in sent} == {
        "host", "content-type", "accept", "openai-beta", "anthropic-beta", "range", "authorization", "user-agent",
        "accept-encoding", "content-length",
    }  # fmt: skip
    assert [value for name, value in sent if name == "authorization"] == [f"Bearer {SECRET}"]
    assert [value for name, value in sent if name == "anthropic-beta"] == ["files-1", "files-2"]
    assert run.asked[0].header("accept-encoding") == "identity"
    assert (
        run.asked[0]
        .header(
            "user-agent",
        )
        .startswith("sluice/")
    )  # type: ignore[union-attr]
    assert KEY not in str(sent)
    told = heard.headers
    assert told["content-disposition"] == 'attachment; filename="a.csv"'
    assert told["openai-processing-ms"] == "12"
    assert told["x-upstream-request-id"] == "req-theirs"
    assert told["x-request-id"] == run.stage.records[0].request_id
    assert told["x-content-type-options"] == "nosniff"
    assert not {
        "openai-organization", "set-cookie", "server", "x-ratelimit-remaining-requests", "location", "etag", "x-leak",
        "access-control-allow-origin", "strict-transport-security", "keep-alive",
    } & told.keys()  # fmt: skip
    assert SECRET not in str(told)


async def test_the_operators_own_headers_win() -> None:
    async def script(asked: Asked) -> None:
        await asked.answer(b"{}")

    more = 'headers = { "OpenAI-Beta" = "ours", "X-Tenant" = "t1" }\n'
    async with passing(script, more=more) as run:
        await run.ask("GET /v1/files\nopenai-beta: theirs")
    assert [v for n, v in run.asked[0].headers if n == "openai-beta"] == ["ours"]
    assert run.asked[0].header("x-tenant") == "t1"


async def test_a_redirect_is_neither_followed_nor_passed() -> None:
    async def script(asked: Asked) -> None:
        await asked.answer(b"", status="302 Found", headers={"location": "http://127.0.0.1:1/secret"})

    async with passing(script) as run:
        heard = await run.ask("GET /v1/files/1/content")
        assert (heard.status, heard.json()["error"]["code"]) == (502, "upstream_redirect")
        assert "location" not in heard.headers


async def test_what_is_no_clients_business_is_told_in_our_words() -> None:
    async def script(asked: Asked) -> None:
        status = asked.target.rpartition("/")[2]
        retry = {"retry-after": "7"} if status in ("429", "503") else {}
        await asked.answer(f"inside {SECRET}".encode(), status=f"{status} Sorry", headers=retry)

    expected = {
        401: (502, "upstream_auth"),
        403: (502, "upstream_forbidden"),
        429: (429, "upstream_rate_limited"),
        500: (502, "upstream_error"),
        503: (503, "upstream_unavailable"),
    }
    async with passing(script) as run:
        for status, told in expected.items():
            heard = await run.ask(f"GET /v1/files/{status}")
            assert (heard.status, heard.json()["error"]["code"]) == told
            assert b"inside" not in heard.body
            assert (heard.headers.get("retry-after") == "7") == (status in (429, 503))
        for status in (400, 404, 409, 413, 416, 422):
            heard = await run.ask(f"GET /v1/files/{status}")
            assert (heard.status, heard.body) == (status, b"inside ***")


async def test_head_and_answers_without_a_body_end_where_they_should() -> None:
    async def script(asked: Asked) -> None:
        if asked.method == "HEAD":
            await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\netag: x\r\n\r\n")
        elif asked.method == "DELETE":
            await asked.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await asked.say(b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n")

    async with passing(script) as run:
        for line, status in (("HEAD", 200), ("DELETE", 204), ("GET", 304)):
            async with await run.stage.connect() as client:
                one = f"{line} /v1/files/1 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
                await client.send_all(one)
                data = await client.receive_some()
                assert data.startswith(b"HTTP/1.1 %d" % status)
                assert data.endswith(b"\r\n\r\n")
                assert (b"content-length: 1234\r\n" in data) == (line == "HEAD")
                await client.send_all(one)  # the connection goes on
                assert (await client.receive_some()).startswith(b"HTTP/1.1 %d" % status)


async def test_an_anthropic_client_hears_anthropics_errors() -> None:
    async def script(asked: Asked) -> None:
        await asked.answer(b"", status="500 No")

    async with passing(script) as run:
        for head in ("GET /v1/files", "GET /v1/images", "GET /v1/files/../x"):
            heard = await run.ask(f"{head}\nanthropic-version: 2023-06-01")
            assert heard.json()["type"] == "error"
        heard = await run.ask("GET /v1/files\nanthropic-version: 2023-06-01", key=None)
        assert (heard.status, heard.json()["error"]["type"]) == (401, "authentication_error")
