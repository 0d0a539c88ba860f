"""The floor: a proxy of raw Trio and httptools on both sides, with no framework and hardly a feature.

What Trio itself costs in this role. One task per client connection; an upstream connection is taken from a list and
given back. Nothing is bounded, nothing has a deadline, a client that left is noticed at the next write. Not a gateway.
"""

from __future__ import annotations

import argparse
import functools

import httptools
import trio

RECV_BYTES = 65_536


class Request:
    """Collects one request for :class:`httptools.HttpRequestParser`."""

    def __init__(self) -> None:
        self.url = b""
        self.body = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


class Response:
    """Hands on one response as it comes: ``out`` gathers what is to be written next."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.out: list[bytes] = []
        self.type = b"application/json"
        self.length: bytes | None = None
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self.type = value
            case b"content-length":
                self.length = value

    def on_headers_complete(self) -> None:
        framing = b"transfer-encoding: chunked" if self.length is None else b"content-length: " + self.length
        status = self.parser.get_status_code()
        self.out.append(b"HTTP/1.1 %d OK\r\ncontent-type: %s\r\n%s\r\n\r\n" % (status, self.type, framing))

    def on_body(self, body: bytes) -> None:
        self.out.append(body if self.length is not None else b"%x\r\n%s\r\n" % (len(body), body))

    def on_message_complete(self) -> None:
        self.complete = True
        if self.length is None:
            self.out.append(b"0\r\n\r\n")


async def serve(upstream_port: int, idle: list[trio.SocketStream], client: trio.SocketStream) -> None:
    """One client connection, request after request."""
    try:
        async with client:
            while True:
                request = Request()
                parser = httptools.HttpRequestParser(request)
                while not request.complete:
                    data = await client.receive_some(RECV_BYTES)
                    if not data:
                        return
                    parser.feed_data(data)
                if parser.get_method() == b"GET":
                    await client.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                else:
                    await forward(request, upstream_port, idle, client)
    except (trio.BrokenResourceError, httptools.HttpParserError):
        return


async def forward(
    request: Request, upstream_port: int, idle: list[trio.SocketStream], client: trio.SocketStream
) -> None:
    upstream = idle.pop() if idle else await trio.open_tcp_stream("127.0.0.1", upstream_port)
    done = False
    try:
        await upstream.send_all(
            b"POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (request.url, upstream_port, len(request.body), request.body)
        )
        response = Response()
        while not response.complete:
            data = await upstream.receive_some(RECV_BYTES)
            if not data:
                return
            response.parser.feed_data(data)
            await client.send_all(b"".join(response.out))
            response.out.clear()
        done = True
    finally:
        if done:
            idle.append(upstream)
        else:
            upstream.socket.close()


async def main(port: int, upstream_port: int) -> None:
    idle: list[trio.SocketStream] = []
    handler = functools.partial(serve, upstream_port, idle)
    await trio.serve_tcp(handler, port, host="127.0.0.1", backlog=2048)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--upstream-port", type=int, required=True)
    options = arguments.parse_args()
    trio.run(main, options.port, options.upstream_port)
