"""Cursors: what was missed comes exactly once and in order, joined to what comes meanwhile; `gap` where it cannot."""

from __future__ import annotations

import asyncio
import random

import pytest

from harness.exchange import ids
from harness.peers import Crew, Peer
from harness.server import Server

EVENT = ["event"]


async def stored(sender: Peer, names: list[str], **fields) -> list[str]:
    """Sends events without waiting in between; returns their cursors in the order of the names."""
    replies = await sender.ask_all("event", [{"id": name, "type": "tick", **fields} for name in names])
    assert {reply["t"] for reply in replies} == {"ok"}, replies
    # One sender's events are answered in the order in which they were sent.
    return [reply["cursor"] for reply in replies]


@pytest.mark.parametrize("edge", [0, 1])
async def test_a_cursor_brings_exactly_what_came_after_it(server, building, edge):
    address = f"{building}/g1"
    names = ids("e", 50)
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        cursors = await stored(gateway, names)
        assert len(set(cursors)) == 50
        for position in (0, 24, 48, 49):
            client = await crew.client(edge=edge)
            await client.subscribe(address, lanes=EVENT, cursor=cursors[position])
            assert [event["id"] for event in client.events()] == names[position + 1:], "not all came before synced"
            assert [event["cursor"] for event in client.events()] == cursors[position + 1:]
            assert [f for f in client.frames if f["t"] == "gap"] == []


async def test_without_a_cursor_nothing_old_comes(server, building):
    address = f"{building}/g1"
    names = ids("e", 10)
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await stored(gateway, names[:5])
        await client.subscribe(address, lanes=EVENT)
        await stored(gateway, names[5:])
        await client.hears(names[5:])


async def test_replays_join_what_comes_meanwhile_without_a_hole_or_a_double(server, building):
    """Listeners come from everywhere in the past while two gateways at two edges go on as fast as they can."""
    addresses = [f"{building}/g{number}" for number in (0, 1)]
    before, during = 200, 400
    chance = random.Random(3)
    async with Crew(server) as crew:
        gateways = [await crew.gateway(address, edge=edge) for edge, address in enumerate(addresses)]
        names = [ids(f"g{number}", before + during) for number in (0, 1)]
        past = [await stored(gateway, mine[:before]) for gateway, mine in zip(gateways, names)]
        sending = [asyncio.create_task(stored(gateway, mine[before:])) for gateway, mine in zip(gateways, names)]
        listeners = []
        for turn in range(12):
            position = chance.randrange(before)
            client = await crew.client(edge=turn % 2)
            # The cursor of one gateway's event is a position among all of the tenant's.
            await client.subscribe(addresses[0], lanes=EVENT, cursor=past[0][position])
            listeners.append((client, position))
        for task in sending:
            await task
        for client, position in listeners:
            await client.hears(names[0][position + 1:], timeout=20)
        # The whole building from one cursor: each gateway's in order, nothing of before.
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*", lanes=EVENT, cursor=past[1][-1])
        await client.until(lambda: len(client.events(addresses[1])) == during, "the second gateway's", 20)
        heard = [event["id"] for event in client.events(addresses[0])]
        assert heard == names[0][-len(heard):] and len(heard) >= during
        assert [event["id"] for event in client.events(addresses[1])] == names[1][before:]


async def test_resubscribing_while_events_come_leaves_no_hole_and_no_double(server, building):
    address = f"{building}/g1"
    # As many as may wait for the store at once, however slow that is.
    names = ids("e", 500)
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        sending = asyncio.create_task(stored(gateway, names, path="hall"))
        for turn in range(20):
            await client.subscribe(address, lanes=EVENT if turn % 2 else ["event", "state"], path=["#"] if turn % 3 else ["+"])
        await sending
        await client.until(lambda: client.events() and client.events()[-1]["id"] == names[-1], "the last event", 20)
        heard = [event["id"] for event in client.events()]
        assert len(heard) == len(set(heard)), "an event came twice"
        assert heard == names, "an event is missing or out of place"


async def test_resubscribing_with_a_cursor_goes_back_to_it(server, building):
    address = f"{building}/g1"
    names = ids("e", 10)
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        cursors = await stored(gateway, names)
        await client.hears(names)
        mark = len(client.frames)
        await client.subscribe(address, lanes=EVENT, cursor=cursors[5])
        await client.hears(names[6:], since=mark)


async def test_the_cursors_of_pong_and_synced_are_good_to_resume_from(server, building):
    address = f"{building}/g1"
    names = ids("e", 9)
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=EVENT)
        await stored(gateway, names[:3])
        await client.hears(names[:3])
        pong = (await client.ping())["cursor"]
        mark = len(client.frames)
        await client.subscribe(address, lanes=EVENT)
        synced = await client.receive(lambda f: f["t"] == "synced", "synced", since=mark)
        await client.close()
        await stored(gateway, names[3:6])
        for edge, cursor in ((0, pong), (1, pong), (0, synced["cursor"]), (1, synced["cursor"])):
            again = await crew.client(edge=edge)
            await again.subscribe(address, lanes=EVENT, cursor=cursor)
            await again.hears(names[3:6])
        # A cursor that was told after a replay stands behind what was replayed.
        after = (await again.ping())["cursor"]
        last = await crew.client(edge=0)
        await last.subscribe(address, lanes=EVENT, cursor=after)
        await stored(gateway, names[6:])
        await last.hears(names[6:])


async def test_a_listener_that_was_away_has_everything_when_it_resumes_at_the_other_edge(server, building):
    address = f"{building}/g1"
    names = ids("e", 100)
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        listener = await crew.client(edge=1)
        await listener.subscribe(address, lanes=EVENT)
        heard, sent = [], 0
        for turn in range(5):
            await stored(gateway, names[sent:sent + 10])
            sent += 10
            await listener.hears(names[len(heard):sent])
            heard += [event["id"] for event in listener.events()]
            cursor = listener.events()[-1]["cursor"]
            await (listener.abort() if turn % 2 else listener.close())
            await stored(gateway, names[sent:sent + 10])
            sent += 10
            listener = await crew.client(edge=turn % 2)
            await listener.subscribe(address, lanes=EVENT, cursor=cursor)
            await listener.hears(names[len(heard):sent])
            heard += [event["id"] for event in listener.events()]
            cursor = listener.events()[-1]["cursor"]
            await listener.close()
            listener = await crew.client(edge=1 - turn % 2)
            await listener.subscribe(address, lanes=EVENT, cursor=cursor)
        assert heard == names


async def test_one_cursor_resumes_all_subscriptions_of_a_session(server, building):
    """It breaks off in the middle of two gateways' events and comes back with the cursor that came to it last."""
    addresses = [f"{building}/g{number}" for number in (0, 1)]
    turns, each = 6, 60
    names = [ids(f"g{number}", turns * each) for number in (0, 1)]
    async with Crew(server) as crew:
        gateways = [await crew.gateway(address, edge=edge) for edge, address in enumerate(addresses)]
        heard: list[dict] = []
        cursor = {}
        for turn in range(turns):
            listener = await crew.client(edge=turn % 2)
            for address in addresses:
                await listener.subscribe(address, lanes=EVENT, **cursor)
            mine = [its[turn * each:(turn + 1) * each] for its in names]
            sending = [asyncio.create_task(stored(gateway, its)) for gateway, its in zip(gateways, mine)]
            await listener.until(lambda: len(listener.events()) >= each, f"{each} events")
            await listener.abort()
            heard += listener.events()
            cursor = {"cursor": [f for f in listener.frames if f["t"] in ("event", "synced")][-1]["cursor"]}
            for task in sending:
                await task
        listener = await crew.client(edge=0)
        for address in addresses:
            await listener.subscribe(address, lanes=EVENT, **cursor)
        await listener.ping()
        heard += listener.events()
        for address, its in zip(addresses, names):
            assert [event["id"] for event in heard if event["of"] == address] == its


async def test_a_wider_subscription_from_further_back_brings_what_none_has_brought(server, building):
    address, other = f"{building}/g1", f"{building}/g2"
    names, others = ids("e", 9), ids("o", 6)
    async with Crew(server) as crew:
        gateway, neighbour, client = await crew.gateway(address, edge=0), await crew.gateway(other, edge=0), await crew.client(edge=1)
        cursors = await stored(gateway, names[:3])
        await stored(neighbour, others[:3])
        await client.subscribe(address, lanes=EVENT)
        await stored(gateway, names[3:6])
        await client.hears(names[3:6])
        await client.subscribe(f"{building}/*", lanes=EVENT, cursor=cursors[0])
        await stored(neighbour, others[3:])
        await stored(gateway, names[6:])
        await client.until(lambda: len(client.events()) >= 8 + 6, "what was missing and what is new")
        await client.ping()
        assert [event["id"] for event in client.events(other)] == others
        assert sorted(event["id"] for event in client.events(address)) == sorted(names[1:]), "missing, or twice"


async def test_clients_that_listen_from_the_start_all_have_the_same_order(server, building):
    """Four senders at two edges, six listeners: one order for all, and the cursors in it."""
    async with Crew(server) as crew:
        listeners = [await crew.client(edge=number % 2) for number in range(6)]
        for listener in listeners:
            await listener.subscribe(f"{building}/*", lanes=EVENT)
        gateways = [await crew.gateway(f"{building}/g{number}", edge=number % 2) for number in range(4)]
        names = [ids(f"s{number}", 100) for number in range(4)]
        await asyncio.gather(*(stored(gateway, mine) for gateway, mine in zip(gateways, names)))
        for listener in listeners:
            await listener.until(lambda one=listener: len(one.events()) >= 400, "400 events", 20)
        orders = [[(event["id"], event["cursor"]) for event in listener.events()] for listener in listeners]
        assert all(order == orders[0] for order in orders)
        for mine in names:
            assert [name for name, _ in orders[0] if name in mine] == mine


# Gaps

def garbled(cursor: str) -> list[str]:
    """Cursors that no broker gave out."""
    return ["x", "-", "-1", "null", "9" * 256, cursor[::-1] + "~", cursor + cursor, "../../" + cursor, " " + cursor,
            cursor + "\u0000", "ü" * 100]


async def test_a_cursor_that_is_garbled_brings_a_gap_and_everything_from_the_oldest(server, building):
    address = f"{building}/g1"
    names = ids("e", 3)
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        cursors = await stored(gateway, names)
        for turn, bad in enumerate(garbled(cursors[1])):
            client = await crew.client(edge=turn % 2)
            await client.subscribe(address, lanes=EVENT, cursor=bad)
            gaps = [f for f in client.frames if f["t"] in ("gap", "event")]
            assert gaps[0] == {"t": "gap", "to": address, "lane": "event"}, (bad, gaps[0])
            assert [event["id"] for event in client.events()] == names, bad
            page = (await server.api("GET", f"/v1/events?to={address}&cursor={hexed(bad)}")).json()
            assert page["gap"] is True and [event["id"] for event in page["events"]] == names, bad


def hexed(text: str) -> str:
    """Text as a value in a query, every byte of it escaped."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


async def test_a_cursor_of_another_life_brings_a_gap(server, building):
    """Another cluster's cursor, of a stream with the same tenant's name: the same as a stream made anew."""
    address = f"{building}/g1"
    names = ids("e", 3)
    other = Server(edges=1)
    try:
        async with Crew(other) as away:
            foreign = await stored(await away.gateway(address), names)
    finally:
        await asyncio.to_thread(other.stop)
    async with Crew(server) as crew:
        await stored(await crew.gateway(address, edge=0), names)
        for cursor in foreign:
            client = await crew.client(edge=1)
            await client.subscribe(address, lanes=EVENT, cursor=cursor)
            assert [f["to"] for f in client.frames if f["t"] == "gap"] == [address]
            assert [event["id"] for event in client.events()] == names


async def test_a_cursor_from_the_future_brings_a_gap(server, building):
    """What a cursor looks like is the broker's own affair, so the numbers in a real one are raised, whatever they are."""
    address = f"{building}/g1"
    names = ids("e", 4)
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        newest = (await stored(gateway, names[:3]))[-1]
        digits = [at for at, letter in enumerate(newest) if letter.isdigit()]
        future = {newest[:at] + "9" + newest[at + 1:] for at in digits[-3:]} - {newest} | {newest + "999999"}
        clients = []
        for cursor in future:
            clients.append(await crew.client(edge=len(clients) % 2))
            await clients[-1].subscribe(address, lanes=EVENT, cursor=cursor)
            assert [f["to"] for f in clients[-1].frames if f["t"] == "gap"] == [address], cursor
        await stored(gateway, names[3:])
        for client in clients:
            await client.hears(names)


async def test_after_a_gap_comes_what_is_new_as_well(server, building):
    address = f"{building}/g1"
    names = ids("e", 300)
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await stored(gateway, names[:100])
        sending = asyncio.create_task(stored(gateway, names[100:]))
        await client.subscribe(address, lanes=EVENT, cursor="nonsense")
        await sending
        await client.hears(names, timeout=20)
