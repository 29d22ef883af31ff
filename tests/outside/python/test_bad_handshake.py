"""Rows H1 to H5 and H7 of the threats: what a stranger's upgrade request gets. All on bare sockets."""

from __future__ import annotations

import asyncio

import pytest

from harness.harm import CLOSED, REFUSED, harmless
from harness.peers import Crew
from harness.raw import Raw, upgrade_head
from harness.web import call, place

# Five seconds for a request or a hello, and a margin for a loaded machine.
PATIENCE_S = 7.0
# CPU time is counted in ticks of 10 ms for the whole process, heartbeats and bystander included.
CPU_PER_REQUEST_S = 0.05


async def refused_upgrade(server, head: bytes, statuses: set[int], *, edge: int = 0):
    """Sends an upgrade request; the answer must be one of the statuses, and the connection must end."""
    async with harmless(server, REFUSED, edge=edge):
        async with await Raw.dial(server.ws(edge)) as raw:
            await raw.put(head)
            answer = await raw.answer()
            assert answer.status in statuses, (answer.status, answer.headers, answer.body[:300])
            await raw.tcp_end()
    return answer


# H1

HOSTILE_ORIGINS = ["null", "https://evil.example", "https://good.example.evil.com", "http://good.example",
                   "https://good.example:8443", "https://gооd.example".encode().decode("latin-1"), "file://", ""]


async def test_no_origin_is_allowed_and_the_credential_decides(server):
    async with Crew(server) as crew:
        await (await crew.client(edge=0)).ping()


async def test_hostile_origins_are_all_treated_alike(server):
    # Whether the tenant of a development run has a list of origins is its own affair; what must not be is
    # a look-alike that passes where another stranger is refused, or any answer but these two.
    statuses = {}
    for origin in HOSTILE_ORIGINS:
        token = await server.client_token()
        async with await Raw.dial(server.ws()) as raw:
            await raw.put(upgrade_head(server.ws(), headers=[("Origin", origin)], token=token))
            statuses[origin] = (await raw.answer()).status
    assert set(statuses.values()) in ({101}, {403}), statuses


async def test_a_cookie_is_never_an_identity(server):
    token = await server.client_token()
    cookie = f"token={token}; access_token={token}; riser={token}; session={token}; Authorization=Bearer {token}"
    async with harmless(server, CLOSED):
        async with await Raw.dial(server.ws()) as raw:
            await raw.put(upgrade_head(server.ws(), headers=[("Cookie", cookie)]))
            assert (await raw.answer()).status == 101
            await raw.say({"t": "hello"})
            assert await raw.closed() in (4500, 4501)
            await raw.tcp_end()


# H2

@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "key", "authorization", "jwt", "TOKEN", "x"])
async def test_a_credential_in_the_url_is_refused_with_400_and_not_logged(server, name):
    token = await server.client_token()
    await refused_upgrade(server, upgrade_head(server.ws(), target=f"/v1/ws?{name}={token}"), {400})
    assert token not in server.logs()
    assert token not in await server.metrics()


async def test_a_credential_in_the_url_is_refused_beside_a_good_header(server):
    token = await server.client_token()
    head = upgrade_head(server.ws(), target=f"/v1/ws?token={token}", token=token)
    await refused_upgrade(server, head, {400})


async def test_an_api_key_in_the_url_of_a_call_is_no_credential(server):
    answer = await call(server.http(), "GET", f"/v1/presence?building=b1&token={await server.client_token()}")
    assert answer.status in (400, 401), answer.status


# H3

KEY_3, KEY_17 = "AAAA", "AAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize(("statuses", "change"), [
    ({405}, {"method": "POST"}),
    ({405}, {"method": "PUT"}),
    ({400, 405}, {"method": "BREW"}),
    ({400, 405, 426}, {"version": "HTTP/1.0"}),
    ({400}, {"without": ("Host",)}),
    ({400}, {"headers": [("Host", "other.example")]}),
    ({400, 426}, {"without": ("Upgrade",)}),
    ({400, 426}, {"headers": [("Upgrade", "websocket")]}),
    ({400, 426}, {"without": ("Upgrade",), "headers": [("Upgrade", "h2c")]}),
    ({400, 426}, {"without": ("Connection",)}),
    ({400, 426}, {"without": ("Connection",), "headers": [("Connection", "close")]}),
    ({400}, {"without": ("Sec-WebSocket-Key",)}),
    ({400}, {"without": ("Sec-WebSocket-Key",), "headers": [("Sec-WebSocket-Key", KEY_3)]}),
    ({400}, {"without": ("Sec-WebSocket-Key",), "headers": [("Sec-WebSocket-Key", KEY_17)]}),
    ({400}, {"without": ("Sec-WebSocket-Key",), "headers": [("Sec-WebSocket-Key", "not base64 at all!!!!!!!")]}),
    ({400}, {"headers": [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]}),
    ({400, 426}, {"without": ("Sec-WebSocket-Version",), "headers": [("Sec-WebSocket-Version", "12")]}),
    ({400, 426}, {"without": ("Sec-WebSocket-Version",), "headers": [("Sec-WebSocket-Version", "13, 8")]}),
    ({400, 426}, {"without": ("Sec-WebSocket-Version",)}),
    ({400}, {"without": ("Sec-WebSocket-Protocol",)}),
    ({400}, {"without": ("Sec-WebSocket-Protocol",), "headers": [("Sec-WebSocket-Protocol", "chat, riser.v2")]}),
    ({400}, {"without": ("Sec-WebSocket-Protocol",), "headers": [("Sec-WebSocket-Protocol", "RISER.V1")]}),
    ({400}, {"without": ("Sec-WebSocket-Protocol",), "headers": [("Sec-WebSocket-Protocol", "")]}),
], ids=str)
async def test_a_wrong_upgrade_request_is_refused(server, statuses, change):
    token = await server.client_token()
    answer = await refused_upgrade(server, upgrade_head(server.ws(), token=token, **change), statuses)
    if answer.status == 426 and "Sec-WebSocket-Version" in change.get("without", ()):
        assert answer.headers["sec-websocket-version"] == "13"
    if answer.status == 405:
        assert "GET" in answer.headers["allow"]


async def test_the_known_subprotocol_is_chosen_among_several(server):
    token = await server.client_token()
    async with await Raw.dial(server.ws()) as raw:
        offered = [("Sec-WebSocket-Protocol", "chat, riser.v1"), ("Sec-WebSocket-Protocol", "riser.v9")]
        await raw.put(upgrade_head(server.ws(), without=("Sec-WebSocket-Protocol",), headers=offered, token=token))
        answer = await raw.answer()
        assert answer.status == 101
        assert answer.headers["sec-websocket-protocol"] == "riser.v1"


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "x" * 4000])
async def test_a_bad_credential_is_refused_before_the_upgrade(server, token):
    answer = await refused_upgrade(server, upgrade_head(server.ws(), headers=[("Authorization", f"Bearer {token}")]), {401})
    answer.problem()


async def test_two_credentials_in_one_request_are_refused(server):
    both = [("Authorization", f"Bearer {await server.client_token()}"), ("Authorization", "Bearer nonsense")]
    await refused_upgrade(server, upgrade_head(server.ws(), headers=both), {400, 401})


# H4

def many_headers() -> list[tuple[str, str]]:
    return [(f"X-{i}", "v") for i in range(2000)]


@pytest.mark.parametrize(("headers", "without"), [
    (many_headers(), ()),
    ([("Sec-WebSocket-Protocol", " " * 8192)], ("Sec-WebSocket-Protocol",)),
    ([("Sec-WebSocket-Protocol", "," * 8192)], ("Sec-WebSocket-Protocol",)),
    ([("X-Folded", "one\r\n two")], ()),
    ([("Transfer-Encoding", "chunked"), ("Content-Length", "5")], ()),
    ([("Content-Length", "5"), ("Content-Length", "6")], ()),
    ([("Content-Length", "-1")], ()),
    ([("Bad Name", "v")], ()),
    ([("X-Nul", "a\x00b")], ()),
], ids=["2000 headers", "8 KiB of spaces", "8 KiB of commas", "a folded header", "TE with CL", "two lengths",
        "a negative length", "a space in a name", "NUL in a value"])
async def test_a_costly_or_ambiguous_head_is_refused_cheaply(server, headers, without):
    token = await server.client_token()
    head = upgrade_head(server.ws(), headers=headers, without=without, token=token)
    before = server.cpu_seconds()
    for _ in range(3):
        await refused_upgrade(server, head, {400, 431})
    # What the bystander and the scrapes of each round cost is within the allowance of a round.
    assert server.cpu_seconds() - before < 3 * 2 * CPU_PER_REQUEST_S


async def test_a_header_of_a_mebibyte_is_refused_in_bounded_memory(server):
    head = upgrade_head(server.ws(), headers=[("X-Large", "v" * (1 << 20))])
    rss, cpu = server.rss_bytes(), server.cpu_seconds()
    async with harmless(server, REFUSED):
        async with await Raw.dial(server.ws()) as raw:
            answer = asyncio.create_task(raw.answer())
            # In steps, and only until the answer is there: bytes sent after the end would turn it into a reset.
            for begin in range(0, len(head), 16384):
                await raw.put(head[begin:begin + 16384])
                done, _ = await asyncio.wait([answer], timeout=0.01)
                if done:
                    break
            assert (await answer).status in (400, 431)
            await raw.tcp_end()
    assert server.cpu_seconds() - cpu < 2 * CPU_PER_REQUEST_S
    assert server.rss_bytes() - rss < 8 * 1024 * 1024


# H5

async def slow_stranger(server, first: bytes, every_second: bytes = b"") -> float:
    """Dials, sends, and drips; returns after how many seconds the broker ended the connection."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    async with await Raw.dial(server.ws()) as raw:
        await raw.put(first)

        async def drip():
            for byte in every_second:
                await asyncio.sleep(1)
                await raw.put(bytes([byte]))

        dripping = asyncio.create_task(drip())
        try:
            await raw.tcp_end(timeout=PATIENCE_S + 3)
        finally:
            dripping.cancel()
    return clock() - begun


async def test_strangers_who_stall_are_closed_after_five_seconds(server):
    head = upgrade_head(server.ws())
    async with harmless(server, REFUSED):
        took = await asyncio.gather(
            slow_stranger(server, b""),
            slow_stranger(server, head[:40]),
            slow_stranger(server, b"", every_second=head),
            slow_stranger(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            *(slow_stranger(server, b"G") for _ in range(20)),
        )
    assert max(took) < PATIENCE_S, took


@pytest.mark.parametrize("with_header", [False, True])
async def test_silence_after_the_upgrade_is_closed_with_4005(server, with_header):
    async with harmless(server, CLOSED, code="4005"):
        token = await server.client_token() if with_header else None
        async with await Raw.dial(server.ws()) as raw:
            begun = asyncio.get_running_loop().time()
            await raw.put(upgrade_head(server.ws(), token=token))
            assert (await raw.answer()).status == 101
            assert await raw.closed(PATIENCE_S) == 4005
            assert 3.0 < asyncio.get_running_loop().time() - begun < PATIENCE_S
            await raw.tcp_end()


async def test_half_a_hello_is_closed_with_4005(server):
    async with harmless(server, CLOSED, code="4005"):
        async with await Raw.open(server.ws()) as raw:
            await raw.put(b"\x01\x84\x00\x00\x00\x00{\"t\"")  # A first fragment, and never the rest.
            assert await raw.closed(PATIENCE_S) == 4005
            await raw.tcp_end()


# H7

async def test_a_second_request_behind_a_refused_upgrade_is_never_answered(server):
    host, port = place(server.ws())
    second = (f"GET /v1/presence?building=b1 HTTP/1.1\r\nHost: {host}:{port}\r\n"
              f"Authorization: Bearer {server.api_key}\r\n\r\n").encode()
    async with harmless(server, REFUSED):
        async with await Raw.dial(server.ws()) as raw:
            await raw.put(upgrade_head(server.ws(), headers=[("Authorization", "Bearer nonsense")]) + second)
            assert (await raw.answer()).status == 401
            rest = await asyncio.wait_for(raw.reader.read(), 5)
            assert rest == b"", rest[:200]


@pytest.mark.parametrize("target", [
    "/v1/../metrics", "/v1/ws/../../metrics", "/../../etc/passwd", "/v1/state/../../metrics", "//metrics",
    "/v1/%2e%2e/metrics", "/metrics", "/metrics/", "http://127.0.0.1/metrics", "http://localhost:1/healthz",
    "http://user:pass@127.0.0.1/metrics", "/v1/ws/", "/v1//ws", "/V1/WS", "*",
])
async def test_crooked_targets_find_nothing(server, target):
    async with harmless(server):
        answer = await call(server.http(), "GET", target, key=server.api_key)
        assert answer.status in (400, 404), (answer.status, answer.body[:200])
        assert b"riser_" not in answer.body and b"root:" not in answer.body
        upgraded = await call(server.http(), "GET", target, key=server.api_key, headers={
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "riser.v1"})
        assert upgraded.status in (400, 404), upgraded.status


# F5 belongs to the handshake: it is there that an extension would be negotiated.

@pytest.mark.parametrize("offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits",
                                   "permessage-deflate; server_no_context_takeover, x-webkit-deflate-frame", "x"])
async def test_no_extension_is_negotiated(server, offer):
    async with await Raw.dial(server.ws()) as raw:
        head = upgrade_head(server.ws(), headers=[("Sec-WebSocket-Extensions", offer)], token=await server.client_token())
        await raw.put(head)
        answer = await raw.answer()
        assert answer.status == 101
        assert "sec-websocket-extensions" not in answer.headers
        await raw.say({"t": "hello"})
        await raw.hear("welcome")
        await raw.ping_pong()
