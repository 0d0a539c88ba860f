"""AWS's event stream: bytes in, whole messages out (``application/vnd.amazon.eventstream``).

::

    total length 4 · headers' length 4 · CRC 4 of these eight bytes │ headers │ payload │ CRC 4 of all before it
    header: name's length 1 · name · type 1 · value, whose length its type gives or says

All numbers are big-endian, both checksums are CRC-32. A stream arrives in network reads that end anywhere;
:class:`FrameSplitter` gives back the messages that a read completes and keeps the rest. A message that is damaged
cannot be left out as a line of text can: nothing says where the next one begins, so it ends the stream.

Limit: a message may take ``max_frame_bytes`` (AWS sends up to 16 MiB), which is known after its first eight bytes.
Source: Amazon Lex V2 developer guide, "Event stream encoding"; Smithy, "Amazon Event Stream Specification".
"""

from __future__ import annotations

import struct
from zlib import crc32

from attrs import frozen

from gateway.dialects.provider import BadAnswer
from gateway.dialects.sse import EventTooLong

MAX_FRAME_BYTES = 16 * 1024 * 1024
_PRELUDE = struct.Struct(">III")
_LENGTH = struct.Struct(">H")
_CRC = struct.Struct(">I")
_LEAST_BYTES = _PRELUDE.size + _CRC.size
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # of values by type: booleans … timestamp, UUID
_STRING = 7
_WITH_LENGTH = (6, _STRING)  # bytes, text


@frozen(slots=True)
class Frame:
    """One message.

    Attributes:
        headers: Those that are text, as all are that say what a message is (``:message-type``, ``:event-type`` …).
        payload: As a rule JSON.
    """

    headers: dict[str, str]
    payload: bytes


class FrameSplitter:
    """Cuts a byte stream into messages. Any split of the same bytes gives the same messages."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._rest = b""

    def feed(self, data: bytes) -> tuple[list[Frame], BadAnswer | EventTooLong | None]:
        """Give back the messages that ``data`` completes, and what is wrong behind them, if anything is.

        The fault is given and not raised: what stands before it is good, and a client may have it.
        """
        whole = self._rest + data if self._rest else data
        frames: list[Frame] = []
        at = 0
        fault = None
        try:
            while len(whole) - at >= _PRELUDE.size:
                length = self._length(whole, at)
                if len(whole) - at < length:
                    break
                frames.append(_frame(whole[at : at + length]))
                at += length
        except (BadAnswer, EventTooLong) as error:
            fault = error
        self._rest = b"" if fault is not None else whole[at:]
        return frames, fault

    def _length(self, whole: bytes, at: int) -> int:
        length, of_headers, checksum = _PRELUDE.unpack_from(whole, at)
        if crc32(whole[at : at + 8]) != checksum:
            raise BadAnswer("the beginning of a message of the event stream is damaged")
        if length > self._max_frame_bytes:
            raise EventTooLong(f"a message of the event stream is longer than {self._max_frame_bytes} bytes")
        if length < _LEAST_BYTES + of_headers:
            raise BadAnswer("a message of the event stream is shorter than its headers")
        return int(length)


def _frame(message: bytes) -> Frame:
    if crc32(message[: -_CRC.size]) != _CRC.unpack_from(message, len(message) - _CRC.size)[0]:
        raise BadAnswer("a message of the event stream is damaged")
    end = _PRELUDE.size + _PRELUDE.unpack_from(message)[1]
    try:
        headers = _headers(message, end)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        raise BadAnswer("the headers of a message of the event stream cannot be read") from None
    return Frame(headers, message[end : -_CRC.size])


def _headers(message: bytes, end: int) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = _PRELUDE.size
    while at < end:
        after_name = at + 1 + message[at]
        name, kind = message[at + 1 : after_name].decode(), message[after_name]
        at = after_name + 1
        if kind in _WITH_LENGTH:
            size = _LENGTH.unpack_from(message, at)[0]
            at += _LENGTH.size
        else:
            size = _SIZES[kind]
        if at + size > end:
            raise IndexError
        if kind == _STRING:
            headers[name] = message[at : at + size].decode()
        at += size
    return headers
