"""An edge that dies, an edge that comes back, and a broker that says goodbye."""

from __future__ import annotations

import asyncio
import signal

import pytest

from harness.peers import Crew, Peer
from harness.server import Server
from harness.waiting import eventually
from harness.web import call

# What the protocol promises for gateways of a lost edge.
EDGE_LOST_S = 15.0


async def back_on_edge_1(crew: Crew, token: str) -> Peer:
    """A session on the restarted edge, as soon as it listens again."""

    async def attempt():
        try:
            return await crew.session(token, edge=1)
        except OSError:
            return None

    return await eventually(attempt, "the restarted edge accepting sessions", timeout=10.0)


@pytest.mark.limit(120)
async def test_gateways_of_a_killed_edge_go_offline_exactly_once_and_come_back(server, building):
    lost = [f"{building}/lost{i}" for i in range(5)]
    kept, moved = f"{building}/kept", f"{building}/moved"
    async with Crew(server) as crew:
        tokens = {address: await server.gateway_token(address) for address in [*lost, kept, moved]}
        watcher = await crew.client(edge=0)
        await watcher.subscribe(f"{building}/*")
        gateways = {address: await crew.session(tokens[address], edge=1) for address in [*lost, moved]}
        gateways[kept] = await crew.session(tokens[kept], edge=0)
        for gateway in gateways.values():
            await gateway.set({"a": 1})
        for address in gateways:
            await watcher.knows(address, {"a": 1})

        await server.kill(1)
        begun = asyncio.get_running_loop().time()
        for address in [*lost, moved]:
            assert await gateways[address].ended() == 1006, "a killed edge says no goodbye"
        # One of them does not wait: it reconnects elsewhere before its lease ends.
        moved_to = await crew.session(tokens[moved], edge=0)
        for address in lost:
            left = EDGE_LOST_S - (asyncio.get_running_loop().time() - begun)
            shown = await watcher.presence(address, timeout=max(left, 0.1), online=False)
            assert shown["reason"] == "edge_lost"
            assert shown["epoch"] == gateways[address].welcome["epoch"]
        assert all(watcher.view.of(address).stale == {"a"} for address in lost)
        listed = (await server.api("GET", f"/v1/presence?building={building}")).json()["gateways"]
        assert {e["of"]: e["online"] for e in listed} == {**dict.fromkeys(lost, False), kept: True, moved: True}

        await server.start(1)
        for address in lost:
            again = await back_on_edge_1(crew, tokens[address])
            assert again.welcome["epoch"] > gateways[address].welcome["epoch"]
            assert again.welcome["have"]["epoch"] == gateways[address].welcome["epoch"]
            await again.set({"a": 2}, full=True)
            await watcher.presence(address, online=True, epoch=again.welcome["epoch"])
            await watcher.knows(address, {"a": 2})
        await gateways[kept].ping()
        await moved_to.ping()
        await watcher.ping()
        for address in lost:
            assert watcher.view.of(address).offline_count() == 1, watcher.view.of(address).presence
            assert watcher.view.of(address).stale == set()
        for address in (kept, moved):
            assert watcher.view.of(address).offline_count() == 0, watcher.view.of(address).presence
            assert watcher.view.of(address).online is True


@pytest.mark.limit(90)
async def test_a_restarted_edge_serves_what_happened_while_it_was_gone(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*")
        await gateway.set({"a": 1})
        await client.knows(f"{building}/g1", {"a": 1})
        await server.kill(1)
        assert await client.ended() == 1006
        await gateway.set({"a": 2})
        await server.start(1)
        again = await back_on_edge_1(crew, await server.client_token())
        await again.subscribe(f"{building}/*")
        assert again.view.of(f"{building}/g1").state == {"a": 2}
        assert again.view.of(f"{building}/g1").online is True
        await gateway.set({"a": 3})
        await again.knows(f"{building}/g1", {"a": 3})


async def test_killing_an_edge_that_does_not_exist_is_not_found(server):
    answer = await call(server.admin(0), "POST", "/dev/edges/7/kill")
    assert answer.status in (400, 404), answer.status
    assert server.alive()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_announces_drains_with_4000_and_exits_0(signal_number):
    server = Server()
    try:
        async with Crew(server) as crew:
            peers = [await crew.gateway("b1/g1", edge=0), await crew.gateway("b1/g2", edge=1),
                     await crew.client(edge=0), await crew.client(edge=1)]
            server.process.send_signal(signal_number)
            for peer in peers:
                goodbye = await peer.receive(lambda f: f["t"] == "goaway", "goaway", timeout=15.0)
                assert goodbye["reason"] == "drain"
                assert isinstance(goodbye["after_ms"], int) and goodbye["after_ms"] >= 0
            for peer in peers:
                assert await peer.ended(timeout=30.0) == 4000
            assert await server.ended() == 0
    finally:
        server.stop()


async def test_a_signal_with_nobody_connected_ends_it_at_once():
    server = Server(edges=1)
    try:
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended(timeout=10.0) == 0
    finally:
        server.stop()


async def test_a_third_edge_takes_part():
    server = Server(edges=3)
    try:
        assert len(server.ready["ws"]) == len(server.ready["http"]) == len(server.ready["admin"]) == 3
        async with Crew(server) as crew:
            gateway = await crew.gateway("b1/g1", edge=0)
            clients = [await crew.client(edge=edge) for edge in range(3)]
            for client in clients:
                await client.subscribe("b1/*")
            await gateway.set({"a": 1})
            for client in clients:
                await client.knows("b1/g1", {"a": 1})
    finally:
        server.stop()
