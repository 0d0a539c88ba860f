"""A provider's own paths are reached only if the operator listed them, by keys that may use it, and by no detour."""

from __future__ import annotations

import pytest
import trio

from gateway.core.facts import Outcome
from tests.component.passed_provider import SECRET, Asked, passing
from tests.component.stage import ask, staged

NARROW = '[[key]]\nname = "narrow"\nsecret = "sk-narrow-0123456789"\nmodels = ["chat"]\n'
OTHER = '[[provider]]\nname = "other"\nbase_url = "http://127.0.0.1:1/v1"\npassthrough = ["/files/*", "/rerank"]\n'


async def echo(asked: Asked) -> None:
    await asked.answer(asked.target.encode())


async def test_without_a_list_nothing_is_passed_and_the_answer_says_how() -> None:
    async with staged() as stage:
        heard = await ask(stage, b"{}", path="/v1/files")
        assert (heard.status, heard.json()["error"]["code"]) == (404, "not_found")
        assert "provider.passthrough" in heard.json()["error"]["message"]


async def test_what_is_not_on_the_list_is_a_404_that_names_the_line_to_add() -> None:
    async with passing(echo) as run:
        heard = await run.ask("POST /v1/images/generations", b"{}")
        assert (heard.status, heard.json()["error"]["code"]) == (404, "not_passed_through")
        assert "'/images/*'" in heard.json()["error"]["message"]
        [record] = run.stage.records
        assert (record.endpoint, record.status, record.outcome) == ("passthrough", 404, Outcome.INVALID)
        assert not run.asked


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("GET /v1/files", "/api/v9/files"),
        ("DELETE /v1/files/file-1", "/api/v9/files/file-1"),
        ("GET /v1/files/file-1/content?limit=2&after=a%20b", "/api/v9/files/file-1/content?limit=2&after=a%20b"),
        ("GET /v1/files/a%20b%C3%BC", "/api/v9/files/a%20b%C3%BC"),
        ("POST /v1/moderations", "/api/v9/moderations"),
        ("GET /v1/files?limit=1&key=sk-x&order=asc", "/api/v9/files?limit=1&order=asc"),
    ],
)
async def test_what_is_on_the_list_is_asked_below_the_providers_base_url(line: str, target: str) -> None:
    async with passing(echo) as run:
        heard = await run.ask(line)
        assert (heard.status, heard.body.decode()) == (200, target)
        assert (run.asked[0].method, run.asked[0].target) == (line.split()[0], target)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/../models",
        "/v1/files/..",
        "/v1/files/./x",
        "/v1/files/%2e%2e/models",
        "/v1/files/%2E./models",
        "/v1/files/..;/models",
        "/v1/files//x",
        "/v1/files/a%2fb",
        "/v1/files/a%5Cb",
        "/v1/files/%252e%252e/models",
        "/v1/files/a%00",
        "/v1/files/a%0d%0ahost:x",
        "/v1/files/a|b",
        "/v1/files/",
        "/v1/files/%c0%ae%c0%ae/models",
        "/v1/files/%ff",
        "/%76%31/files",
        "/v1%2ffiles",
    ],
)
async def test_paths_that_could_be_read_as_another_are_refused(path: str) -> None:
    async with passing(echo) as run:
        heard = await run.ask(f"GET {path}")
        assert (heard.status, heard.json()["error"]["code"]) == (400, "invalid_path")
        assert not run.asked


@pytest.mark.parametrize("path", ["/v1/moderationsx", "/v1/moderations/x", "/v1/file", "/v1/FILES/x", "/files/x"])
async def test_a_path_that_is_nearly_on_the_list_is_not_on_it(path: str) -> None:
    async with passing(echo) as run:
        assert (await run.ask(f"GET {path}")).status == 404
        assert not run.asked


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /v1/chat/completions", 405),
        ("POST /v1/chat%2fcompletions\ncontent-type: text/plain", 415),
        ("GET /v1/models", 200),
        ("GET /v1/models/chat", 200),
        ("OPTIONS /v1/files", 404),
    ],
)
async def test_the_gateways_own_paths_stay_its_own_whatever_is_listed(line: str, status: int) -> None:
    async with passing(echo, globs='["/*"]') as run:
        assert (await run.ask(line)).status == status
        assert not run.asked


async def test_kept_responses_are_found_and_deleted_here_whatever_is_listed() -> None:
    for globs in ('["/files/*"]', '["/*"]'):
        async with passing(echo, globs=globs) as run:
            made = await ask(run.stage, {"model": "sim/sim", "input": "x"}, path="/v1/responses")
            path = f"/v1/responses/{made.json()['id']}"
            with trio.fail_after(10):
                while (found := await run.ask(f"GET {path}")).status == 404:
                    await trio.sleep(0.005)  # it is written behind the answer
            assert (found.status, found.body) == (200, made.body)
            assert (await run.ask(f"DELETE {path}")).json()["deleted"] is True
            gone = await run.ask(f"GET {path}")
            assert (gone.status, gone.json()["error"]["code"]) == (404, "not_found")
            assert not run.asked


async def test_what_else_a_provider_does_with_its_responses_is_passed_where_it_is_listed() -> None:
    async with passing(echo, globs='["/responses/*"]') as run:
        for line in ("GET /v1/responses/resp_1/input_items", "POST /v1/responses/input_tokens"):
            assert (await run.ask(line)).status == 200
        assert len(run.asked) == 2


async def test_no_key_no_passage() -> None:
    async with passing(echo) as run:
        assert (await run.ask("GET /v1/files", key=None)).status == 401
        assert (await run.ask("GET /v1/files", key="sk-wrong")).status == 401
        assert not run.asked
        assert [record.status for record in run.stage.records] == [401, 401]


async def test_a_key_for_some_models_is_no_key_for_a_provider() -> None:
    wide = '[[key]]\nname = "wide"\nsecret = "sk-wide-0123456789"\nmodels = ["media/*"]\n'
    model = '[[model]]\nname = "media/*"\ntargets = [{ provider = "media", model = "*" }]\n'
    async with passing(echo, more=NARROW + wide + model) as run:
        heard = await run.ask("GET /v1/files", key="sk-narrow-0123456789")
        assert (heard.status, heard.json()["error"]["code"]) == (403, "provider_not_allowed")
        assert (await run.ask("GET /v1/files", key="sk-wide-0123456789")).status == 200


async def test_the_first_provider_that_lists_a_path_is_asked_unless_the_client_names_another() -> None:
    async with passing(echo, more=OTHER) as run:
        assert (await run.ask("GET /v1/files")).headers["x-sluice-target"] == "media"
        heard = await run.ask("GET /v1/files\nx-sluice-provider: other")
        assert (heard.status, heard.json()["error"]["code"]) == (502, "upstream_connect")
        assert (await run.ask("GET /v1/rerank")).status == 502
        for name in ("nobody", "sim"):
            heard = await run.ask(f"GET /v1/files\nx-sluice-provider: {name}")
            assert (heard.status, heard.json()["error"]["code"]) == (404, "not_passed_through")


async def test_nothing_of_it_shows_the_providers_key() -> None:
    async def tell(asked: Asked) -> None:
        await asked.answer(f'{{"error": "no such file for {SECRET}"}}'.encode(), status="404 Not Found")

    async with passing(tell) as run:
        heard = await run.ask("GET /v1/files/x")
        assert heard.status == 404
        assert SECRET.encode() not in heard.body
        assert heard.json() == {"error": "no such file for ***"}
        [record] = run.stage.records
        assert (record.outcome, record.code) == (Outcome.INVALID, "upstream_refused")
