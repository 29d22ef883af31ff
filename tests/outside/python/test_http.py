"""Section 9's part of this version and the admin port."""

from __future__ import annotations

import asyncio
import time

import pytest

from harness.harm import CLOSED, REFUSED
from harness.peers import Crew
from harness.server import EVERYTHING
from harness.web import call

SNAPSHOT_FIELDS = {"of", "online", "since_ms", "epoch", "rev", "at_ms", "state", "stale", "devices"}


@pytest.mark.parametrize("body", [
    {"peer": "gateway", "address": "b9/f1", "ttl_s": 3600},
    {"peer": "client", "subject": "alice", "grants": EVERYTHING, "ttl_s": 900},
    {"peer": "client", "subject": "alice", "grants": [{"to": "b9/*", "path": ["hall/#"], "may": ["read"]}], "ttl_s": 60},
])
async def test_tokens_are_minted_and_work(server, body):
    answer = await server.api("POST", "/v1/tokens", body=body)
    assert answer.status == 201, answer.body
    minted = answer.json()
    assert abs(minted["expires_at_ms"] - (time.time() + body["ttl_s"]) * 1000) < 60_000
    assert minted["token"].count(".") == 2
    server.credentials.append(minted["token"])
    async with Crew(server) as crew:
        session = await crew.session(minted["token"], edge=1)
        assert session.welcome["peer"] == body["peer"]


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}",
    {"peer": "gateway"}, {"peer": "gateway", "address": "nowhere", "ttl_s": 60},
    {"peer": "gateway", "address": 7, "ttl_s": 60}, {"peer": "king", "address": "b9/f1", "ttl_s": 60},
    {"peer": "gateway", "address": "b9/*", "ttl_s": 60}, {"peer": "gateway", "address": "b9/f1", "ttl_s": -1},
    {"peer": "gateway", "address": "b9/f1", "ttl_s": 0}, {"peer": "gateway", "address": "b9/f1", "ttl_s": "60"},
    {"peer": "gateway", "address": "b9/f1", "ttl_s": 1e400}, {"peer": "client", "grants": EVERYTHING, "ttl_s": 60},
    {"peer": "client", "subject": "a", "grants": "all", "ttl_s": 60},
    {"peer": "client", "subject": "a", "grants": [{"to": "b*/x", "may": ["read"]}], "ttl_s": 60},
], ids=str)
async def test_a_token_request_that_makes_no_sense_is_a_problem(server, body):
    answer = await server.api("POST", "/v1/tokens", body=body)
    assert answer.status in (400, 422), (answer.status, answer.body)
    answer.problem()


@pytest.mark.parametrize(("method", "target", "body"), [
    ("POST", "/v1/tokens", {"peer": "gateway", "address": "b9/f1", "ttl_s": 60}),
    ("GET", "/v1/state/b9/f1", None),
    ("GET", "/v1/presence?building=b9", None),
])
@pytest.mark.parametrize("key", [None, "", "nonsense", "wrong-last-byte"])
async def test_without_a_good_key_every_call_is_a_401_problem(server, method, target, body, key):
    if key == "wrong-last-byte":
        last = "A" if server.api_key[-1] != "A" else "B"
        key = server.api_key[:-1] + last
        server.credentials.append(key)
    before = await server.total(REFUSED)
    answer = await call(server.http(0), method, target, key=key, body=body)
    assert answer.status == 401, (answer.status, answer.body)
    answer.problem()
    assert await server.total(REFUSED) > before


@pytest.mark.parametrize("authorization", ["Basic {key}", "bearer", "Bearer", "Bearer  ", "Token {key}", "{key}"])
async def test_other_ways_to_write_the_key_are_refused(server, authorization):
    header = authorization.format(key=server.api_key)
    answer = await call(server.http(0), "GET", "/v1/presence?building=b9", headers={"Authorization": header})
    assert answer.status in (400, 401), answer.status
    answer.problem()


async def test_the_state_of_a_gateway_is_its_snapshot(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        await gateway.set({"hall/lock": "locked", "kitchen/light": 1})
        await gateway.ask("describe", devices={"hall/lock": {"kind": "lock", "name": "Front door"}})
        await gateway.ask("device", path="kitchen", up=False)
        for edge in (0, 1):
            answer = await server.api("GET", f"/v1/state/{address}", edge=edge)
            assert answer.status == 200
            assert answer.headers["content-type"].split(";")[0] == "application/json"
            snapshot = answer.json()
            assert SNAPSHOT_FIELDS <= snapshot.keys()
            assert snapshot["of"] == address and snapshot["online"] is True
            assert snapshot["epoch"] == gateway.welcome["epoch"] and snapshot["rev"] >= 1
            assert snapshot["state"] == {"hall/lock": "locked", "kitchen/light": 1}
            assert snapshot["stale"] in (["kitchen"], ["kitchen/light"])
            assert snapshot["devices"]["hall/lock"]["kind"] == "lock"


async def test_the_state_of_a_gateway_that_never_was_is_not_found(server, building):
    answer = await server.api("GET", f"/v1/state/{building}/nobody")
    assert answer.status == 404
    assert answer.problem()["code"] == "not_found"


async def test_presence_lists_the_gateways_of_one_building(server, building):
    async with Crew(server) as crew:
        for number in (1, 2, 3):
            await crew.gateway(f"{building}/g{number}", edge=number % 2)
        await crew.gateway(f"{building}z/g1")
        answer = await server.api("GET", f"/v1/presence?building={building}", edge=1)
        assert answer.status == 200
        listed = answer.json()
        assert sorted(e["of"] for e in listed["gateways"]) == [f"{building}/g{n}" for n in (1, 2, 3)]
        assert all(e["online"] for e in listed["gateways"])
        assert listed.get("next") is None


async def test_a_registered_flat_is_called_by_its_name_in_presence_and_snapshots(server, building):
    if "control" not in server.ready:
        pytest.skip("the tenants of this cluster come from a file, where no flats are registered")
    flat = {"address": f"{building}/g1", "name": '3 left, "Meyer"', "floor": "3"}
    answer = await call(server.ready["control"], "POST", f"/admin/v1/tenants/{server.ready['tenant']}/flats",
                        key=server.ready["control_credential"], body={"flats": [flat], "codes": "missing"})
    assert answer.status == 200, answer.body
    server.credentials.append(answer.json()["flats"][0]["code"])
    called = {"name": flat["name"], "floor": "3"}
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(f"{building}/*")
        for number in (1, 2):
            gateway = await crew.gateway(f"{building}/g{number}")
            await gateway.set({"a": number})
            await client.knows(f"{building}/g{number}", {"a": number})
        shown = {f["of"]: f for f in client.frames if f["t"] == "snapshot"}
        state = {n: await server.state(f"{building}/g{n}") for n in (1, 2)}
        listed = (await server.api("GET", f"/v1/presence?building={building}")).json()["gateways"]
        for says in (shown[f"{building}/g1"], state[1], listed[0]):
            assert called.items() <= says.items(), says
        for says in (shown[f"{building}/g2"], state[2], listed[1]):
            assert not called.keys() & says.keys(), says


async def test_presence_of_an_empty_building_is_an_empty_list(server, building):
    answer = await server.api("GET", f"/v1/presence?building={building}")
    assert answer.status == 200
    assert answer.json()["gateways"] == []


@pytest.mark.parametrize("target", ["/", "/v1", "/v1/", "/v1/nothing", "/v2/presence", "/v1/state", "/v1/state/b9"])
async def test_what_does_not_exist_is_a_404_problem(server, target):
    answer = await server.api("GET", target)
    assert answer.status == 404, answer.status
    assert answer.problem()["code"] == "not_found"


@pytest.mark.parametrize(("method", "target"), [
    ("DELETE", "/v1/tokens"), ("GET", "/v1/tokens"), ("POST", "/v1/state/b9/f1"), ("PUT", "/v1/presence?building=b9"),
])
async def test_a_wrong_method_is_refused(server, method, target):
    answer = await server.api(method, target)
    assert answer.status in (404, 405), answer.status
    answer.problem()


async def test_a_body_without_end_is_refused_in_bounded_memory(server):
    before = server.rss_bytes()
    body = b'{"peer":"gateway","address":"' + b"a" * (32 * 1024 * 1024) + b'"}'
    try:
        answer = await server.api("POST", "/v1/tokens", body=body)
        assert answer.status in (400, 413), answer.status
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # Refused before all of it was sent, and the answer went with the connection.
    assert server.rss_bytes() - before < 16 * 1024 * 1024
    assert (await server.api("GET", "/v1/presence?building=b9")).status == 200


# The admin port

@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/metrics"])
async def test_the_admin_port_answers(server, edge, target):
    assert (await call(server.admin(edge), "GET", target)).status == 200


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/metrics", "/dev/edges/1/kill"])
async def test_the_public_port_knows_nothing_of_the_admin_port(server, target):
    for method in ("GET", "POST"):
        answer = await call(server.http(0), method, target, key=server.api_key)
        assert answer.status == 404, (method, answer.status)
        assert b"riser_" not in answer.body


@pytest.mark.parametrize("target", ["/v1/ws", "/v1/presence?building=b9", "/v1/tokens"])
async def test_the_admin_port_knows_nothing_of_the_public_port(server, target):
    assert (await call(server.admin(0), "GET", target, key=server.api_key)).status == 404


async def test_refusals_and_ends_are_counted_by_reason_and_code(server):
    await call(server.http(0), "GET", "/v1/presence?building=b9", key="nonsense")
    async with Crew(server) as crew:
        client = await crew.connect()
        await client.send({"t": "ping"})
        assert await client.ended() == 4500
    text = await server.metrics()
    assert any(line.startswith(f"{REFUSED}{{") and 'reason="' in line for line in text.splitlines())
    assert any(line.startswith(f"{CLOSED}{{") and 'code="4500"' in line for line in text.splitlines())


async def test_metrics_carry_no_ids(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/canary-gateway", agent="canary-agent/1.0")
        await gateway.set({"canary/path": "canary-value"})
        client = await crew.session(await server.client_token(subject="canary-subject"), edge=1)
        await client.subscribe(f"{building}/*")
        for edge in (0, 1):
            text = await server.metrics(edge)
            assert "canary" not in text
            assert gateway.welcome["session"] not in text
