"""The playground in headless Chromium: what a person sees, presses and is told, for every ending of a request.

Most tests talk to a stand-in, which can be made to end a request in any way; the last ones to ``sluice demo`` as it is.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playground_stand_in import GOOD_KEY, MARKUP, StandIn
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(10_000)
    yield made
    made.close()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def excused() -> list[str]:
    """What the browser's console may say in this test: Chromium reports each refusal and each cut stream there."""
    return []


@pytest.fixture
def page(context: BrowserContext, excused: list[str]) -> Iterator[Page]:
    """A page whose console stays silent: a violation of the policy or an error of a script fails the test."""
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: problems.append(f"page error: {error}"))
    yield opened
    assert [problem for problem in problems if not any(words in problem for words in excused)] == []


def ask(page: Page, model: str, prompt: str = "May I return it?") -> None:
    page.get_by_label("Model or assistant").select_option(model)
    page.get_by_label("Prompt").fill(prompt)
    page.keyboard.press("Control+Enter")


def lane(page: Page, name: str) -> Locator:
    return page.locator(".lane", has=page.get_by_text(name, exact=True))


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#answer-card")).to_have_attribute("data-state", state)


def test_the_page_loads_from_its_own_origin_only_and_lists_what_can_be_asked(stand_in: StandIn, page: Page) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(stand_in.url)
    expect(page.locator("#model optgroup")).to_have_count(2)
    expect(page.get_by_label("Model or assistant")).to_have_value("support")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    assert addresses
    assert all(address.startswith(stand_in.url) for address in addresses)


def test_loaders_light_up_side_by_side_and_the_answer_streams_in(stand_in: StandIn, page: Page) -> None:
    page.goto(stand_in.url)
    page.get_by_label("User").fill("mara")
    ask(page, "support")
    for name, state in {"docs": "loaded", "profile": "loaded", "crm": "failed", "turns": "skipped"}.items():
        expect(lane(page, name)).to_have_attribute("data-state", state)
    expect(lane(page, "crm")).to_contain_text("timed out after 200 ms")
    expect(lane(page, "model")).to_have_attribute("data-state", "running")
    expect(page.get_by_role("button", name="Cancel")).to_be_enabled()
    stand_in.go_on.set()
    expect_state(page, "complete")
    expect(lane(page, "model")).to_have_attribute("data-state", "loaded")
    expect(page.locator("#answer")).to_have_text("You may return it within 30 days.")
    expect(page.get_by_role("status").filter(visible=True)).to_have_text("Complete, 37 tokens")
    expect(page.locator("#source-list li").first).to_have_text("docsreturns.md")
    facts = {"ttft": "187 ms", "rate": "36.0", "tokens": "37", "prompt": "412", "total": "1.19 s", "queue": "1.5 ms"}
    for fact, text in {**facts, "target": "sim/sim-large, attempt 2", "request": "req-456"}.items():
        expect(page.locator(f"#fact-{fact}")).to_have_text(text)
    [(path, _, body)] = stand_in.asked
    assert path == "/v1/orchestrate"
    assert {**body, "conversation": "x"} == {
        "assistant": "support",
        "input": "May I return it?",
        "user": "mara",
        "conversation": "x",
        "stream": True,
    }


def test_a_plain_model_is_asked_in_openais_dialect_and_any_split_of_its_bytes_reads_the_same(
    stand_in: StandIn, page: Page
) -> None:
    page.goto(stand_in.url)
    ask(page, "plain")
    expect_state(page, "complete")
    assert page.locator("#answer").text_content() == "Grüße 🌊 from\nhere."
    expect(page.locator("#fact-tokens")).to_have_text("4")
    [(path, _, body)] = stand_in.asked
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "May I return it?"}]
    assert body["stream_options"] == {"include_usage": True}


def test_the_event_parser_gives_the_same_events_for_every_split(stand_in: StandIn, page: Page) -> None:
    page.goto(stand_in.url)
    found = page.evaluate(
        """async () => {
          const address = document.querySelector("script").src.replace("playground.", "sse.");
          const { SseParser } = await import(address);
          const text = ":hello\\r\\nid: 7\\r\\nevent: a\\r\\ndata: x\\r\\ndata:  y\\r\\n\\r\\n"
            + "data:1\\n\\nevent: b\\n\\rdata\\r\\r";
          const tail = "data: cut off";
          const outcomes = new Set();
          for (let first = 0; first <= text.length; first += 1)
            for (let second = first; second <= text.length; second += 1) {
              const parser = new SseParser();
              const parts = [text.slice(0, first), text.slice(first, second), text.slice(second) + tail];
              outcomes.add(JSON.stringify(parts.flatMap((part) => parser.push(part))));
            }
          return [...outcomes].map((outcome) => JSON.parse(outcome));
        }"""
    )
    assert found == [
        [
            {"event": "a", "data": "x\n y", "id": "7"},
            {"event": "message", "data": "1", "id": "7"},
            {"event": "message", "data": "", "id": "7"},
        ]
    ]


def test_called_tools_are_shown(stand_in: StandIn, page: Page) -> None:
    page.goto(stand_in.url)
    ask(page, "tools")
    expect_state(page, "complete")
    expect(page.locator("#tools li")).to_have_text('look_up{"q":1}')


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_cancel_stops_the_provider_and_says_how_soon(stand_in: StandIn, page: Page, way: str) -> None:
    page.goto(stand_in.url)
    ask(page, "endless")
    expect(page.locator("#answer")).to_contain_text("word word word")
    expect(page.locator("#provider-active")).to_have_text("1")
    if way == "button":
        page.get_by_role("button", name="Cancel").click()
    else:
        page.keyboard.press(way)
    expect_state(page, "cancelled")
    expect(page.locator("#verdict")).to_contain_text("ms after Cancel and has generated 0 tokens since.")
    expect(page.locator("#provider-active")).to_have_text("0")
    expect(page.locator("#mark")).to_contain_text("Cancelled here")
    expect(page.locator("#answer")).to_contain_text("word word word")
    assert (stand_in.counters.active, stand_in.counters.cancelled) == (0, 1)


def test_cancel_while_context_is_loading_marks_what_was_stopped(stand_in: StandIn, page: Page) -> None:
    page.goto(stand_in.url)
    ask(page, "hangs")
    expect(lane(page, "docs")).to_have_attribute("data-state", "running")
    page.keyboard.press("Escape")
    expect_state(page, "cancelled")
    expect(lane(page, "docs")).to_have_attribute("data-state", "cancelled")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_refusal_is_shown_as_busy_with_a_countdown_and_can_be_tried_again(
    stand_in: StandIn, page: Page, excused: list[str]
) -> None:
    excused.append("status of 429")
    page.goto(stand_in.url)
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    ask(page, "busy")
    notice = page.locator("#notice")
    expect(notice).to_have_attribute("data-tone", "busy")
    expect(notice).to_contain_text("Busy, again in 2 s")
    expect(page.get_by_role("status").filter(visible=True)).to_contain_text("Busy, try again in 2 seconds")
    expect(notice).to_contain_text("queue full: 100 waiting (admission.queue)")
    page.clock.run_for(1100)
    expect(notice).to_contain_text("Busy, again in 1 s")
    page.clock.run_for(1000)
    expect(notice).to_contain_text("Ready to try again")
    stand_in.refuse_busy = False
    notice.get_by_role("button", name="Try again").click()
    expect(page.locator("#answer")).to_have_text("free again")
    expect(notice).to_be_hidden()


def test_another_refusal_is_named_with_its_reason(stand_in: StandIn, page: Page, excused: list[str]) -> None:
    excused.append("status of 404")
    page.goto(stand_in.url)
    ask(page, "refused")
    expect_state(page, "refused")
    expect(page.locator("#notice")).to_contain_text("Refused: model_not_found")
    expect(page.locator("#notice-text")).to_have_text(f"no model is called {MARKUP}")


def test_a_missing_key_is_asked_for_and_kept_in_this_tab_only(
    stand_in: StandIn, page: Page, excused: list[str]
) -> None:
    excused.append("status of 401")
    stand_in.needs_key = True
    page.goto(stand_in.url)
    field = page.get_by_label("This gateway wants a key")
    expect(field).to_be_focused()
    field.fill("sk-wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-form")).to_contain_text("does not take this key")
    field.fill(GOOD_KEY)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_label("Model or assistant")).to_have_value("support")
    expect(field).to_be_hidden()
    ask(page, "plain")
    expect_state(page, "complete")
    [(_, headers, _)] = stand_in.asked
    assert headers["authorization"] == f"Bearer {GOOD_KEY}"
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]


@pytest.mark.parametrize(
    ("model", "text", "notice"),
    [
        ("cut", "Half an ans", "The stream ended before the answer did."),
        ("reset", "Half an ans", "The connection was lost"),
        ("garbled", "Half an ans", "not JSON"),
        ("errs", "So far so ", "the provider was silent for 30 s"),
    ],
)
def test_a_broken_stream_is_never_shown_as_complete(
    stand_in: StandIn, page: Page, excused: list[str], model: str, text: str, notice: str
) -> None:
    excused.append("net::ERR_INCOMPLETE_CHUNKED_ENCODING")
    page.goto(stand_in.url)
    ask(page, model)
    expect(page.locator("#answer")).to_have_text(text)
    stand_in.go_on.set()
    expect_state(page, "failed")
    expect(page.locator("#status")).to_have_text("Broken off")
    expect(page.locator("#notice")).to_contain_text(notice)
    assert page.locator("#answer").text_content() == text
    expect(page.locator("#mark")).to_have_text("The answer breaks off here: it is not complete.")


def test_a_gateway_that_is_gone_is_reported_and_not_waited_for(page: Page, excused: list[str]) -> None:
    excused.append("net::ERR_CONNECTION_REFUSED")
    with StandIn(demo=False) as stand_in:
        page.goto(stand_in.url)
        expect(page.get_by_label("Model or assistant")).to_have_value("support")
    ask(page, "support")
    expect(page.locator("#notice")).to_contain_text("The gateway cannot be reached")


def test_markup_in_names_answers_and_reasons_stays_text(stand_in: StandIn, page: Page) -> None:
    page.goto(stand_in.url)
    ask(page, MARKUP)
    expect_state(page, "complete")
    expect(page.locator("#answer")).to_have_text(MARKUP)
    expect(page.locator("#tools li")).to_have_text(MARKUP + MARKUP)
    expect(page.locator("#fact-target")).to_have_text(MARKUP)
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "Sluice playground"


@pytest.mark.parametrize(("scheme", "darkest", "brightest"), [("light", 200, 255), ("dark", 5, 70)])
def test_both_colour_schemes_draw_the_page(
    stand_in: StandIn, browser: Browser, scheme: Literal["light", "dark"], darkest: int, brightest: int
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 600, "height": 300})
    page = context.new_page()
    page.goto(stand_in.url)
    expect(page.get_by_label("Model or assistant")).to_have_value("support")
    rows = png_rows(page.screenshot(animations="disabled"))
    context.close()
    mean = sum(map(sum, rows)) / sum(map(len, rows))
    assert darkest < mean < brightest
    assert len({bytes(row) for row in rows}) > 50


def test_nothing_scrolls_sideways_at_360_pixels(stand_in: StandIn, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(stand_in.url)
    stand_in.go_on.set()
    ask(page, "support")
    expect_state(page, "complete")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running ``sluice demo``."""
    command = [sys.executable, "-m", "gateway", "demo", "--bind", "127.0.0.1:0", "--no-open"]
    folder: Path = tmp_path_factory.mktemp("demo")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://[0-9.:]+", process.stdout.readline())
        assert found, "the demo did not say where it listens"
        yield found[0]
        process.terminate()
        process.communicate(timeout=20)


def provider_counters(page: Page) -> dict[str, Any]:
    counters: dict[str, Any] = page.evaluate("fetch('/demo/provider').then((response) => response.json())")
    return counters


def test_the_demo_shows_its_context_and_a_whole_answer(demo: str, page: Page) -> None:
    page.goto(demo)
    page.get_by_label("User").fill("anna")
    page.get_by_role("button", name="Is the pump covered").click()
    page.get_by_role("button", name="Send").click()
    for name in ("docs", "profile", "earlier"):
        expect(lane(page, name)).to_have_attribute("data-state", "loaded")
    expect(lane(page, "model")).to_have_attribute("data-state", "running")
    expect_state(page, "streaming")
    expect(page.locator("#provider-active")).to_have_text("1")
    expect(page.locator("#source-list")).to_contain_text("warranty.md")
    expect(page.locator("#fact-target")).to_contain_text("simulated/sim")
    expect(page.locator("#answer-card")).to_have_attribute("data-state", "complete", timeout=20_000)
    expect(page.locator("#fact-tokens")).to_have_text("160")
    expect(page.locator("#fact-request")).not_to_have_text("–")


@pytest.mark.parametrize(("model", "way"), [("support", "button"), ("chat", "Escape")])
def test_in_the_demo_cancel_stops_the_provider_at_that_moment(demo: str, page: Page, model: str, way: str) -> None:
    page.goto(demo)
    before = provider_counters(page)
    ask(page, model)
    expect_state(page, "streaming")
    expect(page.locator("#provider-active")).to_have_text("1")
    if way == "button":
        page.get_by_role("button", name="Cancel").click()
    else:
        page.keyboard.press(way)
    expect_state(page, "cancelled")
    expect(page.locator("#verdict")).to_contain_text("ms after Cancel and has generated 0 tokens since.")
    after = provider_counters(page)
    assert after["active"] == 0
    assert after["cancelled"] == before["cancelled"] + 1


def test_in_the_demo_cancel_before_the_first_token_stops_the_provider_too(demo: str, page: Page) -> None:
    page.goto(demo)
    before = provider_counters(page)
    ask(page, "thinks-long")
    expect(page.locator("#provider-active")).to_have_text("1")
    page.keyboard.press("Escape")
    expect(page.locator("#verdict")).to_contain_text("The provider stopped")
    assert provider_counters(page)["cancelled"] == before["cancelled"] + 1


def test_in_the_demo_a_provider_that_breaks_off_is_shown_as_such(demo: str, page: Page) -> None:
    page.goto(demo)
    ask(page, "breaks-off")
    expect_state(page, "failed")
    expect(page.locator("#mark")).to_be_visible()
    expect(page.locator("#answer")).not_to_be_empty()


def test_a_full_demo_says_when_to_come_back(demo: str, page: Page, excused: list[str]) -> None:
    excused.append("status of 429")
    page.goto(demo)
    expect(page.get_by_label("Model or assistant")).to_be_enabled()
    with contextlib.ExitStack() as crowd:
        for _ in range(4 + 8):  # demo.toml: [admission] workers + queue
            crowd.enter_context(contextlib.closing(start_question(demo, "thinks-long")))
        wait_until_full(page, demo)
        ask(page, "chat")
        expect(page.locator("#notice")).to_contain_text(re.compile(r"Busy, again in \d+ s"))
        expect_state(page, "refused")
    expect(page.locator("#provider-active")).to_have_text("0")


def wait_until_full(page: Page, url: str) -> None:
    """Until the gateway itself says that it takes no more."""
    for _ in range(400):
        if page.request.get(f"{url}/readyz").status == 503:
            return
        page.wait_for_timeout(10)
    pytest.fail("the crowd did not fill the gateway")


def start_question(url: str, model: str) -> socket.socket:
    """A client that has asked and waits."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
    client = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    return client


def png_rows(png: bytes) -> list[bytearray]:
    """The pixel rows of an 8-bit RGB or RGBA picture without interlace, which is what Chromium takes."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", png[16:29])
    assert (depth, interlace) == (8, 0)
    step = {2: 3, 6: 4}[colour]
    packed, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        packed += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    flat, stride = zlib.decompress(packed), width * step + 1
    rows = [bytearray(stride - 1)]
    for line in range(height):
        rows.append(_unfiltered(flat[line * stride : (line + 1) * stride], rows[-1], step))
    return rows[1:]


def _unfiltered(line: bytes, above: bytearray, step: int) -> bytearray:
    kind, row = line[0], bytearray(line[1:])
    for at in range(len(row)):
        left = row[at - step] if at >= step else 0
        up, corner = above[at], above[at - step] if at >= step else 0
        nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
        row[at] = (row[at] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return row
