"""The limits that `welcome` names: one below, at, and above each; what is over a limit changes nothing."""

from __future__ import annotations

import pytest

from harness.harm import harmless
from harness.peers import Crew

SUBSCRIPTIONS, PATHS, STATE_BYTES = 256, 2048, 262_144
# Values that fill frames well; 60 000 bytes leave room for the rest of a frame of 65 536.
CHUNK = 60_000


async def test_the_257th_subscription_is_refused_and_the_256_work(server, building):
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            for number in range(SUBSCRIPTIONS):
                await client.ask("subscribe", to=f"{building}/g{number}", lanes=["state"])
            assert await client.refused("subscribe", to=f"{building}/g256", lanes=["state"]) == "too_many"
            gateway = await crew.gateway(f"{building}/g255", edge=1)
            await gateway.set({"a": 1})
            await client.knows(f"{building}/g255", {"a": 1})


async def test_replacing_and_ending_subscriptions_does_not_use_up_the_limit(server, building):
    async with Crew(server) as crew:
        client = await crew.client(edge=0)
        for number in range(SUBSCRIPTIONS):
            await client.ask("subscribe", to=f"{building}/g{number}", lanes=["state"])
        await client.ask("subscribe", to=f"{building}/g7", lanes=["state"])
        await client.ask("unsubscribe", to=f"{building}/g8")
        await client.ask("subscribe", to=f"{building}/g256", lanes=["state"])
        assert await client.refused("subscribe", to=f"{building}/g257", lanes=["state"]) == "too_many"


async def test_the_2049th_path_is_refused_and_the_2048_stay(server, building):
    address = f"{building}/g1"
    values = {f"p/{number}": number for number in range(PATHS)}
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set(values, full=True)
            assert await gateway.refused("state", set={"one/more": 1}) == "too_many"
            assert (await server.state(address, edge=1))["state"] == values
            await gateway.set({"p/7": "changed"})
            await gateway.set({"p/8": None, "one/more": 1})
            kept = (await server.state(address, edge=1))["state"]
            assert len(kept) == PATHS and kept["one/more"] == 1 and kept["p/7"] == "changed"


async def test_2049_paths_at_once_are_refused(server, building):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set({"before": 1})
            crowd = {f"p/{number}": number for number in range(PATHS + 1)}
            assert await gateway.refused("state", set=crowd, full=True) == "too_many"
            assert (await server.state(address))["state"] == {"before": 1}


async def test_2049_paths_in_parts_are_refused_as_a_whole(server, building):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set({"before": 1})
            await gateway.send({"t": "state", "set": {f"a/{n}": n for n in range(1025)}, "full": True, "more": True})
            assert await gateway.refused("state", set={f"b/{n}": n for n in range(1024)}, full=True) == "too_many"
            assert (await server.state(address))["state"] == {"before": 1}
            await gateway.set({"after": 1})


async def test_a_state_over_its_limit_is_refused_and_what_was_there_stays(server, building):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            for number in range(STATE_BYTES // CHUNK):
                await gateway.set({f"v{number}": f"{number}" * CHUNK})
            kept = (await server.state(address, edge=1))["state"]
            assert len(kept) == STATE_BYTES // CHUNK
            assert await gateway.refused("state", set={"over": "x" * CHUNK}) == "too_many"
            assert (await server.state(address, edge=1))["state"] == kept
            await gateway.set({"v0": None})
            await gateway.set({"over": "x" * (CHUNK // 2)})


@pytest.mark.parametrize("end", ["last part", "never"])
async def test_a_state_over_its_limit_in_parts_is_refused_in_bounded_memory(server, building, end):
    address = f"{building}/g1"
    before = server.rss_bytes()
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            await gateway.set({"before": 1})
            count = 6 if end == "last part" else 400
            for number in range(count):
                if gateway.is_over:
                    break
                await gateway.send({"t": "state", "set": {f"v{number}": "x" * CHUNK}, "full": True, "more": True})
            outcome = await gateway.outcome("state", set={"last": 1}, full=True)
            assert outcome in ("too_many", "closed 4003"), outcome
            kept = await server.state(address)
            assert kept["state"] == {"before": 1}
            assert server.rss_bytes() - before < 8 * 1024 * 1024


async def test_a_description_over_the_limits_is_refused(server, building):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=0)
            crowd = {f"d{number}": {"kind": "lock"} for number in range(PATHS + 1)}
            assert await gateway.refused("describe", devices=crowd) == "too_many"
            await gateway.ping()
