"""Section 4's subscriptions across two edges: patterns, path filters, overlaps, replacing, unsubscribing, rights."""

from __future__ import annotations

import itertools

import pytest

from harness.peers import Crew

READ = ["read"]
_MARKS = itertools.count(1)


def values_seen(client, path: str, since: int = 0) -> list:
    """Every value of a path that came in a state frame, in order."""
    return [f["set"][path] for f in client.frames[since:] if f["t"] == "state" and path in f.get("set", {})]


def paths_seen(client, since: int = 0) -> set[str]:
    """Every path that any frame named."""
    seen: set[str] = set()
    for frame in client.frames[since:]:
        for field in ("set", "state", "stale", "fresh"):
            seen |= set(frame.get(field) or ())
    return seen


async def caught_up(gateway, *clients, address: str) -> None:
    """Sets a path of its own and waits until every client has it: what was sent before has arrived then."""
    mark = next(_MARKS)
    await gateway.set({"marker": mark})
    for client in clients:
        await client.until(lambda c=client: c.view.of(address).state.get("marker") == mark, "the marker")


async def test_an_exact_address_shows_this_gateway_and_no_other(server, building):
    async with Crew(server) as crew:
        wanted, other = await crew.gateway(f"{building}/g1"), await crew.gateway(f"{building}/g2")
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/g1")
        await other.set({"a": "other"})
        await wanted.set({"a": "wanted"})
        await client.knows(f"{building}/g1", {"a": "wanted"})
        assert {f["of"] for f in client.frames if "of" in f} == {f"{building}/g1"}


async def test_a_building_pattern_shows_all_its_gateways_and_no_neighbour(server, building):
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*")
        # The neighbour's name begins with the building's: a prefix is not a building.
        outside = await crew.gateway(f"{building}x/g1", edge=1)
        await outside.set({"a": 0})
        for number in (1, 2, 3):
            gateway = await crew.gateway(f"{building}/g{number}", edge=number % 2)
            await gateway.set({"a": number})
        for number in (1, 2, 3):
            await client.knows(f"{building}/g{number}", {"a": number})
            assert client.view.of(f"{building}/g{number}").online is True
        assert all(f["of"].startswith(f"{building}/") for f in client.frames if "of" in f)


async def test_the_pattern_for_everything_shows_all_buildings(server, building):
    async with Crew(server) as crew:
        early = await crew.gateway(f"{building}/g1", edge=0)
        await early.set({"a": 1})
        client = await crew.client(edge=1)
        await client.subscribe("*/*")
        assert client.view.of(f"{building}/g1").state == {"a": 1}
        late = await crew.gateway(f"{building}y/g1", edge=0)
        await late.set({"a": 2})
        await client.knows(f"{building}y/g1", {"a": 2})


async def test_snapshots_come_for_online_gateways_and_for_offline_ones_with_state(server, building):
    async with Crew(server) as crew:
        silent = await crew.gateway(f"{building}/silent")
        gone = await crew.gateway(f"{building}/gone")
        await gone.set({"a": 1})
        await gone.close()
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*")
        shown = {f["of"]: f["online"] for f in client.frames if f["t"] == "snapshot"}
        assert shown == {f"{building}/silent": True, f"{building}/gone": False}
        await silent.ping()


@pytest.mark.parametrize(("filters", "expected"), [
    (["kitchen/light"], {"kitchen/light"}),
    (["kitchen/+"], {"kitchen/light", "kitchen/oven"}),
    (["+/light"], {"kitchen/light", "hall/light"}),
    (["+/+/door"], {"kitchen/oven/door"}),
    (["#"], {"kitchen/light", "kitchen/oven", "kitchen/oven/door", "hall/light", "marker"}),
    (["kitchen/oven/#", "hall/light"], {"kitchen/oven/door", "hall/light"}),
    (["+"], {"marker"}),
    (["cellar/#"], set()),
])
async def test_path_filters_let_through_exactly_what_they_name(server, building, filters, expected):
    address = f"{building}/g1"
    values = {"kitchen/light": 1, "kitchen/oven": 2, "kitchen/oven/door": 3, "hall/light": 4}
    # A final # stands for the rest; whether that may be empty is left open by the page.
    open_question = {"kitchen/oven"} if "kitchen/oven/#" in filters else set()
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        await gateway.set(values)
        client, control = await crew.client(edge=1), await crew.client(edge=1)
        await client.subscribe(address, path=filters)
        await control.subscribe(address)
        assert set(client.view.of(address).state) - open_question == expected - {"marker"}
        await gateway.set({path: value + 10 for path, value in values.items()})
        await caught_up(gateway, control, address=address)
        await client.until(lambda: set(client.view.of(address).state) - open_question == expected, str(expected))
        await client.ping()
        assert paths_seen(client) - open_question == expected
        for path in expected - {"marker"}:
            assert client.view.of(address).state[path] == values[path] + 10


async def test_overlapping_subscriptions_deliver_a_change_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        client = await crew.client(edge=1)
        for pattern in (address, f"{building}/*", "*/*"):
            await client.subscribe(pattern)
        mark = len(client.frames)
        for count in range(5):
            await gateway.set({"a": count})
            await client.knows(address, {"a": count})
        await caught_up(gateway, client, address=address)
        await client.ping()
        assert values_seen(client, "a", since=mark) == [0, 1, 2, 3, 4]


async def test_overlapping_filters_deliver_their_union_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        client = await crew.client(edge=1)
        await client.subscribe(address, path=["kitchen/#", "marker"])
        await client.subscribe(f"{building}/*", path=["+/light"])
        mark = len(client.frames)
        await gateway.set({"kitchen/light": 1, "hall/light": 2, "kitchen/oven": 3, "hall/lock": 4})
        await caught_up(gateway, client, address=address)
        await client.ping()
        seen = {path: values_seen(client, path, mark) for path in
                ("kitchen/light", "hall/light", "kitchen/oven", "hall/lock")}
        assert seen == {"kitchen/light": [1], "hall/light": [2], "kitchen/oven": [3], "hall/lock": []}


async def test_presence_is_delivered_once_to_overlapping_subscriptions(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        for pattern in (address, f"{building}/*", "*/*"):
            await client.subscribe(pattern)
        gateway = await crew.gateway(address, edge=0)
        await client.sees_online(address, True)
        await gateway.close()
        await client.sees_online(address, False)
        await client.ping()
        shown = [(f["online"], f["epoch"]) for f in client.view.of(address).presence]
        assert shown == [(True, gateway.welcome["epoch"]), (False, gateway.welcome["epoch"])]


async def test_subscribing_again_replaces_filter_and_brings_a_new_snapshot(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        await gateway.set({"kitchen/light": 1, "hall/lock": 2})
        client = await crew.client(edge=1)
        await client.subscribe(address, path=["kitchen/#", "marker"])
        mark = len(client.frames)
        await client.subscribe(address, path=["hall/#", "marker"])
        snapshot = await client.receive(lambda f: f["t"] == "snapshot", "a new snapshot", since=mark)
        assert snapshot["state"] == {"hall/lock": 2}
        mark = len(client.frames)
        await gateway.set({"kitchen/light": 3, "hall/lock": 4})
        await caught_up(gateway, client, address=address)
        assert values_seen(client, "hall/lock", mark) == [4]
        assert values_seen(client, "kitchen/light", mark) == []


async def test_after_the_ok_to_unsubscribe_nothing_more_of_it_comes(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        client, control = await crew.client(edge=1), await crew.client(edge=1)
        for watcher in (client, control):
            await watcher.subscribe(f"{building}/*")
        await client.ask("unsubscribe", to=f"{building}/*")
        mark = len(client.frames)
        await gateway.set({"a": 1})
        await control.knows(address, {"a": 1})
        await gateway.close()
        await control.sees_online(address, False)
        await client.ping()
        assert [f["t"] for f in client.frames[mark:]] == ["pong"]


async def test_unsubscribing_one_of_two_overlapping_leaves_the_other(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        client = await crew.client(edge=1)
        await client.subscribe(address)
        await client.subscribe(f"{building}/*")
        await client.ask("unsubscribe", to=f"{building}/*")
        await gateway.set({"a": 1})
        await client.knows(address, {"a": 1})


async def test_the_state_lane_alone_brings_no_presence_frames(server, building):
    async with Crew(server) as crew:
        client, control = await crew.client(edge=1), await crew.client(edge=1)
        await client.subscribe(f"{building}/*", lanes=["state"])
        await control.subscribe(f"{building}/*")
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        await gateway.set({"a": 1})
        await gateway.close()
        await control.sees_online(f"{building}/g1", False)
        await client.ping()
        assert [f for f in client.frames if f["t"] == "presence"] == []


async def test_the_presence_lane_alone_brings_no_values(server, building):
    async with Crew(server) as crew:
        client, control = await crew.client(edge=1), await crew.client(edge=1)
        await client.subscribe(f"{building}/*", lanes=["presence"])
        await control.subscribe(f"{building}/*")
        gateway = await crew.gateway(f"{building}/g1", edge=0)
        await client.sees_online(f"{building}/g1", True)
        await gateway.set({"a": 1})
        await control.knows(f"{building}/g1", {"a": 1})
        await client.ping()
        assert paths_seen(client) == set()


# Rights

@pytest.mark.parametrize(("grants", "pattern"), [
    (["{b}/*"], "*/*"),
    (["{b}/*"], "{b}x/*"),
    (["{b}/*"], "{b}x/g1"),
    (["{b}/g1"], "{b}/*"),
    (["{b}/g1"], "{b}/g2"),
    (["{b}/g1"], "{b}/g11"),
    (["{b}/g1", "{b}/g2"], "{b}/*"),
])
async def test_a_pattern_outside_every_grant_is_forbidden(server, building, grants, pattern):
    async with Crew(server) as crew:
        mine = [{"to": to.format(b=building), "may": READ} for to in grants]
        client = await crew.client(edge=1, grants=mine)
        code = await client.refused("subscribe", to=pattern.format(b=building), lanes=["state"])
        assert code == "forbidden"
        await client.ping()


@pytest.mark.parametrize(("grant", "pattern"), [
    ("{b}/*", "{b}/*"), ("{b}/*", "{b}/g1"), ("{b}/g1", "{b}/g1"), ("*/*", "{b}/*"), ("*/*", "*/*"),
])
async def test_a_pattern_within_a_grant_is_allowed(server, building, grant, pattern):
    async with Crew(server) as crew:
        client = await crew.client(edge=1, grants=[{"to": grant.format(b=building), "may": READ}])
        await client.subscribe(pattern.format(b=building))


async def test_without_the_right_to_read_state_is_forbidden(server, building):
    async with Crew(server) as crew:
        client = await crew.client(edge=1, grants=[{"to": f"{building}/*", "may": ["command"]}])
        assert await client.refused("subscribe", to=f"{building}/g1", lanes=["state"]) == "forbidden"


async def test_a_grant_for_some_paths_shows_no_others(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        await gateway.set({"hall/lock": 1, "kitchen/light": 2})
        grant = {"to": address, "path": ["hall/#"], "may": READ}
        client = await crew.client(edge=1, grants=[grant])
        await client.subscribe(address, path=["hall/#"])
        control = await crew.client(edge=1)
        await control.subscribe(address)
        await gateway.set({"hall/lock": 3, "kitchen/light": 4})
        await caught_up(gateway, control, address=address)
        await client.knows(address, {"hall/lock": 3})
        await client.ping()
        assert paths_seen(client) == {"hall/lock"}


async def test_a_subscription_wider_than_a_grants_paths_never_shows_the_rest(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        await gateway.set({"hall/lock": 1, "kitchen/light": 2})
        grant = {"to": address, "path": ["hall/#"], "may": READ}
        for wider in ({}, {"path": ["#"]}, {"path": ["+/light"]}):
            client = await crew.client(edge=1, grants=[grant])
            # Either it is refused as a whole, or narrowed to what the grant allows.
            await client.send({"t": "subscribe", "n": 1, "to": address, "lanes": ["state"], **wider})
            reply = await client.receive(lambda f: f.get("n") == 1, "an answer")
            assert reply["t"] == "ok" or reply["code"] == "forbidden", reply
            control = await crew.client(edge=1)
            await control.subscribe(address)
            await caught_up(gateway, control, address=address)
            await client.ping()
            assert paths_seen(client) <= {"hall/lock"}


@pytest.mark.parametrize("void", [
    {"to": "{b}/*", "may": ["read", "levitate"]},
    {"to": "{b}/*", "may": ["read"], "tenant": "acme"},
    {"to": "{b}/*", "may": ["READ"]},
    {"to": "{b}/*", "may": []},
])
async def test_a_grant_with_an_unknown_word_or_member_is_void(server, building, void):
    void = {name: value.format(b=building) if isinstance(value, str) else value for name, value in void.items()}
    good = {"to": f"{building}y/*", "may": READ}
    token = server.forge.sign(server.forge.client_claims([void, good]))
    async with Crew(server) as crew:
        client = await crew.session(token, edge=1)
        assert await client.refused("subscribe", to=f"{building}/g1", lanes=["state"]) == "forbidden"
        await client.subscribe(f"{building}y/g1")


async def test_a_grant_with_an_unknown_word_is_not_minted_as_if_it_were_good(server, building):
    answer = await server.api("POST", "/v1/tokens", body={
        "peer": "client", "subject": "bob", "ttl_s": 60, "grants": [{"to": f"{building}/*", "may": ["read", "levitate"]}]})
    if answer.status != 201:
        assert answer.status in (400, 422), answer.status
        answer.problem()
        return
    async with Crew(server) as crew:
        client = await crew.session(answer.json()["token"], edge=1)
        assert await client.refused("subscribe", to=f"{building}/g1", lanes=["state"]) == "forbidden"
