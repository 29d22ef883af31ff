"""Row F6 of the threats for the frames of commands, events and live streams: fields that make no sense."""

from __future__ import annotations

import json

import pytest

from harness.exchange import KINDS, binary, ids
from harness.harm import harmless
from harness.peers import Crew

LANES = ["event", "live"]
DEEP = "[" * 1000 + "]" * 1000
NO_TEXT = (7, None, True, [], {}, ["a"])


def each(field: str, values) -> list[tuple[str, object]]:
    return [(field, value) for value in values]


ABSENT = ...
PATHS = ["", "/", "a//b", "/a", "a/", "+", "#", "a/#", "a/b/c/d/e/f/g/h/i", "x" * 257, "a\u0000", "a\u202eb", "a\nb"]
ADDRESSES = ["", "b1", "b1/", "/g1", "b1/g1/x", "b1/*", "*/*", "b 1/g1", "b1/g.1", "b1/-g", "b1/" + "g" * 65, "b1/g1\n", "b1/gé"]
COMMAND = {"path": "hall/lock", "action": "unlock"}
BAD_COMMANDS = [
    *each("to", [ABSENT, *NO_TEXT, *ADDRESSES, "{b}/_", "_/_"]),
    *each("path", [ABSENT, *NO_TEXT, *PATHS]),
    *each("action", [ABSENT, *NO_TEXT, "", "x" * 65, "a\u0000b", "a\u202eb", "un\nlock"]),
    *each("deadline_ms", [0, 99, 86_400_001, 365 * 86_400_000, -1, 1.5, 10_000.5, 2**53, 2**64, 1e300, "10000", True, [], {}]),
    *each("if_offline", ["", "wait", "HOLD", 7, True, [], {}]),
    *each("key", ["", "k" * 129, "ü" * 65, 7, True, [], {}]),
]
CLIENT_EVENT = {"type": "note"}
BAD_EVENTS = [
    *each("type", [ABSENT, *NO_TEXT, "", "x" * 65, "ü" * 33, "a\u0000", "a\u202e"]),
    *each("id", ["", "x" * 129, "ü" * 65, 7, True, [], {}, "a\u0000"]),
    *each("path", [7, True, [], {}, *PATHS]),
    *each("ts_ms", ["noon", 1.5, [], {}, 1e300]),
]
OPEN = {"path": "talk/door", "kind": "opus"}
BAD_OPENS = [
    *each("to", [ABSENT, *NO_TEXT, *ADDRESSES]),
    *each("path", [ABSENT, *NO_TEXT, *PATHS]),
    *each("kind", [ABSENT, *NO_TEXT, "", "mp3", "OPUS", 1, "opus "]),
    *each("params", ["x" * 1024, {"a": "x" * 1024}, ["ü" * 512]]),
]
BAD_SEENS = [
    *each("of", [ABSENT, *NO_TEXT, *ADDRESSES]),
    *each("id", [ABSENT, *NO_TEXT, "", "x" * 129]),
]
BAD_STREAMS = [ABSENT, "1", None, True, [], {}, -1, 1.5, 2**32, 2**53, 1e300]
BAD_CMDS = [ABSENT, *NO_TEXT, "", "x" * 193, "a b", "a/b", "a*b", "a>b", "a\u0000b", "ü", "..", "a\r\nb"]
BAD_STATUSES = [ABSENT, *NO_TEXT, "", "done", "held", "sent", "offline", "expired", "unknown", "SUCCEEDED", "succeeded "]


def named(value) -> str:
    return "absent" if value is ABSENT else json.dumps(value)[:40]


def changed(good: dict, field: str, value, **more: str) -> dict:
    frame = {**good, field: value}
    if value is ABSENT:
        del frame[field]
    elif isinstance(value, str):
        frame[field] = value.replace("{b}", more.get("b", ""))
    return frame


async def refused(session, t: str, frame: dict, codes=("bad_frame",)) -> None:
    outcome = await session.outcome(t, **frame)
    assert outcome in codes, f"{t} {json.dumps(frame)[:200]} was answered {outcome}"


async def test_commands_that_make_no_sense_are_refused_and_reach_nobody(server, building):
    address = f"{building}/g1"
    good = {"to": address, **COMMAND}
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        for field, value in BAD_COMMANDS:
            await refused(client, "command", changed(good, field, value, b=building))
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        assert len(gateway.commands()) == 1
        listed = await server.api("GET", f"/v1/commands?to={address}")
        assert [entry["cmd"] for entry in listed.json()["commands"]] == [cmd]


async def test_the_last_good_values_of_a_command_are_taken(server, building):
    address = f"{building}/g1"
    good = [("deadline_ms", 100), ("deadline_ms", 86_400_000), ("action", "x" * 64), ("action", "ü" * 32), ("key", "k" * 128),
            ("path", "a/b/c/d/e/f/g/h"), ("path", "x" * 256), ("args", None), ("args", False), ("args", [[[]]]), ("args", "x" * 60_000)]
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        for field, value in good:
            cmd = await client.command(address, **{field: value})
            command = await gateway.commanded(cmd)
            if field not in ("deadline_ms", "key"):
                # No arguments, and null for arguments, are the same.
                assert command.get(field) == value


async def test_events_that_make_no_sense_are_refused_and_not_stored(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        listener = await crew.client(edge=1)
        await listener.subscribe(f"{building}/*", lanes=LANES)
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=0)
        for field, value in BAD_EVENTS:
            await refused(gateway, "event", changed(CLIENT_EVENT, field, value))
            await refused(client, "event", changed({"to": address, **CLIENT_EVENT}, field, value))
        for value in (ABSENT, 7, [], {}, *ADDRESSES):
            await refused(client, "event", changed({"to": address, **CLIENT_EVENT}, "to", value))
        for field, value in BAD_SEENS:
            await refused(client, "seen", changed({"of": f"{building}/_", "id": "x"}, field, value))
        (name,) = ids("good", 1)
        await gateway.event(id=name)
        await listener.hears([name])


async def test_a_gateways_event_is_at_its_own_address_alone(server, building):
    async with harmless(server), Crew(server) as crew:
        listener = await crew.client(edge=1)
        await listener.subscribe("*/*", lanes=LANES)
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        for to in (f"{building}/g2", f"{building}/_", "_/_", "other/g1"):
            assert await gateway.refused("event", to=to, type="ring") == "forbidden"
        (name,) = ids("good", 1)
        await gateway.event(id=name, of=f"{building}/g2")
        heard = await listener.hears([name])
        assert heard[0]["of"] == f"{building}/g1"


async def test_streams_that_make_no_sense_are_not_opened(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        listener, client = await crew.client(edge=1), await crew.client(edge=0)
        await listener.subscribe(f"{building}/*", lanes=LANES)
        for field, value in BAD_OPENS:
            await refused(client, "open", changed({"to": address, **OPEN}, field, value, b=building))
        stream = await client.open_stream(to=address)
        await listener.opened(stream)
        assert len([f for f in listener.frames if f["t"] == "opened"]) == 1
        for value in BAD_STREAMS:
            await refused(client, "close", changed({"stream": stream}, "stream", value))
        for other in (stream + 1, stream ^ 1 << 31, 0):
            await refused(client, "close", {"stream": other}, ["not_found"])
        await client.close_stream(stream)
        await refused(client, "close", {"stream": stream}, ["not_found"])
        await listener.closed(stream)


async def test_params_of_a_kilobyte_are_taken(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener, client = await crew.client(edge=1), await crew.client(edge=0)
        await listener.subscribe(address, lanes=LANES)
        for params in (None, 7, "x" * 1022, {"a": [1.5, None]}):
            stream = await client.open_stream(to=address, params=params)
            assert (await listener.opened(stream)).get("params") == params


async def test_results_and_cancels_that_make_no_sense_change_nothing(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        for value in BAD_CMDS:
            # A text that no `cmd` can be is as good as one that is not known.
            await refused(gateway, "result", changed({"cmd": cmd, "status": "failed"}, "cmd", value), ["bad_frame", "not_found"])
            await refused(client, "cancel", changed({"cmd": cmd}, "cmd", value), ["bad_frame", "not_found"])
        for value in BAD_STATUSES:
            await refused(gateway, "result", changed({"cmd": cmd, "status": "failed"}, "status", value))
        for value in (7, True, [], {}):
            await refused(gateway, "result", {"cmd": cmd, "status": "failed", "code": value})
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])
        assert [f for f in gateway.frames if f["t"] == "cancel"] == []


RAW_FRAMES = {
    "args twice": '{"t":"command","n":9,"to":"TO","path":"a","action":"x","args":1,"args":2}',
    "a key twice in args": '{"t":"command","n":9,"to":"TO","path":"a","action":"x","args":{"a":1,"a":2}}',
    "args a thousand deep": '{"t":"command","n":9,"to":"TO","path":"a","action":"x","args":' + DEEP + "}",
    "args with a number for nobody": '{"t":"command","n":9,"to":"TO","path":"a","action":"x","args":1e999}',
    "an action with half a character": '{"t":"command","n":9,"to":"TO","path":"a","action":"\\ud800"}',
    "data twice": '{"t":"event","n":9,"to":"TO","type":"x","data":1,"data":2}',
    "data a thousand deep": '{"t":"event","n":9,"to":"TO","type":"x","data":' + DEEP + "}",
    "data with half a character": '{"t":"event","n":9,"to":"TO","type":"x","data":"\\ud800"}',
    "params a thousand deep": '{"t":"open","n":9,"to":"TO","path":"a","kind":"opus","params":' + "[" * 400 + "]" * 400 + "}",
    "params with a key twice": '{"t":"open","n":9,"to":"TO","path":"a","kind":"opus","params":{"a":1,"a":2}}',
}


@pytest.mark.parametrize("name", RAW_FRAMES)
async def test_json_that_readers_differ_about_is_refused(server, building, name):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        gateway, listener, client = await crew.gateway(address, edge=1), await crew.client(edge=1), await crew.client(edge=0)
        await listener.subscribe(address, lanes=LANES)
        await client.send(RAW_FRAMES[name].replace("TO", address))
        answer = await client.receive(lambda f: f.get("n") == 9, "an answer")
        assert answer["t"] == "error" and answer["code"] == "bad_frame"
        await client.event(to=address, id=ids("good", 1)[0])
        await listener.until(listener.events, "the good event")
        assert len(listener.events()) == 1 and [f for f in listener.frames if f["t"] == "opened"] == []
        await gateway.ping()
        assert gateway.commands() == []


# n and must

NEED_N = {
    "command": {"to": "{b}/g1", **COMMAND}, "cancel": {"cmd": "x"}, "open": {"to": "{b}/g1", **OPEN}, "close": {"stream": 1},
    "seen": {"of": "{b}/_", "id": "x"},
}


def at(building: str, frame: dict) -> dict:
    return {name: value.replace("{b}", building) if isinstance(value, str) else value for name, value in frame.items()}


@pytest.mark.parametrize("t", NEED_N)
async def test_a_frame_that_needs_an_n_is_refused_without(server, building, t):
    async with harmless(server), Crew(server) as crew:
        gateway, listener, client = await crew.gateway(f"{building}/g1"), await crew.client(edge=1), await crew.client(edge=0)
        await listener.subscribe(f"{building}/*", lanes=LANES)
        await client.send({"t": t, **at(building, NEED_N[t])})
        await client.until(client.errors, "an error")
        assert client.errors() == ["bad_frame"]
        await gateway.ping()
        await listener.ping()
        assert gateway.commands() == [] and [f for f in listener.frames if f["t"] in ("event", "opened")] == []


async def test_events_and_results_need_no_n(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=LANES)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        one, two = ids("e", 2)
        await gateway.send({"t": "event", "id": one, "type": "ring"})
        await gateway.send({"t": "result", "cmd": cmd, "status": "succeeded"})
        await client.ends(cmd, ["sent", "succeeded"])
        await client.hears([one])
        await client.send({"t": "event", "to": address, "id": two, "type": "ring"})
        await client.hears([one, two])
        # What is refused is told all the same.
        await gateway.send({"t": "result", "cmd": cmd + "0", "status": "succeeded"})
        await gateway.send({"t": "event"})
        await gateway.until(lambda: len(gateway.errors()) == 2, "two errors")
        assert sorted(gateway.errors()) == ["bad_frame", "not_found"]


MUST = {
    "command": {"to": "{b}/g1", **COMMAND, "must": ["args", "key", "deadline_ms", "if_offline", "to", "n"]},
    "event": {"to": "{b}/g1", "type": "x", "must": ["id", "path", "data", "ts_ms", "type"]},
    "seen": {"of": "{b}/_", "id": "x", "must": ["of", "id"]},
    "open": {"to": "{b}/g1", **OPEN, "must": ["params", "kind", "path"]},
}


@pytest.mark.parametrize("t", MUST)
async def test_a_must_is_kept_or_the_frame_is_refused(server, building, t):
    async with harmless(server), Crew(server) as crew:
        gateway, listener, client = await crew.gateway(f"{building}/g1"), await crew.client(edge=1), await crew.client(edge=0)
        await listener.subscribe(f"{building}/*", lanes=LANES)
        good = at(building, MUST[t])
        for must in (["colour"], [*good["must"], "colour"], [""]):
            assert await client.refused(t, **{**good, "colour": 1, "must": must}) == "unsupported"
        for must in ("id", 7, [7], {}):
            await refused(client, t, {**good, "must": must}, ["bad_frame", "closed 4500"])
            client = await crew.client(edge=0) if client.is_over else client
        await listener.ping()
        assert gateway.commands() == [] and [f for f in listener.frames if f["t"] in ("event", "opened")] == []
        await client.ask(t, **good)


async def test_a_must_holds_for_results_cancels_and_closes(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        stream = await client.open_stream(to=address)
        for session, t, fields in ((gateway, "result", {"cmd": cmd, "status": "failed"}), (client, "cancel", {"cmd": cmd}),
                                   (client, "close", {"stream": stream})):
            assert await session.refused(t, **fields, must=["colour"]) == "unsupported"
        await gateway.result(cmd, "succeeded", must=["cmd", "status", "code", "data"])
        assert (await client.final(cmd))["status"] == "succeeded"
        await client.ask("close", stream=stream, must=["stream"])


# Binary frames

async def test_binary_frames_that_break_the_header_are_refused_and_dropped(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        listener, client = await crew.client(edge=1), await crew.client(edge=0)
        await listener.subscribe(address, lanes=LANES)
        stream = await client.open_stream(to=address, kind="pcm16")
        good = binary(stream, 1, b"good", kind=KINDS["pcm16"])
        bad = [good[:size] for size in range(16)]
        bad += [binary(stream, 2, kind=2, zero=zero) for zero in (1, 256, 65_535)]
        bad += [binary(stream, 3, kind=2, flags=flags) for flags in (2, 4, 8, 16, 32, 64, 128, 255)]
        bad += [binary(stream, 4, kind=kind) for kind in (0, 1, 3, 6, 15, 16, 17, 255)]
        for message in bad:
            mark = len(client.frames)
            await client.send(message)
            await client.until(lambda: client.errors(mark), f"an error for {message.hex()}")
            assert client.errors(mark) == ["bad_frame"], message.hex()
        await client.send(good)
        await listener.hears_frames(stream, [1])


async def test_a_live_frame_on_a_stream_that_the_session_did_not_open_is_refused_and_dropped(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        opener, listener, mallory = await crew.client(edge=0), await crew.client(edge=1), await crew.client(edge=0, subject="mallory")
        gateway, stranger = await crew.gateway(address, edge=1), await crew.gateway(f"{building}/g2", edge=0)
        await listener.subscribe(f"{building}/*", lanes=LANES)
        stream = await opener.open_stream(to=address)
        closed = await mallory.open_stream("mine", to=address)
        await mallory.close_stream(closed)
        for thief in (mallory, listener, gateway, stranger):
            for foreign in (stream, closed, stream + 1, 0, 2**32 - 1):
                mark = len(thief.frames)
                await thief.send(binary(foreign, 66, b"stolen"))
                await thief.until(lambda: thief.errors(mark), "an error")
                assert thief.errors(mark) == ["not_found"]
        await opener.speak(stream, [1])
        for ear in (listener, gateway):
            await ear.hears_frames(stream, [1])
        assert await mallory.refused("close", stream=stream) == "not_found"
        await opener.speak(stream, [2])
        await listener.hears_frames(stream, [1, 2])


async def test_the_ninth_stream_of_a_session_is_refused(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        client, gateway = await crew.client(edge=0), await crew.gateway(address, edge=1)
        for session, where in ((client, {"to": address}), (gateway, {})):
            streams = [await session.open_stream(f"talk/{number}", **where) for number in range(8)]
            assert await session.refused("open", **OPEN, **where) == "too_many"
            await session.close_stream(streams[3])
            await session.open_stream(**where)
            assert await session.refused("open", **OPEN, **where) == "too_many"
