"""Row F6 of the threats: text that is no frame, and frames that make no sense."""

from __future__ import annotations

import json

import pytest

from harness.harm import CLOSED, harmless
from harness.peers import Crew, Ended

NOT_FRAMES = {
    "nothing": "", "a space": " ", "a truncated object": '{"t":"ping"', "a truncated text": '{"t":"pi',
    "trailing text": '{"t":"ping"} x', "two objects": '{"t":"ping"}{"t":"ping"}', "a list": "[]",
    "a list of frames": '[{"t":"ping"}]', "a number": "7", "a text": '"ping"', "null": "null", "true": "true",
    "NaN": '{"t":"ping","x":NaN}', "Infinity": '{"t":"ping","x":-Infinity}', "a comment": '{"t":"ping"/**/}',
    "a trailing comma": '{"t":"ping",}', "single quotes": "{'t':'ping'}", "a bare word": "ping",
    "a byte order mark": '\ufeff{"t":"ping"}', "a control character in a text": '{"t":"ping","x":"\u0001"}',
    "a lone surrogate escape as a type": '{"t":"\\ud800"}',
    "no type": '{"n":1}', "an empty object": "{}", "a type that is a number": '{"t":1}',
    "a type that is null": '{"t":null}', "a type that is a list": '{"t":["ping"]}',
    "two types": '{"t":"ping","t":"state"}',
    "a thousand levels": '{"t":"ping","x":' + "[" * 1000 + "]" * 1000 + "}",
    "thirty thousand levels": "[" * 30_000, "thirty thousand objects": '{"a":' * 13_000,
}
# What JSON readers may rightly differ in: an unknown field's depth, since unknown fields are ignored.
MAY_BE_TAKEN = {"a thousand levels"}


async def error_or_4500(peer, mark: int, answers_allowed: bool = False) -> None:
    """`error` and the session goes on, or closed 4500; an ordinary answer only where it is allowed."""
    wanted = ("error", "pong", "ok") if answers_allowed else ("error",)
    await peer.until(lambda: peer.is_over or [f for f in peer.frames[mark:] if f["t"] in wanted], "an answer")
    if peer.is_over:
        assert await peer.ended() == 4500
        return
    assert answers_allowed or not [f for f in peer.frames[mark:] if f["t"] == "pong"], peer.frames[mark:]
    await peer.ping()


@pytest.mark.parametrize("name", NOT_FRAMES)
async def test_text_that_is_no_frame_is_an_error_or_closed_with_4500(server, name):
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            mark = len(client.frames)
            await client.send(NOT_FRAMES[name])
            await error_or_4500(client, mark, name in MAY_BE_TAKEN)


@pytest.mark.parametrize("name", ["nothing", "a truncated object", "a list", "no type", "thirty thousand levels"])
async def test_text_that_is_no_frame_before_hello_is_closed_with_4500(server, name):
    async with harmless(server, CLOSED, code="4500"):
        async with Crew(server) as crew:
            peer = await crew.connect()
            await peer.send(NOT_FRAMES[name])
            assert await peer.ended() == 4500


NOT_STATES = {
    "no set": {}, "a set that is a list": {"set": []}, "a set that is null": {"set": None}, "a set that is a text": {"set": "a"},
    "a set that is a number": {"set": 7}, "full that is a text": {"set": {"a": 1}, "full": "yes"},
    "full that is a number": {"set": {"a": 1}, "full": 1}, "more that is a text": {"set": {"a": 1}, "more": "no"},
    "a clock that is a text": {"set": {"a": 1}, "ts_ms": "noon"},
}


@pytest.mark.parametrize("name", NOT_STATES)
async def test_a_state_that_makes_no_sense_changes_nothing(server, building, name):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set({"before": 1})
            mark = len(gateway.frames)
            await gateway.send({"t": "state", "n": 99, **NOT_STATES[name]})
            await error_or_4500(gateway, mark, answers_allowed=name == "no set")
            assert (await server.state(address))["state"] == {"before": 1}


@pytest.mark.parametrize("text", [
    '{"t":"state","n":99,"set":{"a":1,"a":2}}',
    '{"t":"state","n":99,"set":{"a":1},"set":{"b":2}}',
    '{"t":"state","n":99,"set":{"a":1e999}}',
    '{"t":"state","n":99,"set":{"a":' + "9" * 400 + "}}",
    '{"t":"state","n":99,"set":{"a":' + "[" * 1000 + "]" * 1000 + "}}",
    '{"t":"state","n":99,"set":{"a":' + "[" * 30_000 + "]" * 30_000 + "}}",
    '{"t":"state","n":99,"set":{"a":"\\ud800"}}',
], ids=["a path twice", "set twice", "1e999", "400 digits", "1000 levels", "30000 levels", "a lone surrogate"])
async def test_json_that_readers_differ_about_never_reaches_a_client_broken(server, building, text):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=1)
            await client.subscribe(address)
            gateway = await crew.gateway(address, edge=0)
            mark = len(gateway.frames)
            await gateway.send(text)
            await error_or_4500(gateway, mark, answers_allowed=True)
            # A reader of these tests' own has parsed whatever came; it must still be there and hear the next value.
            again = await crew.gateway(address, edge=1)
            await again.set({"after": 1}, full=True)
            await client.knows(address, {"after": 1})


@pytest.mark.parametrize("n", [-1, 1.5, 2**53, 2**64, 1e300, "1", None, True, [], {}], ids=str)
async def test_an_n_out_of_range_is_an_error_or_closed_with_4500(server, building, n):
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            mark = len(client.frames)
            await client.send({"t": "subscribe", "n": n, "to": f"{building}/*", "lanes": ["state"]})
            await error_or_4500(client, mark)


@pytest.mark.parametrize("frame", [
    {"t": "subscribe", "to": "b1/*", "lanes": ["state"]}, {"t": "unsubscribe", "to": "b1/*"}, {"t": "auth", "token": "x"},
], ids=lambda frame: frame["t"])
async def test_a_frame_that_needs_an_n_and_has_none_is_an_error_or_closed_with_4500(server, frame):
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            mark = len(client.frames)
            await client.send(frame)
            await error_or_4500(client, mark)


@pytest.mark.parametrize("lanes", ["state", 7, None, {}, [7], ["levitation"], ["state", "levitation"], ["STATE"]], ids=str)
async def test_lanes_that_make_no_sense_are_refused(server, building, lanes):
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            mark = len(client.frames)
            await client.send({"t": "subscribe", "n": 1, "to": f"{building}/*", "lanes": lanes})
            # `null` may be read as absent, and what absent means the page leaves open.
            await error_or_4500(client, mark, answers_allowed=lanes is None)


@pytest.mark.parametrize("must", ["set", 7, {}, [7], [None], [["set"]]], ids=str)
async def test_a_must_that_makes_no_sense_is_refused(server, building, must):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set({"before": 1})
            mark = len(gateway.frames)
            await gateway.send({"t": "state", "n": 99, "set": {"a": 1}, "must": must})
            await error_or_4500(gateway, mark)
            assert (await server.state(address))["state"] == {"before": 1}


@pytest.mark.parametrize("describe", [
    {}, {"devices": []}, {"devices": None}, {"devices": {"a": 7}}, {"devices": {"a": {"kind": "toaster", "name": "x"}}},
    {"devices": {"a": {"kind": 7, "name": "x"}}}, {"devices": {"a": {"kind": "lock", "name": 7}}},
    {"devices": {"a": {"kind": "lock", "name": "x", "actions": "lock"}}},
], ids=json.dumps)
async def test_a_description_that_makes_no_sense_is_refused(server, building, describe):
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(f"{building}/g1", edge=0)
            await gateway.ask("describe", devices={"good": {"kind": "lock", "name": "x"}})
            mark = len(gateway.frames)
            await gateway.send({"t": "describe", "n": 99, **describe})
            await error_or_4500(gateway, mark)
            assert set((await server.state(f"{building}/g1"))["devices"]) == {"good"}


@pytest.mark.parametrize("device", [
    {}, {"path": "a"}, {"up": False}, {"path": "a", "up": "no"}, {"path": 7, "up": True}, {"path": "a", "up": None},
], ids=json.dumps)
async def test_a_device_frame_that_makes_no_sense_is_refused(server, building, device):
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(f"{building}/g1", edge=0)
            await gateway.set({"a": 1})
            mark = len(gateway.frames)
            await gateway.send({"t": "device", "n": 99, **device})
            await error_or_4500(gateway, mark)
            assert not (await server.state(f"{building}/g1")).get("stale")


async def test_a_frame_with_as_many_paths_as_fit_is_refused_and_nothing_is_kept(server, building):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set({"before": 1})
            crowd = {f"{number:x}": 1 for number in range(5000)}
            assert await gateway.refused("state", set=crowd) == "too_many"
            assert (await server.state(address))["state"] == {"before": 1}


@pytest.mark.parametrize("payload", [b"", b"\x00", b'{"t":"ping"}', bytes(16), b"\x01" + bytes(40), b"\xff" * 64], ids=str)
@pytest.mark.parametrize("peer", ["gateway", "client"])
async def test_a_binary_frame_without_a_stream_is_never_taken_for_text(server, building, payload, peer):
    async with harmless(server):
        async with Crew(server) as crew:
            session = await (crew.gateway(f"{building}/g1") if peer == "gateway" else crew.client(edge=0))
            mark = len(session.frames)
            await session.send(payload)
            # Ignored, an error, or closed: anything but an answer to what it would say as text.
            try:
                await session.ping()
            except Ended:
                assert await session.ended() == 4500
                return
            assert [f["t"] for f in session.frames[mark:]] in (["pong"], ["error", "pong"])
