"""One request that is passed through to a provider: any path of its API that is not one of the gateway's own.

::

    enter     a permit, as for every request                                                flow/admission.py
    ask       the provider gets the body as it comes, and its answer's first bytes are waited for    upstream/raw.py
    answer    whole, or relayed through the bounded channel                                 flow/relay.py
    close     permit and connection back, one record told: always, and without an await     core/facts.py

The body is never held: of an upload one part is in memory, and the client is read only as fast as the provider takes
it. A provider that answers before it took all of it (413) ends the upload. There is one attempt; nothing is repeated.

The status is fixed by the first byte of the answer's body. Until then a failure is an error with its own status; later
the client's connection is cut, since nothing in an answer of unknown kind could say that it is not whole.

Deadlines: ``server.body_timeout_s`` for each part that the client sends; ``timeouts.stall_s`` for each part until the
provider took it, and between the bytes of its answer; ``first_token_s`` from the last byte of the request to the first
of the answer; ``total_s``, or less if the client says so, for all.

A provider's refusal of the client's request passes with its own document, our secrets taken out of it. What is not the
client's business (its refusal of our key, its own failures, its redirects) is told in our words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any

import trio
from attrs import frozen

from gateway.accounts import Account
from gateway.core.errors import DeadlineExceeded, GatewayError, RequestError, Retry, StreamBroken, UpstreamError
from gateway.core.facts import AttemptFact, Kind, Outcome, Phase, Record
from gateway.core.telling import chain_of
from gateway.exchange import close_record, outcome_of
from gateway.flow.admission import Place
from gateway.flow.guard import Guard, LineGuard
from gateway.flow.relay import ClientStalled, Outlet, pump
from gateway.instance import Gateway
from gateway.policy.classify import CLIENTS_OWN, refused_by_provider
from gateway.policy.retry import retry_after_s
from gateway.upstream.attempt import unreachable
from gateway.upstream.errors import TransportError
from gateway.upstream.head import HeaderBlock
from gateway.upstream.http1 import Phase as TransportPhase
from gateway.upstream.http1 import Upload
from gateway.upstream.passed import Headers, request_headers, response_headers
from gateway.upstream.raw import RawResponse
from gateway.upstream.targets import Provider

ENDPOINT = "passthrough"  # of all these requests, in records and metrics
MAX_ERROR_BYTES = 65_536
CLIENTS_BUSINESS = CLIENTS_OWN | {402, 409, 412, 416, 428}

Receive = Callable[[], Awaitable[tuple[bytes, bool]]]  # a part of the body, and whether more may follow


@frozen(kw_only=True, slots=True)
class Passed:
    """What is asked of whom.

    Attributes:
        rest: Path below the provider's base path; see :func:`gateway.upstream.passed.below_base`.
        query: Without the client's key.
        headers: The client's, all of them.
        length: Of the body as announced; None if it was not.
    """

    provider: Provider
    method: bytes
    rest: bytes
    query: bytes
    headers: Headers
    length: int | None


@frozen(kw_only=True, slots=True)
class PassedAnswer:
    """What the edge sends.

    Attributes:
        status: The provider's.
        headers: What the client may see of them, and the length if it is known.
        body: The whole body; None for one that is still coming in.
        run: Relays the rest into an outlet; raises ``StreamBroken`` or ``ClientStalled`` when the client's connection
            is to be cut.
    """

    status: int
    headers: Headers
    body: bytes | None = None
    run: Callable[[Outlet], Awaitable[None]] | None = None


class Passage:
    """One such request from the end of its headers to the last byte of its answer.

    A context manager that its connection enters; leaving it closes the record, whatever happened.
    """

    def __init__(
        self,
        gateway: Gateway,
        record: Record,
        place: Place,
        account: Account,
        passed: Passed,
        *,
        timeout_s: float = math.inf,
    ) -> None:
        self._gateway = gateway
        self._timeouts = gateway.current.config.timeouts
        self._place = place
        self.account = account
        self._passed = passed
        total_s = self._timeouts.total_s
        self._total_at = record.received_at + min(timeout_s, total_s)
        own = timeout_s < total_s
        self._why_total = f"the request took longer than its {timeout_s:g} s (x-request-timeout-ms)" if own else ""
        self._response: RawResponse | None = None
        self._hung_up = False
        self.record = record
        record.target = record.target_label = passed.provider.name
        record.path = passed.rest.decode("ascii")

    # ── the story ────────────────────────────────────────────────────────────────────────────────────────────────

    async def answer(self, receive: Receive) -> PassedAnswer:
        """Pass the request on, up to the first byte of the answer's body.

        Args:
            receive: The next part of the client's body; raises ``RequestError`` when it is too large or too slow.

        Raises:
            GatewayError: Nothing was committed; the error's status is the right one.

        Cancellation: whatever was begun is closed before this returns control.
        """
        if not self._place.holds_permit:
            self.record.phase = Phase.QUEUE
            await self._place.wait()
            self.record.queue_s = trio.current_time() - self.record.received_at
        await self.account.pass_through()
        self.record.phase = Phase.BODY
        try:
            with self._guard() as guard:
                first, more = await receive()
                response = self._response = await self._ask(first, more, receive, guard)
                answer = await self._begin(response)
        except DeadlineExceeded as error:
            if error.stage == "stall" and self._response is None:
                message = f"the provider took nothing of the body for {self._timeouts.stall_s:g} s (timeouts.stall_s)"
                raise DeadlineExceeded("stall", message) from error
            raise
        return answer

    async def _ask(self, first: bytes, more: bool, receive: Receive, guard: Guard) -> RawResponse:
        """Send the request, its body as it comes, and wait for the head of the answer."""
        passed, record, transport = self._passed, self.record, self._gateway.transport
        provider = passed.provider
        record.bytes_in = len(first)
        record.asked_at = trio.current_time()
        fact = AttemptFact(target=provider.name, label=provider.name, kind=Kind.PRIMARY, began_at=record.asked_at)
        record.attempts.append(fact)
        rules: dict[str, Any] = {
            "connect_timeout_s": self._timeouts.connect_s,
            "pool_timeout_s": self._timeouts.connect_s,
            "on_phase": partial(self._enter_phase, guard),
        }
        target = provider.base_path + passed.rest + (b"?" + passed.query if passed.query else b"")
        try:
            headers = HeaderBlock.of(request_headers(provider, passed.headers))
            call = (passed.method, provider.origin, target, headers)
            if not more:
                return await transport.send(*call, first, **rules)
            body = Upload(read=_Parts(first, receive, record, guard, self._timeouts.stall_s).read, length=passed.length)
            return await transport.upload(*call, body, **rules)
        except TransportError as error:
            raise _failed(provider, error) from error

    def _enter_phase(self, guard: Guard, phase: TransportPhase) -> None:
        """Move the deadline; opening a connection, and waiting for one, have limits of their own."""
        if phase == "read":
            self.record.phase = Phase.UPSTREAM
            guard.phase("first_token", self._timeouts.first_token_s)
        else:
            guard.phase("stall", self._timeouts.stall_s if phase == "write" else math.inf)

    async def _begin(self, response: RawResponse) -> PassedAnswer:
        """The provider's answer, from its first bytes on; or the error that its status means."""
        record, provider = self.record, self._passed.provider
        self._noted.status = response.status
        if response.status >= 400:
            return await self._refusal(response)
        if 300 <= response.status != 304 and response.header(b"location") is not None:
            what = f"{provider.name} redirects, and redirects are not followed (status {response.status})"
            raise UpstreamError("upstream_redirect", 502, what, target=provider.name, retry=Retry.NEVER)
        first = await self._receive(response)
        record.phase = Phase.STREAM
        record.first_token_at = trio.current_time()
        self._noted.ttft_s = record.ttft_s
        headers = response_headers(provider, response.headers)
        if not response.complete:
            headers += _length_of(response)
            return PassedAnswer(status=response.status, headers=headers, run=partial(self._relay, response, first))
        self._finish()
        bodyless = self._passed.method == b"HEAD" or response.status in (204, 304)
        headers += _length_of(response) if bodyless else [(b"content-length", b"%d" % len(first))]
        return PassedAnswer(status=response.status, headers=headers, body=first)

    async def _refusal(self, response: RawResponse) -> PassedAnswer:
        """A provider's document about the client's own mistake; anything else is raised, in our words."""
        provider, status = self._passed.provider, response.status
        pieces, size = [], 0
        while size <= MAX_ERROR_BYTES and (data := await self._receive(response)):
            pieces.append(data)
            size += len(data)
        error = refused_by_provider(
            status, target=provider.name, retry_after_s=retry_after_s(response.headers, time.time(), status=status)
        )
        if status not in CLIENTS_BUSINESS or size > MAX_ERROR_BYTES:
            raise error
        self.fail(error)
        self.record.outcome = Outcome.INVALID
        self._noted.outcome = "failed"
        self._place.release()
        body = provider.scrub(b"".join(pieces))
        headers = response_headers(provider, response.headers)
        headers += _length_of(response) if self._passed.method == b"HEAD" else [(b"content-length", b"%d" % len(body))]
        return PassedAnswer(status=status, headers=headers, body=body)

    # ── after the commit point ───────────────────────────────────────────────────────────────────────────────────

    async def _relay(self, response: RawResponse, first: bytes, outlet: Outlet) -> None:
        """Pass the rest of the answer on; the upstream reader's task.

        Raises:
            ClientStalled, StreamBroken: The client's connection is to be cut.
        """
        with outlet, response:
            try:
                with LineGuard(self._total_at, self._gateway.guards, why_total=self._why_total) as guard:
                    guard.hold(response.close)
                    await outlet.put(first, guard=guard)
                    await pump(
                        partial(self._receive, response),
                        lambda data: data,
                        lambda: response.complete,
                        outlet,
                        guard,
                        stall_s=lambda: self._timeouts.stall_s,
                    )
            except ClientStalled as error:
                self.record.code, self.record.detail = "client_stalled", str(error)
                self.record.outcome = Outcome.CANCELLED
                raise
            except trio.BrokenResourceError:
                return  # the writer is gone, and why is its to tell: the client has left, as a rule
            except GatewayError as error:
                broken = StreamBroken(error.code, f"the answer broke off: {error}")
                broken.__cause__ = error
                self.fail(broken)
                raise broken from error
            finally:
                self._place.release()
            self._finish()

    async def _receive(self, response: RawResponse) -> bytes:
        """One network read of the answer; b"" at its end."""
        try:
            data = await response.receive()
        except (trio.ClosedResourceError, TransportError) as error:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._hung_up:
                await trio.sleep_forever()  # we closed it, and the cancellation follows
            if isinstance(error, TransportError):
                raise _failed(self._passed.provider, error) from error
            raise
        self.record.bytes_out += len(data)
        return data

    def _finish(self) -> None:
        """The answer is whole. Sync."""
        self._place.release()
        self._noted.outcome = "ok"
        self.record.phase = Phase.DONE

    @property
    def _noted(self) -> AttemptFact:
        return self.record.attempts[0]

    def _guard(self) -> Guard:
        return Guard(self._total_at, self._gateway.guards, why_total=self._why_total)

    def hang_up(self) -> None:
        """Close the provider's connection now, in this very step; the cancellation that unwinds the rest follows."""
        self._hung_up = True
        if self._response is not None:
            self._response.close()

    # ── the facts ────────────────────────────────────────────────────────────────────────────────────────────────

    def fail(self, error: GatewayError) -> None:
        """Note the error that the client is told."""
        record = self.record
        record.code, record.detail, record.outcome = error.code, chain_of(error), outcome_of(error)

    def __enter__(self) -> Passage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.release()
        if self._response is not None:
            self._response.close()
        close_record(self.record, error)
        for fact in self.record.attempts:
            cancelled = self.record.outcome is Outcome.CANCELLED
            began = "broken" if self.record.first_token_at else "failed"
            fact.outcome = fact.outcome or ("cancelled" if cancelled else began)
            fact.code = fact.code or self.record.code
        self.account.close(self.record)
        self._gateway.observe(self.record)


class _Parts:
    """The client's body as the provider's: each part is asked for when the one before was taken."""

    def __init__(self, first: bytes, receive: Receive, record: Record, guard: Guard, stall_s: float) -> None:
        self._first = first
        self._receive = receive
        self._record = record
        self._guard = guard
        self._stall_s = stall_s
        self._more = True

    async def read(self) -> bytes:
        """The next part, b"" at the end. While it is waited for, only the client's deadlines run."""
        part, self._first = self._first, b""
        while not part and self._more:
            self._guard.phase("stall", math.inf)
            part, self._more = await self._receive()
            self._record.bytes_in += len(part)
        self._guard.phase("stall", self._stall_s)
        return part


def _length_of(response: RawResponse) -> Headers:
    length = response.header(b"content-length")
    return [] if length is None else [(b"content-length", length)]


def _failed(provider: Provider, error: TransportError) -> GatewayError:
    """What a failure below HTTP means to the client."""
    if error.kind == "request":
        return RequestError("invalid_request", 400, "the request cannot be passed on: its query or a header is no HTTP")
    return unreachable(provider.name, error)
