"""Section 7 across two edges: reasons, epochs that go online and offline once, takeover without an offline."""

from __future__ import annotations

import asyncio
import json

from harness.peers import Crew
from harness.raw import TEXT, Raw, frame
from harness.waiting import eventually

# Two heartbeats of two seconds and five seconds more.
HEARTBEAT_OFFLINE_S = 9.0


async def watched(crew: Crew, building: str):
    client = await crew.client(edge=1)
    await client.subscribe(f"{building}/*")
    return client


def assert_one_offline(client, address: str, epoch: int, reason: str) -> None:
    shown = [(f["online"], f["epoch"]) for f in client.view.of(address).presence]
    assert shown.count((False, epoch)) == 1, shown
    offline = next(f for f in client.view.of(address).presence if not f["online"])
    assert offline["reason"] == reason, offline
    assert isinstance(offline["at_ms"], int)


async def test_coming_online_shows_the_epoch_on_the_other_edge(server, building):
    async with Crew(server) as crew:
        client = await watched(crew, building)
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        shown = await client.presence(f"{building}/g1", online=True)
        assert shown["epoch"] == gateway.welcome["epoch"]


async def test_a_close_by_the_gateway_has_the_reason_closed(server, building):
    async with Crew(server) as crew:
        client = await watched(crew, building)
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        await gateway.close(1000, "good night")
        await client.sees_online(f"{building}/g1", False)
        assert_one_offline(client, f"{building}/g1", gateway.welcome["epoch"], "closed")


async def test_a_reset_connection_has_the_reason_error(server, building):
    async with Crew(server) as crew:
        client = await watched(crew, building)
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        await gateway.abort()
        await client.sees_online(f"{building}/g1", False)
        assert_one_offline(client, f"{building}/g1", gateway.welcome["epoch"], "error")


async def test_a_protocol_violation_has_the_reason_error(server, building):
    async with Crew(server) as crew:
        client = await watched(crew, building)
        async with await Raw.open(server.ws(0), await server.gateway_token(f"{building}/g1")) as raw:
            await client.sees_online(f"{building}/g1", True)
            await raw.put(frame(TEXT, b"{}", mask=False))
            assert await raw.closed() == 1002
            shown = await client.presence(f"{building}/g1", online=False)
            assert shown["reason"] == "error"


async def test_a_gateway_that_answers_no_ping_goes_offline_with_the_reason_heartbeat(server, building):
    async with Crew(server) as crew:
        client = await watched(crew, building)
        async with await Raw.open(server.ws(0), await server.gateway_token(f"{building}/dead")) as raw:
            lively = await crew.gateway(f"{building}/lively", edge=0)
            await client.sees_online(f"{building}/dead", True)
            shown = await client.presence(f"{building}/dead", timeout=HEARTBEAT_OFFLINE_S, online=False)
            assert shown["reason"] == "heartbeat"
            assert await raw.closed() == 4001
            await raw.tcp_end()
            await lively.ping()
            assert client.view.of(f"{building}/lively").online is True


async def test_a_gateway_that_sends_without_answering_pings_stays(server, building):
    async with Crew(server) as crew:
        client = await watched(crew, building)
        async with await Raw.open(server.ws(0), await server.gateway_token(f"{building}/g1")) as raw:
            # Anything that comes shows that the peer is there; over more than two heartbeats.
            for count in range(6):
                await raw.say({"t": "state", "set": {"count": count}})
                await client.until(lambda c=count: client.view.of(f"{building}/g1").state == {"count": c}, "count")
                await asyncio.sleep(1)
            await raw.ping_pong()
            assert client.view.of(f"{building}/g1").offline_count() == 0


async def test_a_takeover_through_another_edge_shows_no_offline_and_closes_the_old_with_4006(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await watched(crew, building)
        beside = await crew.client(edge=0)
        await beside.subscribe(address)
        token = await server.gateway_token(address)
        old = await crew.session(token, edge=0)
        await old.set({"a": 1})
        new = await crew.session(token, edge=1)
        assert new.welcome["epoch"] > old.welcome["epoch"]
        assert await old.ended() == 4006
        for watcher in (client, beside):
            shown = await watcher.presence(address, epoch=new.welcome["epoch"])
            assert shown["online"] is True and shown["reason"] == "takeover"
        await new.set({"a": 2})
        for watcher in (client, beside):
            await watcher.knows(address, {"a": 2})
            await watcher.ping()
            assert watcher.view.of(address).offline_count() == 0
        await new.close()
        for watcher in (client, beside):
            await watcher.sees_online(address, False)
            assert_one_offline(watcher, address, new.welcome["epoch"], "closed")


async def test_a_takeover_on_the_same_edge_shows_no_offline(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await watched(crew, building)
        old = await crew.gateway(address, edge=0)
        new = await crew.gateway(address, edge=0)
        assert await old.ended() == 4006
        await client.presence(address, epoch=new.welcome["epoch"], online=True, reason="takeover")
        await new.ping()
        assert client.view.of(address).offline_count() == 0


async def test_the_old_session_of_a_takeover_can_change_nothing_more(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await watched(crew, building)
        token = await server.gateway_token(address)
        async with await Raw.open(server.ws(0), token) as old:
            new = await crew.session(token, edge=1)
            # The old session keeps talking until its socket is gone.
            for count in range(50):
                await old.put(frame(TEXT, json.dumps({"t": "state", "set": {"old": count}}).encode()))
            await new.set({"new": 1}, full=True)
            assert await old.closed() == 4006
            await old.tcp_end()
            await client.knows(address, {"new": 1})
            assert (await server.state(address))["state"] == {"new": 1}


async def test_reasons_and_times_are_in_the_presence_list(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=1)

        async def listed():
            answer = await server.api("GET", f"/v1/presence?building={building}")
            assert answer.status == 200
            return answer.json()["gateways"]

        (entry,) = await listed()
        assert (entry["of"], entry["online"], entry["epoch"]) == (address, True, gateway.welcome["epoch"])
        assert entry["edge"] == gateway.welcome["edge"]
        assert isinstance(entry["since_ms"], int)
        await gateway.set({"a": 1})
        await gateway.close()

        async def offline():
            return [e for e in await listed() if not e["online"]]

        (entry,) = await eventually(offline, "the gateway being listed as offline")
        assert (entry["of"], entry["reason"]) == (address, "closed")
