"""The pages as HTTP answers: headers, names and caching, without a browser."""

from __future__ import annotations

import re

import pytest

from gateway.ui.pages import Page, Pages


def playground(pages: Pages, *, demo: bool = False, version: str = "1.2.3", needs_key: bool = False) -> Page:
    return pages.playground(demo=demo, version=version, needs_key=needs_key)


def header(page: Page, name: bytes) -> bytes:
    [value] = [value for key, value in page.headers if key == name]
    return value


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


def test_every_asset_that_the_page_and_its_scripts_name_is_served(pages: Pages) -> None:
    to_visit = re.findall(r"/static/([\w.-]+)", playground(pages, demo=True).body.decode())
    seen = set()
    while to_visit:
        name = to_visit.pop()
        asset = pages.static(name)
        assert asset is not None, name
        if name not in seen and name.endswith(".js"):
            to_visit += re.findall(r'from "\./([\w.-]+)"', asset.body.decode())
        seen.add(name)
    kinds = {name.split(".")[0] for name in seen}
    assert kinds == {"playground", "favicon", "api", "dom", "provider", "sse", "timeline", "view"}


def test_static_files_may_be_kept_for_ever_and_the_page_may_not(pages: Pages) -> None:
    page = playground(pages)
    [script] = re.findall(r"/static/(playground\.\w+\.js)", page.body.decode())
    asset = pages.static(script)
    assert asset is not None
    assert header(page, b"cache-control") == b"no-cache"
    assert b"immutable" in header(asset, b"cache-control")
    assert header(asset, b"content-type") == b"text/javascript; charset=utf-8"


@pytest.mark.parametrize("name", ["", "playground.js", "../pages.py", "playground.0000000000000000.js", "sse.js/"])
def test_a_name_that_is_not_the_current_one_is_not_found(pages: Pages, name: str) -> None:
    assert pages.static(name) is None


def test_every_page_carries_the_strict_headers(pages: Pages) -> None:
    [style] = re.findall(r"/static/(playground\.\w+\.css)", playground(pages).body.decode())
    asset = pages.static(style)
    assert asset is not None
    for page in (playground(pages), asset):
        policy = header(page, b"content-security-policy").decode()
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;")
        assert "unsafe" not in policy
        assert header(page, b"x-content-type-options") == b"nosniff"
        assert header(page, b"referrer-policy") == b"no-referrer"
        assert header(page, b"cross-origin-opener-policy") == b"same-origin"


def test_a_known_etag_is_answered_with_304_and_nothing_else(pages: Pages) -> None:
    page = playground(pages)
    etag = header(page, b"etag")
    again = pages.playground(demo=False, version="1.2.3", needs_key=False, if_none_match=b'"old", W/' + etag)
    assert (again.status, again.body) == (304, b"")
    changed = pages.playground(demo=False, version="1.2.4", needs_key=False, if_none_match=etag)
    assert changed.status == 200


def test_there_is_no_inline_script_or_style_and_no_foreign_address(pages: Pages) -> None:
    html = playground(pages, demo=True).body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|https?://", html)


def test_the_provider_panel_is_there_in_the_demo_only(pages: Pages) -> None:
    assert b'id="provider"' in playground(pages, demo=True).body
    assert b'id="provider"' not in playground(pages, demo=False).body


def test_what_the_caller_passes_is_escaped(pages: Pages) -> None:
    markup = "\"><script src='x'>"
    page = pages.playground(demo=True, version=markup, needs_key=True, users=[markup], questions=[markup])
    assert markup.encode() not in page.body
    assert b'data-needs-key="yes"' in page.body
