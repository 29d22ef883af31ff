"""The event lane: stored before `ok`, once per id, shown to whom it concerns and to nobody else."""

from __future__ import annotations

import asyncio
import json

import pytest

from harness.exchange import ids
from harness.peers import Crew

EVENT = ["event"]
# The edge that tells the time and the store that dates the event are not asked in the same millisecond.
CLOCKS_APART_MS = 1_000


async def test_an_event_of_a_gateway_reaches_a_client_at_the_other_edge_whole(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        data = {"button": 2, "text": "Grüezi \u0000 😀", "deep": [[{}]], "null": None, "large": 2**53}
        (name,) = ids("ring", 1)
        cursor = await gateway.event("ring", id=name, path="hall/bell", data=data, ts_ms=1_763_812_345_678)
        (event,) = await client.hears([name])
        assert event["of"] == address and event["cursor"] == cursor
        assert (event["path"], event["type"], event["data"]) == ("hall/bell", "ring", data)
        assert event["ts_ms"] == 1_763_812_345_678
        now_ms = (await client.ping())["now_ms"]
        assert gateway.welcome["now_ms"] - CLOCKS_APART_MS < event["at_ms"] <= now_ms + CLOCKS_APART_MS
        assert isinstance(event["from"], str) and event["from"]


async def test_an_event_without_id_path_or_data_is_taken_and_never_taken_for_another(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        cursors = [await gateway.event("tick") for _ in range(3)]
        assert len(set(cursors)) == 3
        heard = await client.hears(cursors, by="cursor")
        assert len({event["id"] for event in heard}) == 3


async def test_a_client_with_the_right_sends_events_under_its_own_name(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener, sender = await crew.client(edge=0), await crew.client(edge=1, subject="bob")
        await listener.subscribe(f"{building}/*", lanes=EVENT)
        names = ids("note", 2)
        await sender.event("note", to=address, id=names[0], data="a", at_ms=1, cursor="mine", of="b9/g9", **{"from": "client:root"})
        await sender.event("note", to=f"{building}/_", id=names[1])
        heard = await listener.hears(names)
        assert [event["from"] for event in heard] == ["client:bob"] * 2
        assert [event["of"] for event in heard] == [address, f"{building}/_"]
        assert heard[0]["at_ms"] > 1 and heard[0]["cursor"] != "mine"


# Deduplication

async def test_an_id_is_stored_once_also_when_it_is_repeated_through_another_edge(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        await client.subscribe(address, lanes=EVENT)
        name, last = ids("ring", 2)
        gateway = await crew.session(token, edge=0)
        cursors = {await gateway.event(id=name) for _ in range(3)}
        again = await crew.session(token, edge=1)
        cursors |= {await again.event(id=name, data="ignored") for _ in range(3)}
        assert len(cursors) == 1
        await again.event(id=last)
        await client.hears([name, last])


async def test_an_id_sent_many_times_at_once_is_stored_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, sender = await crew.client(edge=1), [await crew.client(edge=edge) for edge in (0, 1)]
        await client.subscribe(address, lanes=EVENT)
        name, last = ids("note", 2)
        body = {"to": address, "id": name, "type": "note"}
        answers = await asyncio.gather(*(one.ask_all("event", [body] * 20) for one in sender))
        assert len({reply["cursor"] for replies in answers for reply in replies}) == 1
        await sender[0].event(to=address, id=last)
        await client.hears([name, last])


async def test_the_same_id_of_another_sender_or_at_another_address_is_another_event(server, building):
    here, there = f"{building}/g1", f"{building}/g2"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*", lanes=EVENT)
        gateway = await crew.gateway(here, edge=0)
        alice, bob = await crew.client(edge=0), await crew.client(edge=0, subject="bob")
        (name,) = ids("same", 1)
        cursors = [await gateway.event(id=name), await alice.event(to=here, id=name), await bob.event(to=here, id=name),
                   await alice.event(to=there, id=name)]
        assert len(set(cursors)) == 4
        await client.hears(cursors, by="cursor")


# Who hears what

@pytest.mark.parametrize(("filters", "expected"), [
    (["hall/bell"], {"hall/bell"}),
    (["hall/+"], {"hall/bell", "hall/lock"}),
    (["hall/#"], {"hall/bell", "hall/lock", "hall/bell/left"}),
    (["+/bell", "kitchen/#"], {"hall/bell", "kitchen/oven"}),
    (["cellar/#"], set()),
])
async def test_path_filters_let_through_exactly_what_they_name(server, building, filters, expected):
    address = f"{building}/g1"
    paths = ["hall/bell", "hall/lock", "kitchen/oven", "hall/bell/left"]
    async with Crew(server) as crew:
        gateway, client, control = await crew.gateway(address), await crew.client(edge=1), await crew.client(edge=1)
        start = (await control.ping())["cursor"]
        await client.subscribe(address, lanes=EVENT, path=filters)
        await control.subscribe(address, lanes=EVENT)
        for path in paths:
            await gateway.event(path=path)
        await control.hears(paths, by="path")
        wanted = [path for path in paths if path in expected]
        await client.hears(wanted, by="path")
        # A replay passes the same filter.
        later = await crew.client(edge=0)
        await later.subscribe(address, lanes=EVENT, path=filters, cursor=start)
        await later.hears(wanted, by="path")


async def test_overlapping_subscriptions_deliver_an_event_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        await client.subscribe(f"{building}/*", lanes=EVENT)
        await client.subscribe("*/*", lanes=EVENT, path=["hall/#"])
        names = ids("ring", 5)
        for name in names:
            await gateway.event(id=name, path="hall/bell")
        await client.hears(names, of=address)


async def test_overlapping_filters_deliver_their_union_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT, path=["hall/#"])
        await client.subscribe(f"{building}/*", lanes=EVENT, path=["+/bell"])
        for path in ("kitchen/oven", "hall/bell", "kitchen/bell", "hall/lock"):
            await gateway.event(path=path)
        await client.hears(["hall/bell", "kitchen/bell", "hall/lock"], by="path")


async def test_neighbours_and_the_other_lanes_bring_no_events(server, building):
    async with Crew(server) as crew:
        gateway, neighbour = await crew.gateway(f"{building}/g1"), await crew.gateway(f"{building}x/g1", edge=1)
        client, stateful = await crew.client(edge=1), await crew.client(edge=1)
        await client.subscribe(f"{building}/*", lanes=EVENT)
        await stateful.subscribe(f"{building}/*", lanes=["state", "presence", "live"])
        name, other = ids("ring", 2)
        await neighbour.event(id=other)
        await gateway.event(id=name)
        await client.hears([name])
        assert [f["t"] for f in client.frames if f["t"] in ("snapshot", "state", "presence")] == []
        await stateful.ping()
        assert stateful.events() == []


async def test_after_the_ok_to_unsubscribe_no_event_comes(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client, control = await crew.gateway(address), await crew.client(edge=1), await crew.client(edge=1)
        for listener in (client, control):
            await listener.subscribe(address, lanes=EVENT)
        await client.ask("unsubscribe", to=address)
        (name,) = ids("ring", 1)
        await gateway.event(id=name)
        await control.hears([name])
        await client.ping()
        assert client.events() == []


@pytest.mark.parametrize("to", ["{b}/_", "_/_"])
async def test_notices_reach_the_gateways_that_listen(server, building, to):
    notices = to.format(b=building)
    async with Crew(server) as crew:
        gateways = [await crew.gateway(f"{building}/g{number}", edge=number) for number in (0, 1)]
        deaf = await crew.gateway(f"{building}/g2", edge=1)
        for gateway in gateways:
            await gateway.subscribe(notices, lanes=EVENT)
        clerk, dashboard = await crew.client(edge=1), await crew.client(edge=0)
        await dashboard.subscribe("*/*" if notices == "_/_" else f"{building}/*", lanes=EVENT)
        (name,) = ids("notice", 1)
        await clerk.event("notice", to=notices, id=name, data={"text": "water off at noon"})
        for listener in [*gateways, dashboard]:
            (event,) = await listener.hears([name], of=notices)
            assert event["data"] == {"text": "water off at noon"} and event["type"] == "notice"
        await deaf.ping()
        assert deaf.events() == []


async def test_a_gateway_that_was_away_resumes_notices_with_its_cursor(server, building):
    notices = f"{building}/_"
    async with Crew(server) as crew:
        clerk, token = await crew.client(edge=1), await server.gateway_token(f"{building}/g1")
        gateway = await crew.session(token, edge=0)
        await gateway.subscribe(notices, lanes=EVENT)
        first, *rest = ids("notice", 4)
        await clerk.event("notice", to=notices, id=first)
        (event,) = await gateway.hears([first])
        await gateway.close()
        for name in rest:
            await clerk.event("notice", to=notices, id=name)
        again = await crew.session(token, edge=1)
        await again.subscribe(notices, lanes=EVENT, cursor=event["cursor"])
        await again.hears(rest)


async def test_seen_is_an_event_that_names_the_notice(server, building):
    notices = f"{building}/_"
    async with Crew(server) as crew:
        clerk, tenant = await crew.client(edge=1), await crew.client(edge=0, subject="bob",
                                                                    grants=[{"to": f"{building}/*", "may": ["read"]}])
        for one in (clerk, tenant):
            await one.subscribe(notices, lanes=EVENT)
        (name,) = ids("notice", 1)
        await clerk.event("notice", to=notices, id=name)
        await tenant.hears([name])
        await tenant.ask("seen", of=notices, id=name)
        await clerk.hears(["notice", "seen"], by="type")
        seen = clerk.events()[-1]
        assert seen["data"] == {"id": name} and seen["of"] == notices and seen["from"] == "client:bob"
        # Who has seen it has seen it.
        await tenant.ask("seen", of=notices, id=name)
        # Stored like every other event.
        page = (await server.api("GET", f"/v1/events?to={notices}&cursor={clerk.events()[0]['cursor']}")).json()
        assert [(event["type"], event["data"]) for event in page["events"]] == [("seen", {"id": name})]


# Size

def padded(frame: dict, length: int) -> str:
    """The frame as text of exactly this many bytes, filled up in `data`."""
    empty = json.dumps({**frame, "data": ""}, separators=(",", ":"))
    return json.dumps({**frame, "data": "x" * (length - len(empty))}, separators=(",", ":"))


async def test_an_event_that_fills_a_message_is_stored_delivered_and_replayed(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        start = (await client.ping())["cursor"]
        await client.subscribe(address, lanes=EVENT)
        (name,) = ids("large", 1)
        await gateway.send(padded({"t": "event", "n": 900, "id": name, "type": "photo"}, 65_536))
        reply = await gateway.receive(lambda f: f.get("n") == 900, "an answer")
        assert reply["t"] == "ok"
        later = await crew.client(edge=0)
        await later.subscribe(address, lanes=EVENT, cursor=start)
        for listener in (client, later):
            (event,) = await listener.hears([name])
            assert set(event["data"]) == {"x"} and len(event["data"]) > 65_000
        page = (await server.api("GET", f"/v1/events?to={address}&cursor={start}")).json()
        assert [event["id"] for event in page["events"]] == [name]


async def test_an_event_beyond_a_message_ends_the_session_and_is_not_stored(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        large, name = ids("large", 2)
        await gateway.send(padded({"t": "event", "n": 900, "id": large, "type": "photo"}, 65_537))
        assert await gateway.ended() == 1009
        again = await crew.gateway(address, edge=1)
        await again.event(id=name)
        await client.hears([name])
