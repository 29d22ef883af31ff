"""Edges that die in the middle of a command, of a replay, of a call: what their peers may rely on (row S4)."""

from __future__ import annotations

import asyncio

import pytest

from harness.exchange import DECIDED_S, ids, statuses
from harness.peers import Crew, Peer

REMEMBERS_MS = 600_000
# What the protocol promises for the streams of an opener that is gone.
STREAM_LOST_S = 15.0


async def test_a_command_of_a_killed_edges_gateway_is_sent_again_at_the_other_edge(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=0), await server.gateway_token(address)
        gateway = await crew.session(token, edge=1, remembers_ms=REMEMBERS_MS)
        cmd = await client.command(address, args="once", deadline_ms=30_000)
        await gateway.commanded(cmd)
        async with server.without(1):
            assert await gateway.ended() == 1006
            again = await crew.session(token, edge=0, remembers_ms=REMEMBERS_MS)
            command = await again.commanded(cmd)
            assert command["args"] == "once"
            await again.result(cmd, "succeeded", data="as before")
            final = await client.ends(cmd, ["sent", "succeeded"])
            assert final["data"] == "as before"
            assert await server.decided(cmd, edges=[0]) == ["sent", "succeeded"]


async def test_a_command_of_a_killed_edges_gateway_that_does_not_remember_ends_unknown(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=0), await server.gateway_token(address)
        gateway = await crew.session(token, edge=1)
        cmd = await client.command(address, deadline_ms=2_000)
        await gateway.commanded(cmd)
        async with server.without(1):
            again = await crew.session(token, edge=0)
            await client.ends(cmd, ["sent", "unknown"])
            await again.ping()
            assert again.commands() == []


async def test_a_command_to_a_gateway_whose_edge_is_gone_is_never_told_sent(server, building):
    """The registry still knows the gateway at the dead edge; nothing reaches it, so nothing may be claimed."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=0), await server.gateway_token(address)
        gateway = await crew.session(token, edge=1)
        # The issuing edge has seen where the gateway is.
        await gateway.commanded(await client.command(address))
        async with server.without(1):
            await gateway.ended()
            fails = [await client.command(address, deadline_ms=1_000) for _ in range(3)]
            held = await client.command(address, deadline_ms=30_000, if_offline="hold")
            for cmd in fails:
                assert (await client.final(cmd))["status"] in ("offline", "expired")
                assert "sent" not in statuses(client.outcomes(cmd))
            again = await crew.session(token, edge=0)
            await again.commanded(held)
            await again.ping()
            assert [f["cmd"] for f in again.commands()] == [held]


@pytest.mark.parametrize("when", ["before the result", "after the result"])
async def test_an_issuers_key_brings_its_command_at_the_other_edge(server, building, when):
    address = f"{building}/g1"
    body = {"key": "k", "args": {"for_s": 5}, "deadline_ms": 30_000}
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, **body)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "running", data=1)
        await client.told(cmd, "running")
        async with server.without(1):
            assert await client.ended() == 1006
            if when == "after the result":
                await gateway.result(cmd, "succeeded", data=2)
            again = await crew.client(edge=0)
            assert await again.command(address, **body) == cmd
            assert (await again.told(cmd, "running"))["data"] == 1
            if when == "before the result":
                await gateway.result(cmd, "succeeded", data=2)
            final = await again.ends(cmd, ["sent", "running", "succeeded"])
            assert final["data"] == 2
            await gateway.ping()
            assert len(gateway.commands()) == 1


async def test_commands_of_a_killed_issuing_edge_get_their_final_outcome_without_it(server, building):
    """Nobody asks meanwhile: whoever looks afterwards finds the truth."""
    there, gone = f"{building}/there", f"{building}/gone"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(there, edge=0), await crew.client(edge=1)
        silent = await client.command(there, deadline_ms=1_000)
        await gateway.commanded(silent)
        held = await client.command(gone, deadline_ms=1_000, if_offline="hold")
        await client.told(held, "held")
        kept = await client.command(gone, deadline_ms=60_000, if_offline="hold")
        await client.told(kept, "held")
        witness = await crew.client(edge=0)
        probe = await witness.command(there, deadline_ms=1_500)
        async with server.without(1):
            # A later deadline at the living edge has passed: so has the earlier one of the others.
            await witness.ends(probe, ["sent", "unknown"])
            assert await server.decided(silent, edges=[0]) == ["sent", "unknown"]
            assert await server.decided(held, edges=[0]) == ["held", "expired"]
            late = await crew.gateway(gone, edge=0)
            await late.commanded(kept)
            await late.ping()
            assert [f["cmd"] for f in late.commands()] == [kept]
            await late.result(kept, "succeeded")
            assert await server.decided(kept, edges=[0]) == ["held", "sent", "succeeded"]


async def test_commands_under_way_when_an_edge_dies_each_get_one_outcome_that_is_true(server, building):
    """Fifty commands are on their way to the dying edge's gateway, which remembers what it did."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=0), await server.gateway_token(address)
        gateway = await crew.session(token, edge=1, remembers_ms=REMEMBERS_MS)
        crew.obeys(gateway)
        bodies = [{"to": address, "path": "hall/lock", "action": "unlock", "args": number, "deadline_ms": 3_000}
                  for number in range(50)]
        asking = asyncio.create_task(client.ask_all("command", bodies))
        # Some have been sent by the time the edge dies, and some not.
        await gateway.commanded()
        async with server.without(1):
            again = await crew.session(token, edge=0, remembers_ms=REMEMBERS_MS)
            crew.obeys(again)
            cmds = [reply["cmd"] for reply in await asking]
            executed = {}
            for cmd in cmds:
                executed[cmd] = (await client.final(cmd, 3.0 + DECIDED_S + 5.0))["status"]
            reached = {f["cmd"] for session in (gateway, again) for f in session.commands()}
            for cmd, status in executed.items():
                assert status in ("succeeded", "unknown", "offline", "expired"), status
                assert cmd in reached or status != "succeeded"
                assert cmd not in reached or status in ("succeeded", "unknown")
            for session in (gateway, again):
                seen = [f["cmd"] for f in session.commands()]
                assert len(seen) == len(set(seen)), "sent twice in one session"


async def test_events_while_an_edge_is_gone_are_there_for_who_resumes(server, building):
    address = f"{building}/g1"
    names = ids("e", 60)
    async with Crew(server) as crew:
        gateway, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=["event"])
        for name in names[:20]:
            await gateway.event(id=name)
        heard = await listener.hears(names[:20])
        async with server.without(1):
            assert await listener.ended() == 1006
            for name in names[20:40]:
                await gateway.event(id=name)
            again = await crew.client(edge=0)
            await again.subscribe(address, lanes=["event"], cursor=heard[-1]["cursor"])
            for name in names[40:]:
                await gateway.event(id=name)
            await again.hears(names[20:])
        # The restarted edge knows what it never saw.
        third = await crew.client(edge=1)
        await third.subscribe(address, lanes=["event"], cursor=heard[9]["cursor"])
        await third.hears(names[10:])


async def test_events_of_a_gateway_whose_edge_dies_are_stored_once_when_it_repeats_them(server, building):
    address = f"{building}/g1"
    names = ids("e", 40)
    async with Crew(server) as crew:
        token = await server.gateway_token(address)
        gateway, listener = await crew.session(token, edge=1), await crew.client(edge=0)
        await listener.subscribe(address, lanes=["event"])
        for number, name in enumerate(names):
            await gateway.send({"t": "event", "n": number + 1000, "id": name, "type": "ring"})
        await gateway.receive(lambda f: f["t"] == "ok" and f.get("n") == 1004, "an ok")
        async with server.without(1):
            await gateway.ended()
            answered = {f["n"] - 1000: f["cursor"] for f in gateway.frames if f["t"] == "ok" and f.get("n", 0) >= 1000}
            again = await crew.session(token, edge=0)
            # It knows which were answered and repeats all the same.
            cursors = [await again.event(id=name) for name in names]
            assert all(cursors[number] == cursor for number, cursor in answered.items())
            assert len(set(cursors)) == len(names)
            await listener.hears(names)


@pytest.mark.limit(90)
async def test_streams_of_a_killed_edge_are_closed_as_lost_at_the_others(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener, gateway = await crew.client(edge=0), await crew.gateway(address, edge=0)
        speaker = await crew.client(edge=1)
        await listener.subscribe(address, lanes=["live"])
        stream = await speaker.open_stream(to=address)
        await speaker.speak(stream, range(5))
        for ear in (listener, gateway):
            await ear.hears_frames(stream, range(5))
        async with server.without(1):
            for ear in (listener, gateway):
                closed = await ear.closed(stream, STREAM_LOST_S)
                assert closed["reason"] == "lost" and closed["of"] == address
            late = await crew.client(edge=0)
            await late.subscribe(address, lanes=["live"])
            await late.ping()
            assert [f for f in late.frames if f["t"] == "opened"] == []


async def test_a_listener_of_a_killed_edge_hears_the_stream_at_the_other(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=["live"])
        stream = await speaker.open_stream(params={"rate": 24000})
        await speaker.speak(stream, range(3))
        await listener.hears_frames(stream, range(3))
        async with server.without(1):
            again: Peer = await crew.client(edge=0)
            await again.subscribe(address, lanes=["live"])
            opened = await again.opened(stream)
            assert opened["params"] == {"rate": 24000}
            await speaker.speak(stream, range(3, 6))
            await again.hears_frames(stream, range(3, 6))
            await speaker.close_stream(stream)
            assert (await again.closed(stream))["reason"] == "closed"
