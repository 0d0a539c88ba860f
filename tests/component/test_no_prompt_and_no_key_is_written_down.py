"""Promise: no prompt, no answer and no key is in the log, in metrics, in the ledger, its files or its reports, at any
level: not of a request that its client got wrong, and not where a provider quotes what it was sent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.component.stage import KEY, Stage, ask, hear, staged
from tests.component.test_every_dialect_reaches_every_provider import tables
from tests.component.tongue import Call, Question, Tongue
from tests.component.tongues import TONGUES
from tests.faults.raw_server import DONE, LAST_CHUNK, SSE_HEAD, Peer, RawServer, chunk, event

PROMPT = "canary-of-a-prompt"
ANSWER = "canary-of-an-answer"
PROVIDERS_KEY = "canary-of-a-providers-key"
ADMIN = "canary-of-the-admin-key"
SECRETS = (PROMPT, ANSWER, PROVIDERS_KEY, ADMIN, KEY, "Bearer")
LOG = 'requests = true\nlevel = "debug"'
WRONG: tuple[Any, ...] = (PROMPT, [PROMPT], {"field": PROMPT}, PROMPT * 1_000)
QUESTION = Question(
    turns=(("user", PROMPT),), system=PROMPT, tool=True, called=Call(id="call_1", name="weather", arguments={}),
    result=PROMPT, max_tokens=5, stop="never",
)  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document's fields are, those that hold others too; but for the name of what is asked, which is told."""
    if path and path[-1] not in ("model", "assistant"):
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside:
        yield from leaves(one, (*path, name))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = deepcopy(document)
    place = made
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return made


async def everything_told(stage: Stage, log: Path, database: Path) -> str:
    """Metrics, what operators can ask for, the log, rows and files."""
    await stage.settle()
    told = []
    for path in ("usage?by=key,model,target,outcome", "targets", "audit", "keys"):
        told.append(await get(stage, f"/admin/api/{path}", ADMIN))
    told.append(await get(stage, "/metrics", KEY))
    stage.shutdown.set()
    await stage.stopped.wait()
    written = written_down(log, Path(stage.gateway.config.ledger.spill_dir), database)
    return "\n".join([*told, written])


async def get(stage: Stage, path: str, key: str) -> str:
    async with await stage.connect() as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\n\r\n".encode())
        return (await hear(stream)).body.decode()


def written_down(log: Path, spill: Path, database: Path) -> str:
    told = [log.read_text(), *(file.read_text() for file in spill.iterdir())]
    if database.is_file():
        with sqlite3.connect(database) as connection:
            tables = ("usage_entry", "audit", "limit_pool", "limit_share", "virtual_key")
            told += [repr(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]
        connection.close()
    else:
        assert len(told) > 1, "entries are in files"
    return "\n".join(told)


@pytest.mark.parametrize("client", TONGUES)
async def test_what_a_client_gets_wrong_is_not_quoted_to_the_operator(client: str, tmp_path: Path) -> None:
    tongue: Tongue = TONGUES[client]
    log = tmp_path / "log"
    more = f'[admin]\nkey = "{ADMIN}"\n' + tables()
    with log.open("wb") as file:
        async with staged(more=more, store=f"sqlite:///{tmp_path}/sluice.db", log=LOG, log_fd=file.fileno()) as stage:
            asked = 0
            for provider in ("openai", "anthropic"):
                model = f"{provider}/sim-tokens=2"
                document = tongue.document(QUESTION, model, stream=False)
                for path in leaves(document):
                    for wrong in WRONG:
                        wrongly = replaced(document, path, wrong)
                        await ask(stage, wrongly, path=tongue.path(model, stream=False))
                        asked += 1
            assert asked > 30
            told = await everything_told(stage, log, tmp_path / "sluice.db")
    assert told.count('"event":"request"') == asked
    for secret in SECRETS:
        assert secret not in told, near(told, secret)


def near(told: str, secret: str) -> str:
    at = told.index(secret)
    return told[max(0, at - 300) : at + 100]


def reply(status: int, body: bytes, *headers: str) -> bytes:
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return (head + "".join(f"{line}\r\n" for line in headers) + "\r\n").encode() + body


QUOTED = json.dumps(
    {"error": {"message": f"Incorrect: {PROMPT} {PROVIDERS_KEY}", "type": PROMPT, "code": PROMPT, "param": PROMPT}}
).encode()
STATUSES = (400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 451, 500, 503, 529, 302)
SAID = [
    *(reply(status, QUOTED, f"retry-after: {PROMPT}", f"x-request-id: {PROMPT}") for status in STATUSES),
    reply(400, PROMPT.encode()),
    reply(200, QUOTED),
    reply(200, PROMPT.encode()),
    reply(200, json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": ANSWER}}]}).encode()),
    f"HTTP/1.1 {PROMPT}\r\n\r\n".encode(),
    f"{PROMPT}\r\n\r\n".encode(),
    f"HTTP/1.1 200 OK\r\n{PROMPT}\r\n\r\n".encode(),
    f"HTTP/1.1 200 OK\r\ncontent-length: {PROMPT}\r\n\r\n".encode(),
    f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{PROMPT}\r\n".encode(),
    SSE_HEAD + chunk(b"data: " + PROMPT.encode() + b"\n\n") + LAST_CHUNK,
    SSE_HEAD + chunk(b"data: " + QUOTED + b"\n\n") + LAST_CHUNK,
    SSE_HEAD + chunk(event({"content": ANSWER}) + b"data: " + QUOTED + b"\n\n") + LAST_CHUNK,
    SSE_HEAD + chunk(event({"content": ANSWER}) + b"data: " + PROMPT.encode() + b"\n\n") + LAST_CHUNK,
    SSE_HEAD + chunk(event({"content": ANSWER})),  # and then it ends
    SSE_HEAD + chunk(event({"content": ANSWER}) + event({}, "stop") + DONE) + LAST_CHUNK,
]


def providers(url: str) -> str:
    """One for each of :data:`SAID`, so that none is left alone for what another said."""
    text = f'[admin]\nkey = "{ADMIN}"\n'
    for number in range(len(SAID)):
        text += f"""
[[provider]]
name = "quotes-{number}"
base_url = "{url}/{number}"
api_key = "{PROVIDERS_KEY}"
[[model]]
name = "quotes-{number}"
targets = [{{ provider = "quotes-{number}", model = "m" }}]
retry = {{ max = 0 }}
"""
    return text


async def quote(peer: Peer) -> None:
    """What stands at the request's place among :data:`SAID`."""
    if request := await peer.request():
        await peer.say(SAID[int(request.split(b"/")[1])])


@pytest.mark.parametrize("database", ["there", "away"])
async def test_what_a_provider_quotes_is_for_the_client_alone(database: str, tmp_path: Path) -> None:
    log, store = tmp_path / "log", tmp_path / "sluice.db"
    if database == "away":
        store.mkdir()  # so the ledger goes to its files
    heard = []
    async with RawServer(quote) as server:
        with log.open("wb") as file:
            async with staged(
                more=providers(server.url), store=f"sqlite:///{store}", log=LOG, log_fd=file.fileno()
            ) as stage:
                for number, stream in product(range(len(SAID)), (False, True)):
                    question = [{"role": "user", "content": PROMPT}]
                    document = {"model": f"quotes-{number}", "stream": stream, "messages": question}
                    heard.append((await ask(stage, document)).body.decode())
                told = await everything_told(stage, log, store)
    assert server.requests >= len(SAID)
    assert any(PROMPT in body for body in heard)  # its client's own mistake is explained to it
    assert not any(PROVIDERS_KEY in body for body in heard)
    assert told.count('"event":"request"') == len(heard)
    for secret in SECRETS:
        assert secret not in told, near(told, secret)
