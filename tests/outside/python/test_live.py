"""Section 6: live streams. Opened, told to late comers, passed on as they are, closed or lost.

That no session hears a frame outside of `opened` and `closed` is checked at the end of every test (`harness/exchange.py`).
"""

from __future__ import annotations

import asyncio

import pytest

from harness.exchange import BINARY, KINDS, binary
from harness.peers import Crew
from harness.raw import Raw
from harness.server import EVERYTHING

LIVE = ["live"]
# A half-open opener is noticed within two heartbeats (here of 2 s) and 5 s.
LOST_S = 15.0


@pytest.mark.parametrize(("opener_edge", "listener_edge"), [(0, 0), (0, 1), (1, 0)])
async def test_a_clients_stream_reaches_listeners_and_the_gateway_as_it_is(server, building, opener_edge, listener_edge):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        opener = await crew.client(edge=opener_edge)
        listener = await crew.client(edge=listener_edge, subject="bob")
        await listener.subscribe(f"{building}/*", lanes=LIVE)
        params = {"rate": 24000, "channels": 1}
        stream = await opener.open_stream("talk/door", "opus", to=address, params=params)
        for ear in (listener, gateway):
            opened = await ear.opened(stream)
            assert {name: opened[name] for name in ("of", "path", "kind", "params", "from")} == {
                "of": address, "path": "talk/door", "kind": "opus", "params": params, "from": "client:alice"}
        for seq, payload in enumerate((b"", b"\x00", bytes(range(256)) * 4)):
            await opener.send(binary(stream, seq, payload, flags=seq % 2, clock=2**32 - 1 - seq))
        for ear in (listener, gateway):
            frames = await ear.hears_frames(stream, range(3))
            assert [f["payload"] for f in frames] == [b"", b"\x00", bytes(range(256)) * 4]
            assert [f["flags"] for f in frames] == [0, 1, 0]
            assert [f["clock"] for f in frames] == [2**32 - 1, 2**32 - 2, 2**32 - 3]
            assert {f["kind"] for f in frames} == {1}
        await opener.close_stream(stream)
        for ear in (listener, gateway):
            closed = await ear.closed(stream)
            assert closed["reason"] == "closed" and closed["of"] == address
        await opener.ping()
        assert [f for f in opener.frames if f["t"] == BINARY] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_goes_from_a_gateway_to_its_listeners(server, building, kind):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        stream = await gateway.open_stream("hall/camera", kind)
        opened = await listener.opened(stream)
        assert (opened["kind"], opened["of"]) == (kind, address)
        await gateway.send(binary(stream, 7, kind.encode(), kind=KINDS[kind]))
        (frame,) = await listener.hears_frames(stream, [7])
        assert frame["kind"] == KINDS[kind] and frame["payload"] == kind.encode()
        # A whole message of the largest size that is taken.
        await gateway.send(binary(stream, 8, b"x" * (16_384 - 16), kind=KINDS[kind]))
        assert len((await listener.hears_frames(stream, [7, 8]))[1]["payload"]) == 16_368


async def test_late_comers_are_told_of_open_streams_and_not_of_closed_ones(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        opener = await crew.client(edge=0)
        first, second = await opener.open_stream("talk/door", to=address), await opener.open_stream("talk/hall", to=address)
        await opener.close_stream(first)
        await opener.speak(second, range(3))
        for edge in (0, 1):
            listener = await crew.client(edge=edge)
            await listener.subscribe(f"{building}/*", lanes=LIVE)
            opened = await listener.opened(second)
            assert (opened["path"], opened["of"]) == ("talk/hall", address)
            await opener.speak(second, range(10 + edge, 12 + edge))
            await listener.hears_frames(second, range(10 + edge, 12 + edge))
            assert [f for f in listener.frames if f.get("stream") == first] == []


async def test_the_sender_does_not_hear_itself_and_hears_the_others(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        talkers = [await crew.client(edge=0), await crew.client(edge=0, subject="bob"), await crew.client(edge=1, subject="carol"),
                   await crew.gateway(address, edge=1)]
        for talker in talkers[:3]:
            await talker.subscribe(address, lanes=LIVE)
        streams = [await talker.open_stream(**({"to": address} if talker is not talkers[3] else {})) for talker in talkers]
        assert len(set(streams)) == 4
        for talker, stream in zip(talkers, streams):
            await talker.speak(stream, range(5))
        for talker, own in zip(talkers, streams):
            for stream in streams:
                if stream != own:
                    await talker.hears_frames(stream, range(5))
            await talker.ping()
            assert talker.heard(own) == []


async def test_overlapping_subscriptions_deliver_a_frame_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener, opener = await crew.client(edge=1), await crew.client(edge=0)
        for pattern in (address, f"{building}/*", "*/*"):
            await listener.subscribe(pattern, lanes=LIVE)
        stream = await opener.open_stream(to=address)
        await opener.speak(stream, range(10))
        await opener.close_stream(stream)
        await listener.closed(stream)
        assert [f["seq"] for f in listener.heard(stream)] == list(range(10))
        await listener.ping()
        assert [f["t"] for f in listener.frames if f.get("stream") == stream and f["t"] != BINARY] == ["opened", "closed"]


async def test_neighbours_and_other_lanes_hear_nothing(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        opener, listener = await crew.client(edge=0), await crew.client(edge=1)
        deaf, elsewhere = await crew.client(edge=1), await crew.client(edge=1)
        neighbour = await crew.gateway(f"{building}/g2", edge=1)
        await listener.subscribe(address, lanes=LIVE)
        await deaf.subscribe(address, lanes=["state", "presence", "event"])
        await elsewhere.subscribe(f"{building}x/*", lanes=LIVE)
        stream = await opener.open_stream(to=address)
        await opener.speak(stream, range(5))
        await listener.hears_frames(stream, range(5))
        for other in (deaf, elsewhere, neighbour):
            await other.ping()
            assert [f for f in other.frames if "stream" in f] == []


async def test_after_the_ok_to_unsubscribe_no_frame_comes(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        opener, listener, control = await crew.client(edge=0), await crew.client(edge=1), await crew.client(edge=1)
        for ear in (listener, control):
            await ear.subscribe(address, lanes=LIVE)
        stream = await opener.open_stream(to=address)
        await opener.speak(stream, range(3))
        await listener.hears_frames(stream, range(3))
        await listener.ask("unsubscribe", to=address)
        mark = len(listener.frames)
        await opener.speak(stream, range(3, 6))
        await control.hears_frames(stream, range(6))
        await listener.ping()
        assert [f["t"] for f in listener.frames[mark:]] == ["pong"]
        # Who comes again is a late comer.
        await listener.subscribe(address, lanes=LIVE)
        await listener.opened(stream, since=mark)
        await opener.speak(stream, range(6, 9))
        await listener.hears_frames(stream, range(6, 9), since=mark)


async def test_stream_numbers_are_unique_within_the_tenant(server, building):
    async with Crew(server) as crew:
        openers = [await crew.client(edge=number % 2) for number in range(10)]
        numbers = []
        for _ in range(8):
            numbers += await asyncio.gather(*(opener.open_stream(to=f"{building}/g1") for opener in openers))
        assert len(set(numbers)) == 80


# Ends

@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize("opener", ["client", "gateway"])
async def test_streams_of_an_opener_that_is_gone_are_lost(server, building, how, opener):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listeners = [await crew.client(edge=edge) for edge in (0, 1)]
        for listener in listeners:
            await listener.subscribe(address, lanes=LIVE)
        session = await (crew.client(edge=0) if opener == "client" else crew.gateway(address, edge=0))
        where = {"to": address} if opener == "client" else {}
        streams = [await session.open_stream(f"talk/{number}", **where) for number in range(2)]
        await session.speak(streams[0], range(3))
        for listener in listeners:
            await listener.hears_frames(streams[0], range(3))
        await (session.abort() if how == "abort" else session.close())
        for listener in listeners:
            for stream in streams:
                closed = await listener.closed(stream, LOST_S)
                # A session that was closed properly is gone all the same; the page names no third reason.
                assert closed["reason"] == "lost"


async def test_streams_of_an_opener_that_does_not_answer_are_lost(server, building):
    """A half-open socket: nothing ends it but the heartbeat."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener = await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        async with await Raw.open(server.ws(0), await server.client_token()) as raw:
            await raw.say({"t": "open", "n": 1, "to": address, "path": "talk/door", "kind": "opus"})
            stream = (await raw.hear("ok"))["stream"]
            await listener.opened(stream)
            assert (await listener.closed(stream, LOST_S))["reason"] == "lost"


async def test_a_gateway_that_takes_over_does_not_speak_in_the_older_sessions_streams(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener, token = await crew.client(edge=1), await server.gateway_token(address)
        await listener.subscribe(address, lanes=LIVE)
        older = await crew.session(token, edge=0)
        stream = await older.open_stream()
        await older.speak(stream, [0])
        await listener.hears_frames(stream, [0])
        newer = await crew.session(token, edge=1)
        assert await older.ended() == 4006
        assert (await listener.closed(stream, LOST_S))["reason"] == "lost"
        await newer.speak(stream, [1])
        await newer.until(lambda: newer.errors(), "an error")
        assert newer.errors() == ["not_found"]
        await listener.ping()
        assert [f["seq"] for f in listener.heard(stream)] == [0]


async def test_a_gateway_that_reconnects_hears_the_streams_of_its_address_again(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        opener, token = await crew.client(edge=0), await server.gateway_token(address)
        stream = await opener.open_stream(to=address)
        for turn in range(3):
            gateway = await crew.session(token, edge=turn % 2)
            await gateway.opened(stream)
            await opener.speak(stream, range(turn * 3, turn * 3 + 3))
            await gateway.hears_frames(stream, range(turn * 3, turn * 3 + 3))


# Rights

async def test_a_right_that_is_withdrawn_ends_listening(server, building):
    """Row N5: `unsubscribed` says which subscription ended, and nothing comes any more."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        opener, listener, control = await crew.client(edge=0), await crew.client(edge=1), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        await listener.subscribe(f"{building}/*", lanes=["event"])
        await control.subscribe(f"{building}/*", lanes=["live", "event"])
        stream = await opener.open_stream(to=address)
        await listener.opened(stream)
        reader = await server.client_token([{"to": f"{building}/*", "may": ["read"]}])
        await listener.ask("auth", token=reader)
        ended = await listener.receive(lambda f: f["t"] == "unsubscribed", "unsubscribed")
        assert (ended["to"], ended["code"]) == (address, "forbidden")
        mark = len(listener.frames)
        await opener.speak(stream, range(5))
        await opener.event(to=address, id="still-read")
        await control.hears_frames(stream, range(5))
        await listener.hears(["still-read"], since=mark)
        assert [f for f in listener.frames[mark:] if f["t"] == BINARY] == []
        nothing = await server.client_token([{"to": f"{building}y/*", "may": ["read"]}])
        await listener.ask("auth", token=nothing)
        await listener.receive(lambda f: f["t"] == "unsubscribed" and f["to"] == f"{building}/*", "unsubscribed")
        mark = len(listener.frames)
        await opener.event(to=address, id="not-read")
        await control.hears(["still-read", "not-read"])
        await listener.ping()
        assert [f["t"] for f in listener.frames[mark:]] == ["pong"]


@pytest.mark.parametrize("may", [["read"], ["read", "command", "event", "listen"]], ids=str)
async def test_without_the_right_to_speak_nothing_is_opened(server, building, may):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener = await crew.client(edge=0)
        await listener.subscribe(address, lanes=LIVE)
        client = await crew.client(edge=1, grants=[{"to": "*/*", "may": may}])
        assert await client.refused("open", to=address, path="talk/door", kind="opus") == "forbidden"
        await listener.ping()
        assert [f for f in listener.frames if f["t"] == "opened"] == []


async def test_the_right_to_speak_is_one_of_addresses_and_paths(server, building):
    async with Crew(server) as crew:
        grants = [{"to": f"{building}/g1", "path": ["talk/#"], "may": ["speak"]}]
        client = await crew.client(edge=1, grants=grants)
        await client.open_stream("talk/door", to=f"{building}/g1")
        for to, path in ((f"{building}/g1", "hall/door"), (f"{building}/g2", "talk/door"), (f"{building}x/g1", "talk/door")):
            assert await client.refused("open", to=to, path=path, kind="opus") == "forbidden"


@pytest.mark.parametrize("may", [["read"], ["read", "command", "event", "speak"]], ids=str)
async def test_without_the_right_to_listen_the_lane_is_forbidden(server, building, may):
    async with Crew(server) as crew:
        client = await crew.client(edge=1, grants=[{"to": "*/*", "may": may}])
        assert await client.refused("subscribe", to=f"{building}/g1", lanes=LIVE) == "forbidden"


async def test_the_right_to_listen_alone_is_enough_for_the_lane(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1, grants=[{"to": address, "may": ["listen"]}])
        opener = await crew.client(edge=0, grants=EVERYTHING)
        await client.subscribe(address, lanes=LIVE)
        stream = await opener.open_stream(to=address)
        await opener.speak(stream, range(2))
        await client.hears_frames(stream, range(2))
