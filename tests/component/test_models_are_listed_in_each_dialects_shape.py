"""The names that a key may ask for are listed in the shape that the client's library reads."""

from __future__ import annotations

from tests.component.stage import KEY, Heard, Stage, hear, staged

OTHER = """[[model]]
name = "other"
targets = [{ provider = "sim", model = "sim" }]
[[key]]
name = "narrow"
secret = "sk-narrow-0123456789"
models = ["other"]"""


async def get(stage: Stage, path: str, **headers: str) -> Heard:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    async with await stage.connect() as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n{lines}\r\n".encode())
        return await hear(stream)


async def test_openais_list_is_the_one_without_a_sign_of_another_dialect() -> None:
    async with staged() as stage:
        heard = await get(stage, "/v1/models", authorization=f"Bearer {KEY}")
        assert heard.json()["object"] == "list"
        assert [row["id"] for row in heard.json()["data"]] == ["chat"]


async def test_who_sends_anthropics_version_gets_anthropics_list() -> None:
    async with staged() as stage:
        heard = (await get(stage, "/v1/models?limit=1000", x_api_key=KEY, anthropic_version="2023-06-01")).json()
        assert (heard["has_more"], heard["first_id"], heard["last_id"]) == (False, "chat", "chat")
        [row] = heard["data"]
        assert (row["type"], row["id"], row["display_name"]) == ("model", "chat", "chat")
        assert row["created_at"].endswith("Z")
        one = (await get(stage, "/v1/models/chat", x_api_key=KEY, anthropic_version="2023-06-01")).json()
        assert one == row


async def test_geminis_list_is_at_its_own_path_for_a_key_in_header_or_query() -> None:
    async with staged() as stage:
        by_header = await get(stage, "/v1beta/models?pageSize=50", x_goog_api_key=KEY)
        by_query = await get(stage, f"/v1beta/models?key={KEY}")
        assert by_header.json() == by_query.json()
        [row] = by_header.json()["models"]
        assert row["name"] == "models/chat"
        assert (await get(stage, "/v1beta/models/chat", x_goog_api_key=KEY)).json() == row


async def test_googles_ways_to_send_a_key_are_for_googles_paths() -> None:
    async with staged() as stage:
        assert (await get(stage, f"/v1/models?key={KEY}")).status == 401
        assert (await get(stage, "/v1/models", x_goog_api_key=KEY)).status == 401
        assert (await get(stage, "/v1beta/models")).status == 401
        assert (await get(stage, "/v1beta/models?key=sk-wrong")).status == 401


async def test_a_key_sees_what_it_may_ask_for() -> None:
    async with staged(more=OTHER) as stage:
        for path in ("/v1/models", "/v1beta/models"):
            heard = await get(stage, path, authorization="Bearer sk-narrow-0123456789")
            assert b"other" in heard.body
            assert b"chat" not in heard.body
