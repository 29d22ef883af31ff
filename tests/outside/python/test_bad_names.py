"""Rows N1, N2 and F9: names that are none, names of others, and names that would like to write the log."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from harness.harm import CLOSED, REFUSED, harmless
from harness.peers import Crew

BAD_PARTS = {
    "a star": "*", "two stars": "**", "a greater-than": ">", "a dot": "a.b", "nothing": "", "a space": "a b",
    "a leading space": " a", "a line break with a protocol line": "a\r\nPUB x 1\r\n", "$SYS": "$SYS",
    "_INBOX": "_INBOX", "a leading dash": "-a", "NUL": "a\u0000b", "a bidi override": "a\u202eb",
    "an umlaut": "\u00e4", "a decomposed umlaut": "a\u0308", "a Cyrillic a": "\u0430", "a kibibyte": "a" * 1024,
    "65 bytes": "a" * 65, "a slash": "a/b", "a plus": "+", "a hash": "#", "braces": "{a}", "a colon": "a:b",
    "a percent": "a%2fb", "dots": "..", "an emoji": "\U0001f600", "a tab": "a\tb", "two underscores": "__",
}
GOOD_PARTS = {"a letter": "a", "a digit": "7", "64 bytes": "a" * 64, "all kinds": "Ab0_-z", "capitals": "FLAT"}
BAD_PATHS = {
    "nothing": "", "a slash": "/", "an empty level": "a//b", "a leading slash": "/a", "a trailing slash": "a/",
    "a plus": "+", "a plus among others": "a/+/b", "a hash": "#", "a hash at the end": "a/#", "NUL": "a\u0000",
    "a line break": "a\r\nb", "an escape": "a\u001b[31m", "a C1 control": "a\u0085b", "delete": "a\u007fb",
    "a bidi override": "a\u202eb", "a bidi isolate": "a\u2066b", "a right-to-left mark": "a\u200fb",
    "257 bytes": "a" * 257, "257 bytes of umlauts": "\u00e4" * 128 + "a", "nine levels": "/".join("abcdefghi"),
}
GOOD_PATHS = {
    "one level": "a", "eight levels": "/".join("abcdefgh"), "256 bytes": "a" * 256, "umlauts": "K\u00fcche/Licht",
    "an emoji": "\U0001f600", "a space": "living room/light", "dots": "../..", "stars": "*/>", "signs": "a+b/#c",
}


async def refused_or_closed(peer, kind: str, codes: set[str], **fields) -> None:
    """The frame is answered with one of the error codes and the session goes on, or closes with 4500."""
    outcome = await peer.outcome(kind, **fields)
    assert outcome in codes | {"closed 4500"}, f"{kind} {fields}: {outcome}"
    if not peer.is_over:
        await peer.ping()


@pytest.mark.parametrize("name", BAD_PARTS)
@pytest.mark.parametrize("place", ["building", "gateway"])
async def test_a_bad_part_of_an_address_is_refused_wherever_one_is_taken(server, name, place):
    part = BAD_PARTS[name]
    address = f"{part}/g1" if place == "building" else f"b1/{part}"
    async with harmless(server):
        minted = await server.api("POST", "/v1/tokens", body={"peer": "gateway", "address": address, "ttl_s": 60})
        assert minted.status in (400, 422), (minted.status, minted.body)
        minted.problem()
        if address not in ("*/*", "b1/*"):
            async with Crew(server) as crew:
                client = await crew.client(edge=0)
                await refused_or_closed(client, "subscribe", {"bad_frame", "not_found", "forbidden"},
                                        to=address, lanes=["state", "presence"])
        if part not in ("", "a/b", ".."):
            escaped = "/".join(quote(p, safe="") for p in ((part, "g1") if place == "building" else ("b1", part)))
            asked = await server.api("GET", f"/v1/state/{escaped}")
            assert asked.status in (400, 404), (asked.status, asked.body)
            asked.problem()


@pytest.mark.parametrize("name", sorted(BAD_PARTS.keys() - {"a slash"}))
async def test_a_forged_token_with_a_bad_address_is_refused(server, name):
    for address in (f"{BAD_PARTS[name]}/g1", f"b1/{BAD_PARTS[name]}"):
        async with harmless(server, CLOSED, code="4501"):
            async with Crew(server) as crew:
                peer = await crew.connect()
                await peer.send({"t": "hello", "token": server.forge.sign(server.forge.claims(sub=address))})
                assert await peer.ended() == 4501


@pytest.mark.parametrize("name", sorted(BAD_PARTS.keys() - {"nothing", "a star", "two stars", "a slash"}))
async def test_a_bad_building_in_a_query_is_refused(server, name):
    answer = await server.api("GET", f"/v1/presence?building={quote(BAD_PARTS[name], safe='')}")
    assert answer.status in (400, 404), (answer.status, answer.body)
    answer.problem()


@pytest.mark.parametrize("part", GOOD_PARTS.values(), ids=GOOD_PARTS.keys())
async def test_a_good_part_is_accepted_as_building_and_gateway(server, part):
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(f"{part}/{part}")
        gateway = await crew.gateway(f"{part}/{part}", edge=0)
        await gateway.set({"a": 1})
        await client.knows(f"{part}/{part}", {"a": 1})


@pytest.mark.parametrize("to", ["", "*", "b1", "b1/g1/x", "*/g1", "b*/g1", "b1/g*", "b1/**", "b1/", "/g1", "b1/>",
                                ">", "b1.g1", 7, None, [], {}, ["b1/*"]], ids=str)
async def test_what_is_no_pattern_is_refused(server, to):
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            await refused_or_closed(client, "subscribe", {"bad_frame", "not_found", "forbidden"}, to=to, lanes=["state"])


async def test_names_are_compared_byte_by_byte(server, building):
    upper, lower = f"{building}/Flat", f"{building}/flat"
    nfc, nfd, cyrillic, latin = "K\u00fcche", "Ku\u0308che", "\u0430", "a"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(lower)
        big, small = await crew.gateway(upper), await crew.gateway(lower)
        await big.set({"which": "big"})
        await small.set({nfc: 1, nfd: 2, cyrillic: 3, latin: 4})
        await client.knows(lower, {nfc: 1, nfd: 2, cyrillic: 3, latin: 4})
        assert upper not in client.view.gateways


# Paths

@pytest.mark.parametrize("name", BAD_PATHS)
async def test_a_bad_path_is_refused_and_nothing_of_its_frame_is_applied(server, building, name):
    path = BAD_PATHS[name]
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            for kind, fields in (
                ("state", {"set": {"good": 2, path: 1}}),
                ("device", {"path": path, "up": False}),
                ("describe", {"devices": {path: {"kind": "lock", "name": "x"}}}),
            ):
                gateway = await crew.gateway(address)
                await gateway.set({"good": 1}, full=True)
                await refused_or_closed(gateway, kind, {"bad_frame"}, **fields)
                kept = await server.state(address)
                assert kept["state"] == {"good": 1}
                assert not kept.get("devices")


@pytest.mark.parametrize("path", GOOD_PATHS.values(), ids=GOOD_PATHS.keys())
async def test_a_good_path_arrives_as_it_was_sent(server, building, path):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(address)
        gateway = await crew.gateway(address, edge=0)
        await gateway.set({path: 1})
        await client.knows(address, {path: 1})


@pytest.mark.parametrize("filters", [
    ["a/#/b"], ["#/a"], ["a#"], ["+a"], [""], ["a//b"], ["/".join("abcdefghi")], "a", 7, [7], {},
    ["a\r\nb"], ["x" * 300],
], ids=str)
async def test_a_bad_path_filter_is_refused(server, building, filters):
    # `a#` and `+a` are ordinary levels, since only a level that is exactly + or # is special.
    ordinary = filters in (["a#"], ["+a"])
    async with harmless(server):
        async with Crew(server) as crew:
            client = await crew.client(edge=0)
            if ordinary:
                outcome = await client.outcome("subscribe", to=f"{building}/g1", lanes=["state"], path=filters)
                assert outcome in ("ok", "bad_frame")
            else:
                await refused_or_closed(client, "subscribe", {"bad_frame"}, to=f"{building}/g1", lanes=["state"], path=filters)


# N2

@pytest.mark.parametrize("extra", [
    {"tenant": "other"}, {"of": "{b}/victim"}, {"to": "{b}/victim"}, {"address": "{b}/victim"},
    {"from": "{b}/victim"}, {"epoch": 2**52}, {"rev": 2**52}, {"iss": "other", "sub": "{b}/victim"},
], ids=str)
async def test_a_frame_that_names_somebody_else_changes_nothing_of_theirs(server, building, extra):
    extra = {k: v.format(b=building) if isinstance(v, str) else v for k, v in extra.items()}
    async with harmless(server):
        async with Crew(server) as crew:
            victim = await crew.gateway(f"{building}/victim", edge=1)
            await victim.set({"a": "mine"})
            attacker = await crew.gateway(f"{building}/attacker", edge=0)
            outcome = await attacker.outcome("state", set={"a": "stolen"}, **extra)
            assert outcome in ("ok", "forbidden")
            if outcome == "ok":
                assert (await server.state(f"{building}/attacker"))["state"] == {"a": "stolen"}
            kept = await server.state(f"{building}/victim")
            assert kept["state"] == {"a": "mine"}
            assert kept["epoch"] == victim.welcome["epoch"]
            await victim.set({"a": "still mine"})
            assert (await server.state(f"{building}/victim"))["state"] == {"a": "still mine"}


@pytest.mark.parametrize("hello", [{"tenant": "other"}, {"address": "b1/victim"}, {"peer": "client"},
                                   {"epoch": 2**52}, {"session": "mine"}, {"sub": "b1/victim"}], ids=str)
async def test_hello_cannot_name_who_one_is(server, building, hello):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1", **hello)
        assert gateway.welcome["address"] == f"{building}/g1"
        assert gateway.welcome["peer"] == "gateway"
        assert gateway.welcome["tenant"] == server.ready["tenant"]
        assert gateway.welcome["epoch"] < 2**52
        assert gateway.welcome["session"] != "mine"


async def test_a_gateway_cannot_listen_to_its_neighbours(server, building):
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(f"{building}/g1", edge=0)
            for to in (f"{building}/*", f"{building}/g2", "*/*"):
                for lane in ("state", "presence"):
                    await refused_or_closed(gateway, "subscribe", {"forbidden", "unsupported"}, to=to, lanes=[lane])


# A client that plays a gateway, and the reverse

@pytest.mark.parametrize("frame", [
    {"t": "state", "set": {"a": "stolen"}, "of": "{b}/g1", "to": "{b}/g1"},
    {"t": "device", "path": "a", "up": False},
    {"t": "describe", "devices": {"a": {"kind": "lock", "name": "x"}}},
    {"t": "renew"},
    {"t": "result", "cmd": "x", "status": "succeeded"},
], ids=lambda frame: frame["t"])
async def test_a_client_that_sends_a_gateways_frame_is_refused(server, building, frame):
    address = f"{building}/g1"
    frame = {k: v.format(b=building) if isinstance(v, str) else v for k, v in frame.items()}
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=1)
            await gateway.set({"a": "mine"})
            client = await crew.client(edge=0)
            kind = frame.pop("t")
            await refused_or_closed(client, kind, {"forbidden", "bad_frame", "unknown_type", "unsupported", "not_found"}, **frame)
            kept = await server.state(address)
            assert kept["state"] == {"a": "mine"} and not kept.get("stale") and not kept.get("devices")


@pytest.mark.parametrize("frame", [
    {"t": "command", "to": "{b}/g2", "path": "hall/lock", "action": "unlock"},
    {"t": "cancel", "cmd": "x"},
    {"t": "seen", "of": "{b}/_", "id": "x"},
    {"t": "auth", "token": "x"},
], ids=lambda frame: frame["t"])
async def test_a_gateway_that_sends_a_clients_frame_is_refused(server, building, frame):
    frame = {k: v.format(b=building) if isinstance(v, str) else v for k, v in frame.items()}
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(f"{building}/g1", edge=0)
            kind = frame.pop("t")
            await refused_or_closed(gateway, kind, {"forbidden", "bad_frame", "unknown_type", "unsupported", "not_found"}, **frame)


@pytest.mark.parametrize("t", ["welcome", "snapshot", "presence", "synced", "devices", "goaway"])
async def test_a_peer_that_sends_the_brokers_frames_is_not_believed(server, building, t):
    address = f"{building}/g1"
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(address, edge=1)
            await gateway.set({"a": 1})
            client = await crew.client(edge=0)
            watcher = await crew.client(edge=1)
            await watcher.subscribe(address)
            await client.send({"t": t, "of": address, "online": False, "epoch": 2**52, "rev": 1, "state": {}, "reason": "closed"})
            await client.until(lambda: client.is_over or [f for f in client.frames if f["t"] == "error"], "an answer")
            assert not client.is_over or client.close_code == 4500
            await watcher.ping()
            assert watcher.view.of(address).state == {"a": 1}
            assert watcher.view.of(address).online is True


# F9

EVIL = "\u001b[31mEVIL\r\nERROR forged-log-line \u202egnol\u0007"


def assert_log_is_clean(server) -> None:
    logs = server.logs()
    assert "\u001b[31mEVIL" not in logs
    assert "\u202e" not in logs and "\u0007" not in logs
    assert not [line for line in logs.splitlines() if line.lstrip().startswith("ERROR forged-log-line")]


async def test_control_characters_in_what_peers_say_are_escaped_in_logs(server, building):
    async with harmless(server):
        async with Crew(server) as crew:
            gateway = await crew.gateway(f"{building}/g1", agent=EVIL)
            await refused_or_closed(gateway, "state", {"bad_frame"}, set={EVIL: 1})
            client = await crew.client(edge=0, agent=EVIL)
            await refused_or_closed(client, "subscribe", {"bad_frame", "not_found", "forbidden"}, to=EVIL, lanes=["state"])
            other = await crew.client(edge=0)
            await refused_or_closed(other, EVIL, {"unknown_type"})
            third = await crew.client(edge=0)
            await third.close(4999, EVIL)
            fourth = await crew.connect()
            await fourth.send({"t": "hello", "token": EVIL})
            await fourth.ended()
    assert_log_is_clean(server)


async def test_control_characters_in_requests_are_escaped_in_logs(server):
    target = "/v1/state/" + quote(EVIL, safe="") + "/g1"
    async with harmless(server, REFUSED):
        # A bad key beside it, so that something is counted and perhaps logged.
        answer = await server.api("GET", target, key="nonsense")
        assert answer.status in (400, 401)
        await server.api("GET", target)
    assert_log_is_clean(server)
