"""Section 3 and 4's state part across two edges: deltas, deletes, `full`, parts, devices, stale and fresh."""

from __future__ import annotations

import pytest

from harness.peers import Crew

HOME = {"kitchen/light": {"on": True}, "hall/lock": "locked", "meter/power": 412.5}


async def pair(crew: Crew, building: str, **subscription):
    """A gateway on edge 0 and a client on edge 1 that watches it."""
    address = f"{building}/g1"
    gateway = await crew.gateway(address, edge=0)
    client = await crew.client(edge=1)
    await client.subscribe(address, **subscription)
    return address, gateway, client


async def test_a_snapshot_holds_the_state_that_was_there_before(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address)
        await gateway.set(HOME, full=True)
        client = await crew.client(edge=1)
        await client.subscribe(address)
        snapshot = await client.receive(lambda f: f["t"] == "snapshot" and f["of"] == address, "snapshot")
        assert snapshot["state"] == HOME
        assert snapshot["online"] is True
        assert (snapshot["epoch"], snapshot["rev"]) == (gateway.welcome["epoch"], 1)
        assert not snapshot.get("stale")
        assert isinstance(snapshot["since_ms"], int) and isinstance(snapshot["at_ms"], int)


async def test_the_snapshot_comes_before_synced(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1")
        await gateway.set(HOME)
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*")
        kinds = [f["t"] for f in client.frames if f["t"] in ("ok", "snapshot", "synced")]
        assert kinds == ["ok", "snapshot", "synced"]


async def test_a_delta_crosses_edges_with_a_greater_version_and_the_senders_clock(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"kitchen/light": False}, ts_ms=1234)
        await client.knows(address, {"kitchen/light": False})
        mark = len(client.frames)
        await gateway.set({"kitchen/light": True}, ts_ms=1235)
        delta = await client.receive(lambda f: f["t"] == "state", "a delta", since=mark)
        assert delta["of"] == address and delta["set"] == {"kitchen/light": True}
        assert (delta["epoch"], delta["rev"]) == (gateway.welcome["epoch"], 2)
        assert delta["ts_ms"] == 1235
        assert isinstance(delta["at_ms"], int)


@pytest.mark.parametrize("value", [
    0, -1, 1.5, 1e300, 2**53 - 1, True, False, "", "text", "\u0000\u001b[31m", "Küche 😀", [], [1, [2, None]],
    {}, {"a": {"b": [None, {"c": 0.1}]}}, {"null": None},
])
async def test_any_json_value_arrives_as_it_was_sent(server, building, value):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"x/y": value})
        await client.knows(address, {"x/y": value})
        assert type(client.view.of(address).state["x/y"]) is type(value)
        assert (await server.state(address, edge=1))["state"] == {"x/y": value}


async def test_ok_means_that_the_other_edge_already_serves_the_value(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        for count in range(20):
            await gateway.set({"count": count})
            assert (await server.state(f"{building}/g1", edge=1))["state"] == {"count": count}


async def test_a_hundred_changes_end_in_the_last_values_on_both_edges(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        beside = await crew.client(edge=0)
        await beside.subscribe(address)
        for count in range(100):
            await gateway.send({"t": "state", "set": {f"p{count % 7}": count}})
        await gateway.ping()
        final = {f"p{count % 7}": count for count in range(100)}
        await client.knows(address, final)
        await beside.knows(address, final)


async def test_null_deletes_a_path(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set(HOME)
        await client.knows(address, HOME)
        await gateway.set({"hall/lock": None})
        rest = {path: value for path, value in HOME.items() if path != "hall/lock"}
        await client.knows(address, rest)
        assert (await server.state(address))["state"] == rest
        late = await crew.client(edge=0)
        await late.subscribe(address)
        assert late.view.of(address).state == rest


async def test_deleting_what_is_not_there_is_fine(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"never/was": None, "a": 1})
        await client.knows(address, {"a": 1})


async def test_full_replaces_everything_known(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set(HOME)
        await client.knows(address, HOME)
        await gateway.set({"bath/leak": False}, full=True)
        await client.knows(address, {"bath/leak": False})
        assert (await server.state(address, edge=1))["state"] == {"bath/leak": False}


async def test_an_empty_full_state_leaves_nothing(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set(HOME)
        await client.knows(address, HOME)
        await gateway.set({}, full=True)
        await client.knows(address, {})


@pytest.mark.parametrize("full", [True, False])
async def test_a_set_in_parts_takes_effect_at_its_last_part(server, building, full):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"before": 1})
        await client.knows(address, {"before": 1})
        await gateway.send({"t": "state", "set": {"a": 1}, "full": full, "more": True})
        await gateway.send({"t": "state", "set": {"b": 2}, "full": full, "more": True})
        await gateway.ping()
        assert (await server.state(address, edge=1))["state"] == {"before": 1}
        await gateway.set({"c": 3}, full=full)
        whole = {"a": 1, "b": 2, "c": 3} if full else {"before": 1, "a": 1, "b": 2, "c": 3}
        await client.knows(address, whole)
        assert (await server.state(address))["state"] == whole


async def test_parts_that_never_end_leave_no_trace(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"before": 1})
        await gateway.send({"t": "state", "set": {"half": 1}, "full": True, "more": True})
        await gateway.close()
        back = await crew.gateway(address, edge=1)
        await back.set({"after": 2})
        await client.knows(address, {"before": 1, "after": 2})


async def test_a_state_larger_than_a_frame_reaches_clients_whole(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address)
        large = {f"room{i}/text": f"{i:04d}" + "x" * 1000 for i in range(200)}
        items = list(large.items())
        for begin in range(0, 200, 50):
            last = begin == 150
            await gateway.send({"t": "state", "set": dict(items[begin:begin + 50]), "full": True, "more": not last})
        await gateway.ping()
        client = await crew.client(edge=1)
        await client.subscribe(address)
        await client.knows(address, large)
        assert (await server.state(address, edge=1))["state"] == large
        await gateway.set({"room7/text": "short"})
        await client.knows(address, {**large, "room7/text": "short"})


async def test_values_outlive_the_epoch_that_set_them(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"a": 1})
        await gateway.close()
        again = await crew.gateway(address, edge=1)
        await again.set({"b": 2})
        await client.knows(address, {"a": 1, "b": 2})
        late = await crew.client(edge=0)
        await late.subscribe(address)
        assert late.view.of(address).state == {"a": 1, "b": 2}


# Devices

async def test_a_device_that_goes_away_makes_all_below_it_stale(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"kitchen/light": 1, "kitchen/oven/door": 2, "kitchenette/light": 3, "hall": 4})
        await gateway.ask("device", path="kitchen", up=False)
        seen = client.view.of(address)
        await client.until(lambda: seen.stale == {"kitchen/light", "kitchen/oven/door"}, "the kitchen being stale")
        late = await crew.client(edge=0)
        await late.subscribe(address)
        assert late.view.of(address).stale == {"kitchen/light", "kitchen/oven/door"}


async def test_a_device_that_comes_back_is_fresh_again(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"kitchen/light": 1, "hall/lock": 2})
        await gateway.ask("device", path="kitchen", up=False)
        seen = client.view.of(address)
        await client.until(lambda: seen.stale == {"kitchen/light"}, "the kitchen being stale")
        await gateway.ask("device", path="kitchen", up=True)
        await client.until(lambda: seen.stale == set(), "the kitchen being fresh")
        assert not (await server.state(address)).get("stale")


async def test_setting_a_value_makes_it_fresh_again(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"kitchen/light": 1, "kitchen/oven": 2})
        await gateway.ask("device", path="kitchen", up=False)
        seen = client.view.of(address)
        await client.until(lambda: seen.stale == {"kitchen/light", "kitchen/oven"}, "the kitchen being stale")
        await gateway.set({"kitchen/light": 5})
        await client.until(lambda: seen.stale == {"kitchen/oven"}, "only the oven being stale")
        assert seen.state["kitchen/light"] == 5
        late = await crew.client(edge=0)
        await late.subscribe(address)
        assert late.view.of(address).stale == {"kitchen/oven"}


async def test_a_gateway_that_goes_offline_makes_all_its_values_stale(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"a": 1, "b/c": 2})
        await client.knows(address, {"a": 1, "b/c": 2})
        await gateway.close()
        await client.sees_online(address, False)
        assert client.view.of(address).stale == {"a", "b/c"}
        assert client.view.of(address).state == {"a": 1, "b/c": 2}
        late = await crew.client(edge=0)
        await late.subscribe(address)
        assert late.view.of(address).online is False
        assert late.view.of(address).stale == {"a", "b/c"}


async def test_a_full_state_after_coming_back_makes_everything_fresh(server, building):
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.set({"a": 1, "b": 2})
        await gateway.close()
        await client.sees_online(address, False)
        back = await crew.gateway(address, edge=1)
        await back.set({"a": 1, "b": 2}, full=True)
        seen = client.view.of(address)
        await client.until(lambda: seen.online and seen.state == {"a": 1, "b": 2} and not seen.stale,
                           "everything being fresh")


async def test_devices_are_described_in_snapshots_and_anew(server, building):
    lock = {"hall/lock": {"kind": "lock", "name": "Front door", "unit": None, "actions": ["lock", "unlock"]}}
    meter = {"meter": {"kind": "meter", "name": "Power", "unit": "W"}}
    async with Crew(server) as crew:
        address, gateway, client = await pair(crew, building)
        await gateway.ask("describe", devices=lock)
        await client.until(lambda: "hall/lock" in client.view.of(address).devices, "the lock being described")
        found = client.view.of(address).devices["hall/lock"]
        assert (found["kind"], found["name"], found["actions"]) == ("lock", "Front door", ["lock", "unlock"])
        await gateway.ask("describe", devices=meter)
        await client.until(lambda: set(client.view.of(address).devices) == {"meter"}, "the meter alone")
        await gateway.set({"meter": 3})
        late = await crew.client(edge=0)
        await late.subscribe(address)
        assert set(late.view.of(address).devices) == {"meter"}
        assert (await server.state(address))["devices"]["meter"]["unit"] == "W"


@pytest.mark.parametrize("kind", ["switch", "dimmer", "lock", "thermostat", "meter", "sensor", "bell", "position", "other"])
async def test_every_kind_of_device_is_accepted(server, building, kind):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1")
        await gateway.ask("describe", devices={"d": {"kind": kind, "name": "D"}})
        assert (await server.state(f"{building}/g1"))["devices"]["d"]["kind"] == kind
