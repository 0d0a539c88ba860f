"""The control: hypercorn, quart-trio and httpx in about thirty lines, as their documentation shows them.

No admission, no deadlines, no request nursery. Its pool has no limit, because httpx's default of 100 connections
would make the larger scenarios a measurement of the pool's time-out.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import httpx
import orjson
import trio
from quart import Response, request
from quart_trio import QuartTrio

UPSTREAM = os.environ["UPSTREAM"]
JSON = {"content-type": "application/json"}

app = QuartTrio(__name__)
client = httpx.AsyncClient(
    base_url=UPSTREAM, timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)
)


@app.get("/readyz")
async def ready() -> Response:
    return Response("ok")


@app.post("/v1/chat/completions")
async def chat() -> Response:
    return await answer(await request.get_data())


@app.post("/fanout")
async def fanout() -> Response:
    found: dict[str, str] = {}

    async def load(name: str) -> None:
        found[name] = (await client.get(f"/context/{name}")).json()["text"]

    async with trio.open_nursery() as nursery:
        for name in ("docs", "profile", "history"):
            nursery.start_soon(load, name)
    document = orjson.loads(await request.get_data())
    document["messages"].insert(0, {"role": "system", "content": "\n".join(found.values())})
    return await answer(orjson.dumps(document))


async def answer(content: bytes | str) -> Response:
    if not orjson.loads(content).get("stream"):
        upstream = await client.post("/v1/chat/completions", content=content, headers=JSON)
        return Response(upstream.content, upstream.status_code, headers=JSON)

    async def stream() -> AsyncIterator[bytes]:
        async with client.stream("POST", "/v1/chat/completions", content=content, headers=JSON) as upstream:
            async for chunk in upstream.aiter_bytes():
                yield chunk

    return Response(stream(), headers={"content-type": "text/event-stream"})
