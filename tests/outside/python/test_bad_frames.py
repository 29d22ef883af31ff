"""Rows F1 to F4 of the threats, on a bare socket: what no library would send."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest

from harness.harm import CLOSED, harmless
from harness.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, Raw, frame

# Row F1: the close frame comes within a second.
VIOLATION_S = 1.0
TEXT_LIMIT, BINARY_LIMIT = 65536, 16384


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


PING_TEXT = b'{"t":"ping"}'
VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "an unmasked text frame": (frame(TEXT, PING_TEXT, mask=False), 1002),
    "an unmasked ping": (frame(PING, b"", mask=False), 1002),
    "RSV1": (frame(TEXT, PING_TEXT, rsv=4), 1002),
    "RSV2": (frame(TEXT, PING_TEXT, rsv=2), 1002),
    "RSV3": (frame(TEXT, PING_TEXT, rsv=1), 1002),
    "RSV1 on a ping": (frame(PING, b"", rsv=4), 1002),
    **{f"opcode {opcode}": (frame(opcode, b""), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a fragmented ping": (frame(PING, b"", fin=False), 1002),
    "a fragmented close": (frame(CLOSE, b"", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"p" * 126), 1002),
    "a ping that claims 2^40 bytes": (frame(PING, b"", length_form=64, claim=1 << 40), 1002),
    "a close of 126 bytes": (closing(1000, b"r" * 124), 1002),
    "the top bit in a length": (frame(TEXT, b"", length_form=64, claim=1 << 63), 1002),
    "5 bytes in a 16-bit length": (frame(TEXT, b"12345", length_form=16), 1002),
    "200 bytes in a 64-bit length": (frame(TEXT, b"x" * 200, length_form=64), 1002),
    "a continuation without a start": (frame(CONT, PING_TEXT), 1002),
    "an unfinished continuation without a start": (frame(CONT, PING_TEXT, fin=False), 1002),
    "a text inside a text": (frame(TEXT, b"{", fin=False) + frame(TEXT, PING_TEXT), 1002),
    "a binary inside a text": (frame(TEXT, b"{", fin=False) + frame(BINARY, b""), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{f"close code {code}": (closing(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)},
    "bad UTF-8 in a close reason": (closing(1000, b"\xff\xfe"), 1007),
    "cut UTF-8 in a close reason": (closing(1000, "é".encode()[:1]), 1007),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_of_the_framing_is_closed_with_its_code(server, name):
    data, code = VIOLATIONS[name]
    async with harmless(server, CLOSED, code=str(code)):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            await raw.put(data)
            assert await raw.closed(VIOLATION_S) == code
            await raw.tcp_end()


@pytest.mark.parametrize("name", ["an unmasked text frame", "opcode 3", "a close of one byte"])
async def test_a_violation_before_hello_is_closed_as_well(server, name):
    data, code = VIOLATIONS[name]
    async with harmless(server, CLOSED, code=str(code)):
        async with await Raw.open(server.ws()) as raw:
            await raw.put(data)
            assert await raw.closed(VIOLATION_S) == code
            await raw.tcp_end()


async def test_data_after_a_close_is_not_answered(server):
    async with harmless(server, CLOSED):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            await raw.put(closing(1000) + frame(TEXT, PING_TEXT) * 10)
            assert await raw.closed(VIOLATION_S) in (1000, 1002)
            await raw.tcp_end()
            assert b"pong" not in b"".join(payload for _, _, payload in raw.seen)


@pytest.mark.parametrize(("sent", "answered"), [(1000, 1000), (1001, 1001), (3000, 3000), (4999, 4999)])
async def test_a_proper_close_is_answered_in_kind(server, sent, answered):
    async with harmless(server):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            await raw.put(closing(sent, "späte Stunde".encode()))
            assert await raw.closed(VIOLATION_S) in (answered, 1000)
            await raw.tcp_end()


async def test_an_empty_close_is_answered(server):
    async with harmless(server):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            await raw.put(frame(CLOSE, b""))
            assert await raw.closed(VIOLATION_S) in (1000, 1005)
            await raw.tcp_end()


# F2

BAD_TEXT = {
    "a cut emoji": b"\xf0\x9f\x98", "a surrogate": b"\xed\xa0\x80", "an overlong slash": b"\xc0\xaf",
    "beyond Unicode": b"\xf4\x90\x80\x80", "a lone continuation": b"\x80", "a byte never used": b"\xff",
    "an overlong NUL": b"\xe0\x80\x80",
}


@pytest.mark.parametrize("name", BAD_TEXT)
async def test_bad_utf8_split_at_each_byte_is_closed_with_1007(server, name):
    before, bad, after = b'{"t":"ping","x":"', BAD_TEXT[name], b'"}'
    message = before + bad + after
    splits = [None, *range(len(before), len(before) + len(bad) + 1)]
    async with harmless(server, CLOSED, code="1007"):
        for split in splits:
            async with await Raw.open(server.ws(), await server.client_token()) as raw:
                if split is None:
                    await raw.put(frame(TEXT, message))
                else:
                    await raw.put(frame(TEXT, message[:split], fin=False) + frame(CONT, message[split:]))
                assert await raw.closed(VIOLATION_S) == 1007
                await raw.tcp_end()


async def test_a_message_that_ends_inside_a_character_is_closed_with_1007(server):
    async with harmless(server, CLOSED, code="1007"):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            await raw.put(frame(TEXT, b'{"t":"ping"}' + "é".encode()[:1]))
            assert await raw.closed(VIOLATION_S) == 1007
            await raw.tcp_end()


async def test_good_text_split_anywhere_passes(server):
    message = json.dumps({"t": "ping", "x": "aé€😀\u0000z"}, ensure_ascii=False).encode()
    async with await Raw.open(server.ws(), await server.client_token()) as raw:
        for split in range(len(message) + 1):
            await raw.put(frame(TEXT, message[:split], fin=False))
            await raw.put(frame(PING, b"between"))
            await raw.put(frame(CONT, message[split:]))
            assert (await raw.read_json())["t"] == "pong"
        assert any(opcode == PONG and payload == b"between" for _, opcode, payload in raw.seen)


async def test_a_message_in_one_byte_fragments_and_one_byte_writes_passes(server):
    async with await Raw.open(server.ws(), await server.client_token()) as raw:
        parts = [frame(TEXT if i == 0 else CONT, PING_TEXT[i:i + 1], fin=i == len(PING_TEXT) - 1)
                 for i in range(len(PING_TEXT))]
        for byte in b"".join(parts):
            await raw.put(bytes([byte]))
        assert (await raw.read_json())["t"] == "pong"


async def test_many_messages_in_one_write_are_all_answered(server):
    async with await Raw.open(server.ws(), await server.client_token()) as raw:
        await raw.put(frame(TEXT, PING_TEXT) * 100)
        for _ in range(100):
            assert (await raw.read_json())["t"] == "pong"


# F3

def ping_of(length: int) -> bytes:
    """A ping frame's text of exactly this many bytes."""
    empty = len(b'{"t":"ping","x":""}')
    return b'{"t":"ping","x":"' + b"x" * (length - empty) + b'"}'


def fragments(opcode: int, message: bytes, size: int) -> list[bytes]:
    starts = range(0, len(message), size)
    return [frame(opcode if at == 0 else CONT, message[at:at + size], fin=at + size >= len(message)) for at in starts]


@pytest.mark.parametrize("length", [TEXT_LIMIT - 1, TEXT_LIMIT])
@pytest.mark.parametrize("size", [None, 64, 4096], ids=str)
async def test_a_text_up_to_the_limit_passes(server, length, size):
    async with await Raw.open(server.ws(), await server.client_token()) as raw:
        message = ping_of(length)
        await raw.put(b"".join(fragments(TEXT, message, size or length)))
        assert (await raw.read_json(10))["t"] == "pong"


@pytest.mark.parametrize("size", [None, 64, 4096], ids=str)
async def test_a_text_over_the_limit_is_closed_with_1009(server, size):
    async with harmless(server, CLOSED, code="1009"):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            message = ping_of(TEXT_LIMIT + 1)
            await raw.put(b"".join(fragments(TEXT, message, size or len(message))))
            assert await raw.closed(5) == 1009
            await raw.tcp_end()


@pytest.mark.parametrize("size", [None, 64], ids=str)
async def test_a_binary_over_the_limit_is_closed_with_1009(server, size):
    async with harmless(server, CLOSED, code="1009"):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            message = b"\x10" + bytes(BINARY_LIMIT)
            await raw.put(b"".join(fragments(BINARY, message, size or len(message))))
            assert await raw.closed(5) == 1009
            await raw.tcp_end()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_endless_fragments_are_closed_with_1009_at_the_limit(server, opcode):
    before = server.rss_bytes()
    async with harmless(server, CLOSED, code="1009"):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            ended = asyncio.create_task(raw.closed(10))
            await raw.put(frame(opcode, b"x" * 1024, fin=False))
            # Never a last fragment, and many times the limit.
            for _ in range(4 * TEXT_LIMIT // 1024):
                if ended.done():
                    break
                await raw.put(frame(CONT, b"x" * 1024, fin=False))
                await asyncio.sleep(0)
            assert await ended == 1009
            await raw.tcp_end()
    assert server.rss_bytes() - before < 4 * 1024 * 1024


@pytest.mark.parametrize("claim", [TEXT_LIMIT + 1, 1 << 31, (1 << 63) - 1], ids=str)
async def test_a_large_claim_is_closed_with_1009_before_anything_comes(server, claim):
    before = server.rss_bytes()
    async with harmless(server, CLOSED, code="1009"):
        sockets = [await Raw.open(server.ws(), await server.client_token()) for _ in range(20)]
        try:
            for raw in sockets:
                await raw.put(frame(TEXT, b"", length_form=64, claim=claim))
            for raw in sockets:
                assert await raw.closed(5) == 1009
                await raw.tcp_end()
        finally:
            for raw in sockets:
                raw.drop()
    assert server.rss_bytes() - before < 8 * 1024 * 1024


async def test_claims_at_the_limit_and_silence_allocate_nothing(server):
    # 200 claims of 64 KiB would be 12.5 MiB if a claim were believed.
    sockets = [await Raw.open(server.ws(), await server.client_token()) for _ in range(200)]
    try:
        before = server.rss_bytes()
        for raw in sockets:
            await raw.put(frame(TEXT, b"", length_form=64, claim=TEXT_LIMIT))
        async with harmless(server):
            pass
        assert server.rss_bytes() - before < 6 * 1024 * 1024
    finally:
        for raw in sockets:
            raw.drop()


# F4

async def flood(server, opening: bytes, one: bytes, count: int, closing_part: bytes) -> Raw:
    """Sends frames as fast as the broker takes them, beside a bystander that must not notice."""
    raw = await Raw.open(server.ws(), await server.client_token())
    heard = asyncio.create_task(_listen(raw))

    async def push():
        await raw.put(opening)
        for _ in range(count // 500):
            await raw.put(one * 500)
            if heard.done():
                return
        await raw.put(closing_part)

    pushing = asyncio.create_task(push())
    try:
        # As long as the flood lasts, the bystander's answers come promptly: `harmless` asks once, this often.
        while not pushing.done():
            async with harmless(server):
                pass
        await pushing
        code = await asyncio.wait_for(heard, 30)
        assert code in (None, 4002, 4003, 4500, 1002), code
    finally:
        pushing.cancel()
        heard.cancel()
        raw.drop()
    return raw


async def _listen(raw: Raw) -> int | None:
    """Reads until the broker answers a protocol ping (None) or closes (the code)."""
    while True:
        _, opcode, payload = await raw.read(30)
        if opcode == TEXT and b'"pong"' in payload:
            return None
        if opcode == CLOSE:
            return struct.unpack(">H", payload[:2])[0]


async def test_a_flood_of_empty_fragments_is_paced_or_closed(server):
    await flood(server, frame(TEXT, b'{"t":', fin=False), frame(CONT, b"", fin=False), 10_000, frame(CONT, b'"ping"}'))


async def test_a_flood_of_empty_messages_is_paced_or_closed(server):
    await flood(server, b"", frame(TEXT, b""), 10_000, frame(TEXT, PING_TEXT))


async def test_a_flood_of_pings_is_paced_or_closed(server):
    raw = await flood(server, b"", frame(PING, b"p" * 100), 10_000, frame(TEXT, PING_TEXT))
    assert len(raw.seen) <= 10_100


async def test_pings_to_a_peer_that_does_not_read_cost_bounded_memory(server):
    before = server.rss_bytes()
    async with harmless(server):
        async with await Raw.open(server.ws(), await server.client_token(), receive_buffer=4096) as raw:
            try:
                # Nothing is read meanwhile; when the broker stops reading too, the write stalls, which is fine.
                for _ in range(200):
                    await asyncio.wait_for(raw.put(frame(PING, b"q" * 125) * 250), 2)
            except asyncio.TimeoutError:
                pass
            assert server.rss_bytes() - before < 4 * 1024 * 1024
