"""Section 9's calls for commands and events, from a tenant's back end."""

from __future__ import annotations

import asyncio

import pytest

from harness.exchange import ids, statuses
from harness.peers import Crew
from harness.web import Answer, call

COMMAND = {"path": "hall/lock", "action": "unlock"}


async def post(server, address: str, edge: int = 0, **body) -> Answer:
    return await server.api("POST", "/v1/commands", edge=edge, body={"to": address, **COMMAND, **body})


async def listed(server, query: str, edge: int = 0) -> dict:
    answer = await server.api("GET", f"/v1/commands?{query}", edge=edge)
    assert answer.status == 200, answer.body
    return answer.json()


# Commands

async def test_a_command_is_answered_202_at_once_and_can_be_looked_up_at_every_edge(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        answer = await post(server, address, edge=1, args={"for_s": 5})
        assert answer.status == 202, answer.body
        cmd = answer.json()["cmd"]
        command = await gateway.commanded(cmd)
        assert command["args"] == {"for_s": 5} and isinstance(command["by"], str) and command["by"]
        await gateway.result(cmd, "running", data=1)
        for edge in (0, 1):
            record = (await server.api("GET", f"/v1/commands/{cmd}", edge=edge)).json()
            assert record["cmd"] == cmd and record["of"] == address
            assert statuses(record["outcomes"]) == ["sent", "running"]
            assert [outcome["final"] for outcome in record["outcomes"]] == [False, False]
        await gateway.result(cmd, "succeeded", code="ok", data={"opened": True})
        assert await server.decided(cmd) == ["sent", "running", "succeeded"]
        last = (await server.api("GET", f"/v1/commands/{cmd}", edge=1)).json()["outcomes"][-1]
        assert (last["code"], last["data"]) == ("ok", {"opened": True}) and isinstance(last["at_ms"], int)


@pytest.mark.parametrize("edge", [0, 1])
async def test_wait_final_brings_all_outcomes_in_one_answer(server, building, edge):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        asking = asyncio.create_task(post(server, address, edge=edge, wait="final"))
        cmd = (await gateway.commanded())["cmd"]
        await gateway.result(cmd, "received")
        await gateway.result(cmd, "running", data=1)
        await gateway.result(cmd, "failed", code="jammed", data=2)
        answer = await asking
        assert answer.status == 200, answer.body
        record = answer.json()
        assert record["cmd"] == cmd and record["of"] == address
        assert statuses(record["outcomes"]) == ["sent", "received", "running", "failed"]
        assert (record["outcomes"][-1]["code"], record["outcomes"][-1]["data"]) == ("jammed", 2)
        assert await server.decided(cmd) == ["sent", "received", "running", "failed"]


@pytest.mark.parametrize(("fields", "told"), [
    ({}, ["offline"]),
    ({"if_offline": "hold", "deadline_ms": 300}, ["held", "expired"]),
], ids=["offline", "expired"])
async def test_wait_final_ends_without_a_gateway_as_well(server, building, fields, told):
    answer = await post(server, f"{building}/g1", edge=1, wait="final", **fields)
    assert answer.status == 200, answer.body
    assert statuses(answer.json()["outcomes"]) == told


async def test_wait_final_ends_unknown_when_the_gateway_says_nothing(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        await crew.gateway(address, edge=0)
        answer = await post(server, address, edge=1, wait="final", deadline_ms=500)
        assert answer.status == 200, answer.body
        assert statuses(answer.json()["outcomes"]) == ["sent", "unknown"]


async def test_a_caller_that_hangs_up_does_not_take_its_command_along(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        asking = asyncio.create_task(post(server, address, edge=1, wait="final"))
        cmd = (await gateway.commanded())["cmd"]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await gateway.result(cmd, "succeeded")
        assert await server.decided(cmd) == ["sent", "succeeded"]


async def test_the_commands_of_an_address_are_listed_newest_first_and_in_pages(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmds = []
        for number in range(7):
            cmds.append(await client.command(address, path=f"door/{number}", action="unlock"))
            await gateway.commanded(cmds[-1])
        await gateway.result(cmds[2], "succeeded", data="two")
        await client.final(cmds[2])
        await client.command(f"{building}/g2")
        for edge in (0, 1):
            page = await listed(server, f"to={address}", edge)
            assert [entry["cmd"] for entry in page["commands"]] == cmds[::-1]
            assert page.get("next") is None
            entry = page["commands"][4]
            assert (entry["of"], entry["path"], entry["action"], entry["by"]) == (address, "door/2", "unlock", "client:alice")
            assert statuses(entry["outcomes"]) == ["sent", "succeeded"] and entry["outcomes"][-1]["data"] == "two"
            assert entry["at_ms"] < entry["deadline_at_ms"] <= entry["at_ms"] + 10_000
            got, query = [], f"to={address}&limit=3"
            for size in (3, 3, 1):
                page = await listed(server, query, edge)
                assert len(page["commands"]) == size
                got += [entry["cmd"] for entry in page["commands"]]
                query = f"to={address}&limit=3&cursor={page.get('next')}"
            assert got == cmds[::-1] and page.get("next") is None


async def test_a_page_goes_on_where_the_one_before_ended_whatever_comes_meanwhile(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        cmds = [await client.command(address) for _ in range(4)]
        page = await listed(server, f"to={address}&limit=2")
        await client.command(address)
        rest = await listed(server, f"to={address}&limit=2&cursor={page['next']}")
        assert [entry["cmd"] for entry in page["commands"] + rest["commands"]] == cmds[::-1]


async def test_an_address_without_commands_has_an_empty_list(server, building):
    page = await listed(server, f"to={building}/g1")
    assert page["commands"] == [] and page.get("next") is None


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}", b'{"to":"b1/g1","to":"b1/g2","path":"a","action":"x"}',
    {"to": "nowhere", **COMMAND}, {"to": "b1/_", **COMMAND}, {"to": "b1/*", **COMMAND}, {"to": 7, **COMMAND},
    {"to": "b1/g1", "action": "unlock"}, {"to": "b1/g1", "path": "hall/lock"}, {"to": "b1/g1", **COMMAND, "path": "a//b"},
    {"to": "b1/g1", **COMMAND, "deadline_ms": 0}, {"to": "b1/g1", **COMMAND, "deadline_ms": 365 * 86_400_000},
    {"to": "b1/g1", **COMMAND, "key": ""}, {"to": "b1/g1", **COMMAND, "key": "k" * 129},
    {"to": "b1/g1", **COMMAND, "if_offline": "wait"}, {"to": "b1/g1", **COMMAND, "wait": "forever"},
    {"to": "b1/g1", **COMMAND, "wait": True}, {"to": "b1/g1", **COMMAND, "wait": 7},
], ids=str)
async def test_a_command_that_makes_no_sense_is_a_problem(server, body):
    answer = await server.api("POST", "/v1/commands", body=body)
    assert answer.status in (400, 422), (answer.status, answer.body)
    assert answer.problem()["code"] == "bad_frame"


@pytest.mark.parametrize("target", [
    "/v1/commands", "/v1/commands?to=", "/v1/commands?to=nowhere", "/v1/commands?to=b1/*", "/v1/commands?to=b1/g1&limit=0",
    "/v1/commands?to=b1/g1&limit=x", "/v1/commands?to=b1/g1&limit=-1", "/v1/commands?to=b1/g1&limit=99999999999999999999",
    "/v1/commands?to=b1/g1&colour=red", "/v1/commands?to=b1/g1&cursor=%00", "/v1/commands?to=b1/g1&to=b1/g2",
    "/v1/events", "/v1/events?to=", "/v1/events?to=nowhere", "/v1/events?to=b1/*&limit=0", "/v1/events?to=b1/*&limit=x",
    "/v1/events?to=b1/*&colour=red", "/v1/events?to=b*/g1",
])
async def test_a_query_that_makes_no_sense_is_a_problem(server, target):
    answer = await server.api("GET", target)
    assert answer.status in (400, 422), (answer.status, answer.body)
    assert answer.problem()["code"] == "bad_frame"


@pytest.mark.parametrize("cmd", ["x", "b1.g1.00000000000000000000000000000000.1", "%2e%2e", "a" * 192, "a" * 500, "%00", "a%20b", "*"])
async def test_a_command_that_is_not_known_is_not_found(server, cmd):
    answer = await server.api("GET", f"/v1/commands/{cmd}")
    assert answer.status in (404, 400), answer.status
    assert answer.problem()["code"] in ("not_found", "bad_frame")


@pytest.mark.parametrize(("method", "target"), [
    ("PUT", "/v1/commands"), ("DELETE", "/v1/commands"), ("POST", "/v1/commands/x"), ("DELETE", "/v1/commands/x"),
    ("POST", "/v1/events"), ("GET", "/v1/events/b1/g1"), ("PUT", "/v1/events/b1/g1"), ("DELETE", "/v1/events"),
])
async def test_a_wrong_method_is_refused(server, method, target):
    answer = await server.api(method, target, body={} if method in ("PUT", "POST") else None)
    assert answer.status in (404, 405), answer.status
    answer.problem()


CALLS = [("POST", "/v1/commands", {"to": "{b}/g1", **COMMAND}), ("GET", "/v1/commands?to={b}/g1", None), ("GET", "/v1/commands/{cmd}", None),
         ("POST", "/v1/events/{b}/g1", {"type": "note"}), ("GET", "/v1/events?to={b}/g1", None)]


@pytest.mark.parametrize(("method", "target", "body"), CALLS)
async def test_every_call_needs_a_good_key_and_the_right(server, building, method, target, body):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client, listener = await crew.gateway(address), await crew.client(edge=1), await crew.client(edge=1)
        await listener.subscribe(address, lanes=["event"])
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        target = target.format(b=building, cmd=cmd)
        body = body and {**body, **({"to": address} if "to" in body else {})}
        for key, status in ((None, 401), ("nonsense", 401), (server.api_key[:-1] + "#", 401)):
            answer = await call(server.http(0), method, target, key=key, body=body)
            assert answer.status == status, (key, answer.status)
            answer.problem()
        elsewhere = await server.client_token([{"to": f"{building}x/*", "may": ["read", "command", "event", "listen", "speak"]}])
        other_verb = await server.client_token([{"to": "*/*", "may": ["listen", "speak"]}])
        for key in (elsewhere, other_verb, await server.gateway_token(f"{building}/g2")):
            answer = await call(server.http(1), method, target, key=key, body=body)
            # Of a command that is not theirs they need not even be told that it is there.
            assert answer.status == 403 or (answer.status == 404 and cmd in target), (answer.status, answer.body)
            answer.problem()
        await gateway.ping()
        await listener.ping()
        assert len(gateway.commands()) == 1 and listener.events() == []


# Events

@pytest.mark.parametrize("where", ["{b}/g1", "{b}/_", "_/_"])
async def test_an_event_of_the_back_end_is_stored_and_delivered(server, building, where):
    address = where.format(b=building)
    async with Crew(server) as crew:
        listeners = [await crew.client(edge=edge) for edge in (0, 1)]
        for listener in listeners:
            await listener.subscribe(address, lanes=["event"])
        names = ids("n", 2)
        for edge, name in enumerate(names):
            body = {"id": name, "type": "notice", "path": "a/b", "data": {"x": 1}, "ts_ms": 5}
            answer = await server.api("POST", f"/v1/events/{address}", edge=edge, body=body)
            assert answer.status == 201, answer.body
            again = await server.api("POST", f"/v1/events/{address}", edge=1 - edge, body=body)
            assert again.json()["cursor"] == answer.json()["cursor"]
        for listener in listeners:
            heard = await listener.hears(names, of=address)
            assert heard[-1]["cursor"] == answer.json()["cursor"]
            assert (heard[0]["type"], heard[0]["path"], heard[0]["data"], heard[0]["ts_ms"]) == ("notice", "a/b", {"x": 1}, 5)


async def test_events_are_read_in_pages_by_cursor(server, building):
    address, other = f"{building}/g1", f"{building}/g2"
    names = ids("e", 25)
    async with Crew(server) as crew:
        start = (await (await crew.client()).ping())["cursor"]
        gateway, neighbour = await crew.gateway(address, edge=0), await crew.gateway(other, edge=1)
        cursors = []
        for name in names:
            cursors.append(await gateway.event("tick", id=name, data=name, path="a"))
            await neighbour.event("tock")
        for edge in (0, 1):
            got, cursor = [], start
            while True:
                page = (await server.api("GET", f"/v1/events?to={address}&cursor={cursor}&limit=10", edge=edge)).json()
                assert page["gap"] is False and len(page["events"]) <= 10
                if not page["events"]:
                    break
                got += page["events"]
                cursor = page["cursor"]
            assert [event["id"] for event in got] == names
            assert [event["cursor"] for event in got] == cursors
            assert all((event["of"], event["type"], event["path"]) == (address, "tick", "a") for event in got)
            both = (await server.api("GET", f"/v1/events?to={building}/*&cursor={start}&limit=50", edge=edge)).json()
            assert len(both["events"]) == 50
            rest = (await server.api("GET", f"/v1/events?to={address}&cursor={cursors[-2]}", edge=edge)).json()
            assert [event["id"] for event in rest["events"]] == names[-1:]
            # The page's cursor is good for a socket as well.
            client = await crew.client(edge=1 - edge)
            await client.subscribe(address, lanes=["event"], cursor=rest["cursor"])
            assert client.events() == [] and [f for f in client.frames if f["t"] == "gap"] == []


async def test_a_cursor_that_is_not_known_is_told_as_a_gap(server, building):
    address = f"{building}/g1"
    names = ids("e", 3)
    for name in names:
        assert (await server.api("POST", f"/v1/events/{address}", body={"id": name, "type": "x"})).status == 201
    page = (await server.api("GET", f"/v1/events?to={address}&cursor=nonsense", edge=1)).json()
    assert page["gap"] is True and [event["id"] for event in page["events"]] == names


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", {"type": ""}, {"type": 7}, {"type": "x", "id": ""}, {"type": "x", "path": "a//b"},
    {"type": "x" * 65}, {"type": "x", "id": "x" * 129}, {"type": "x", "ts_ms": "noon"}, b'{"type":"x","type":"y"}',
], ids=str)
async def test_an_event_that_makes_no_sense_is_a_problem(server, body):
    answer = await server.api("POST", "/v1/events/b1/g1", body=body)
    assert answer.status in (400, 422), (answer.status, answer.body)
    assert answer.problem()["code"] == "bad_frame"


@pytest.mark.parametrize("target", ["/v1/events/b1", "/v1/events/b1/g1/x", "/v1/events/b1/*", "/v1/events/b%2A/g1", "/v1/events/-/g1", "/v1/events/b1/%00"])
async def test_an_event_for_no_address_is_a_problem(server, target):
    answer = await server.api("POST", target, body={"type": "x"})
    assert answer.status in (400, 404), answer.status
    answer.problem()


@pytest.mark.parametrize("target", ["/v1/commands", "/v1/events/b1/g1"])
async def test_a_body_without_end_is_refused_in_bounded_memory(server, target):
    before = server.rss_bytes()
    body = b'{"to":"b1/g1","path":"a","action":"x","type":"x","data":"' + b"a" * (32 * 1024 * 1024) + b'"}'
    try:
        answer = await server.api("POST", target, body=body)
        assert answer.status in (400, 413), answer.status
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # Refused before all of it was sent, and the answer went with the connection.
    assert server.rss_bytes() - before < 16 * 1024 * 1024
    assert (await server.api("GET", "/v1/presence?building=b1")).status == 200


async def test_an_event_as_large_as_a_frame_is_taken(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        listener = await crew.client(edge=1)
        await listener.subscribe(address, lanes=["event"])
        (name,) = ids("large", 1)
        answer = await server.api("POST", f"/v1/events/{address}", body={"id": name, "type": "x", "data": "x" * 60_000})
        assert answer.status == 201, answer.body
        (event,) = await listener.hears([name])
        assert len(event["data"]) == 60_000
