"""Row S1 of the threats: one credential, several sessions, at once and in turn."""

from __future__ import annotations

import asyncio

from harness.harm import CLOSED, harmless
from harness.peers import Crew, Peer
from harness.waiting import eventually

# 4006, or an edge that finds the flapping too much and says so before the upgrade or with 4003.
SUPERSEDED = {4006, 4003}


async def try_session(crew: Crew, token: str, edge: int) -> Peer | None:
    """A session if it got as far as a welcome; superseded ones may not."""
    try:
        return await crew.session(token, edge)
    except AssertionError:
        return None


async def settled(server, building: str, address: str, newest: Peer) -> None:
    async def owned():
        listed = (await server.api("GET", f"/v1/presence?building={building}")).json()["gateways"]
        entry = next(e for e in listed if e["of"] == address)
        return entry["online"] and entry["epoch"] == newest.welcome["epoch"]

    await eventually(owned, "the newest session owning the address")


async def test_two_sessions_at_once_leave_exactly_one(server, building):
    address = f"{building}/g1"
    async with harmless(server, CLOSED, code="4006"):
        async with Crew(server) as crew:
            watcher = await crew.client(edge=0)
            await watcher.subscribe(address)
            token = await server.gateway_token(address)
            pair = await asyncio.gather(*(try_session(crew, token, edge) for edge in (0, 1)))
            welcomed = [peer for peer in pair if peer is not None]
            newest = max(welcomed, key=lambda peer: peer.welcome["epoch"])
            for peer in welcomed:
                if peer is not newest:
                    assert await peer.ended() in SUPERSEDED
            await newest.set({"winner": 1}, full=True)
            await watcher.knows(address, {"winner": 1})
            await settled(server, building, address, newest)
            assert watcher.view.of(address).offline_count() == 0


async def test_fifty_sessions_at_once_leave_exactly_one(server, building):
    address = f"{building}/g1"
    async with harmless(server, CLOSED, code="4006"):
        async with Crew(server) as crew:
            watcher = await crew.client(edge=1)
            await watcher.subscribe(address)
            token = await server.gateway_token(address)
            crowd = await asyncio.gather(*(try_session(crew, token, n % 2) for n in range(50)))
            welcomed = [peer for peer in crowd if peer is not None]
            assert welcomed
            epochs = [peer.welcome["epoch"] for peer in welcomed]
            assert len(set(epochs)) == len(epochs), "an epoch was given twice"
            newest = max(welcomed, key=lambda peer: peer.welcome["epoch"])
            for peer in welcomed:
                if peer is not newest:
                    assert await peer.ended(10) in SUPERSEDED
            assert not newest.is_over
            await newest.set({"winner": newest.welcome["epoch"]}, full=True)
            await watcher.knows(address, {"winner": newest.welcome["epoch"]})
            await settled(server, building, address, newest)
            await watcher.ping()
            assert watcher.view.of(address).offline_count() == 0
            shown = [f["epoch"] for f in watcher.view.of(address).presence]
            assert shown == sorted(shown), "presence went back to an older epoch"


async def test_ten_sessions_in_turn_each_take_over_without_an_offline(server, building):
    address = f"{building}/g1"
    async with harmless(server, CLOSED, code="4006"):
        async with Crew(server) as crew:
            watcher = await crew.client(edge=0)
            await watcher.subscribe(address)
            token = await server.gateway_token(address)
            earlier = None
            for turn in range(10):
                current = await crew.session(token, edge=turn % 2)
                if earlier is not None:
                    assert current.welcome["epoch"] > earlier.welcome["epoch"]
                    assert await earlier.ended() in SUPERSEDED
                await current.set({"turn": turn}, full=True)
                await watcher.knows(address, {"turn": turn})
                earlier = current
            await watcher.ping()
            seen = watcher.view.of(address)
            assert seen.offline_count() == 0
            assert all(f["reason"] == "takeover" for f in seen.presence[1:])
            await settled(server, building, address, earlier)


async def test_clients_with_one_credential_do_not_disturb_each_other(server, building):
    token = await server.client_token()
    async with Crew(server) as crew:
        both = [await crew.session(token, edge) for edge in (0, 1)]
        for client in both:
            await client.subscribe(f"{building}/*")
        gateway = await crew.gateway(f"{building}/g1")
        await gateway.set({"a": 1})
        for client in both:
            await client.knows(f"{building}/g1", {"a": 1})
