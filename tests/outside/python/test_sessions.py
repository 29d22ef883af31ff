"""Sections 2 and 3 from outside: hello and welcome, both ways to bring a credential, heartbeats, `n`, renew, auth."""

from __future__ import annotations

import asyncio
import time

import pytest

from harness.peers import Crew, Refused
from harness.raw import PING, PONG, Raw, frame

LIMITS = {"text_bytes": 65536, "binary_bytes": 16384, "subscriptions": 256, "paths": 2048,
          "state_bytes": 262144, "event_dedup_ms": 120000}


def assert_welcome(welcome: dict, server, peer: str) -> None:
    assert welcome["peer"] == peer
    assert welcome["tenant"] == server.ready["tenant"]
    assert isinstance(welcome["session"], str) and welcome["session"]
    assert welcome["heartbeat_ms"] == 2000
    assert welcome["limits"].items() >= LIMITS.items()
    assert isinstance(welcome["features"], list)
    assert isinstance(welcome["edge"], str) and isinstance(welcome["version"], str)
    assert abs(welcome["now_ms"] - time.time() * 1000) < 60_000


async def test_a_gateway_with_its_token_in_hello_is_welcomed_with_address_and_epoch(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1")
        assert_welcome(gateway.welcome, server, "gateway")
        assert gateway.welcome["address"] == f"{building}/g1"
        assert isinstance(gateway.welcome["epoch"], int) and 0 < gateway.welcome["epoch"] < 2**53
        assert "have" not in gateway.welcome
        assert gateway.welcome["token_expires_at_ms"] > gateway.welcome["now_ms"]


async def test_a_client_is_welcomed_without_address_epoch_and_have(server):
    async with Crew(server) as crew:
        client = await crew.client()
        assert_welcome(client.welcome, server, "client")
        assert not {"address", "epoch", "have"} & client.welcome.keys()


async def test_a_credential_in_the_upgrade_request_needs_none_in_hello(server, building):
    token = await server.gateway_token(f"{building}/g1")
    async with Crew(server) as crew:
        gateway = await crew.connect(header_token=token)
        await gateway.hello()
        assert_welcome(gateway.welcome, server, "gateway")
        assert gateway.socket.subprotocol == "riser.v1"


async def test_an_api_key_is_accepted_as_a_client(server, building):
    async with Crew(server) as crew:
        client = await crew.session(server.api_key)
        assert client.welcome["peer"] == "client"
        await client.subscribe("*/*")


async def test_the_client_token_of_the_ready_file_is_a_client(server):
    async with Crew(server) as crew:
        client = await crew.session(server.ready["client_token"], edge=1)
        assert client.welcome["peer"] == "client"


async def test_two_edges_have_two_names(server):
    async with Crew(server) as crew:
        first, second = await crew.client(edge=0), await crew.client(edge=1)
        assert first.welcome["edge"] != second.welcome["edge"]


async def test_session_ids_differ(server):
    token = await server.client_token()
    async with Crew(server) as crew:
        first, second = await crew.session(token), await crew.session(token)
        assert first.welcome["session"] != second.welcome["session"]


async def test_a_gateway_that_comes_back_hears_what_the_broker_has(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        first = await crew.gateway(address)
        await first.set({"kitchen/light": 1})
        await first.set({"kitchen/light": 2})
        kept = await server.state(address)
        assert (kept["epoch"], kept["rev"]) == (first.welcome["epoch"], 2)
        await first.close()
        second = await crew.gateway(address, edge=1)
        assert second.welcome["have"] == {"epoch": first.welcome["epoch"], "rev": 2}
        assert second.welcome["epoch"] > first.welcome["epoch"]


async def test_the_first_change_in_an_epoch_is_rev_1(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        for _ in range(2):
            gateway = await crew.gateway(address)
            await gateway.set({"hall/lock": "locked"})
            kept = await server.state(address)
            assert (kept["epoch"], kept["rev"]) == (gateway.welcome["epoch"], 1)


async def test_pong_tells_a_gateway_its_epoch_and_held_commands(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1")
        pong = await gateway.ping()
        assert pong["epoch"] == gateway.welcome["epoch"]
        assert pong["held"] == 0
        assert pong["now_ms"] >= gateway.welcome["now_ms"]


async def test_pong_tells_a_client_its_cursor(server):
    async with Crew(server) as crew:
        pong = await (await crew.client()).ping()
        assert pong["now_ms"] > 0
        assert "cursor" in pong


@pytest.mark.parametrize("size", [0, 1, 125])
async def test_a_websocket_ping_is_answered_with_its_payload(server, size):
    async with await Raw.open(server.ws(), await server.client_token()) as raw:
        await raw.put(frame(PING, b"p" * size))
        while True:
            _, opcode, payload = await raw.read()
            if opcode == PONG:
                assert payload == b"p" * size
                return


async def test_the_broker_pings_every_heartbeat_and_a_pong_is_enough_to_stay(server):
    async with await Raw.open(server.ws(), await server.client_token()) as raw:
        # Three heartbeats: one more than a silent peer lives.
        for _ in range(3):
            opcode, payload = None, b""
            while opcode != PING:
                _, opcode, payload = await raw.read(4.0)
            await raw.put(frame(PONG, payload))
        await raw.ping_pong()


@pytest.mark.parametrize("peer", ["gateway", "client"])
async def test_every_frame_with_n_is_answered_exactly_once(server, building, peer):
    async with Crew(server) as crew:
        if peer == "gateway":
            session = await crew.gateway(f"{building}/g1")
            await session.ask("state", set={"a": 1})
            await session.ask("device", path="a", up=False)
            await session.ask("describe", devices={"a": {"kind": "sensor", "name": "A"}})
            await session.ask("renew")
        else:
            session = await crew.client()
            await session.ask("subscribe", to=f"{building}/*", lanes=["state"])
            await session.ask("unsubscribe", to=f"{building}/*")
        await session.ask("ping")
        await session.ping()
        session.assert_one_reply_each()


@pytest.mark.parametrize("n", [0, 1, 2**53 - 1])
async def test_n_is_echoed_over_its_whole_range(server, building, n):
    async with Crew(server) as crew:
        client = await crew.client()
        reply = await client.ask("subscribe", n=n, to=f"{building}/*", lanes=["state"])
        assert reply["n"] == n


async def test_a_state_without_n_is_applied_and_not_answered(server, building):
    async with Crew(server) as crew:
        gateway = await crew.gateway(f"{building}/g1")
        mark = len(gateway.frames)
        await gateway.send({"t": "state", "set": {"a": 1}})
        await gateway.ping()
        assert [f["t"] for f in gateway.frames[mark:]] == ["pong"]
        assert (await server.state(f"{building}/g1"))["state"] == {"a": 1}


async def test_an_unknown_type_is_answered_and_the_session_goes_on(server):
    async with Crew(server) as crew:
        client = await crew.client()
        assert await client.refused("levitate") == "unknown_type"
        await client.send({"t": "levitate"})
        await client.receive(lambda f: f["t"] == "error" and "n" not in f and f["code"] == "unknown_type",
                             "an error without n")
        await client.ping()


async def test_unknown_fields_are_ignored_unless_must_names_them(server, building):
    async with Crew(server) as crew:
        client = await crew.client()
        await client.ask("subscribe", to=f"{building}/*", lanes=["state"], shiny=True)
        code = await client.refused("subscribe", to=f"{building}/g2", lanes=["state"], shiny=True, must=["shiny"])
        assert code == "unsupported"
        await client.ask("subscribe", to=f"{building}/g2", lanes=["state"], must=["lanes", "to"])


async def test_renew_gives_a_fresh_token_of_the_same_rights(server, building):
    async with Crew(server) as crew:
        token = await server.gateway_token(f"{building}/g1", ttl_s=600)
        gateway = await crew.session(token)
        reply = await gateway.ask("renew")
        assert reply["token"] != token
        assert reply["expires_at_ms"] >= gateway.welcome["token_expires_at_ms"]
        server.credentials.append(reply["token"])
        again = await crew.session(reply["token"], edge=1)
        assert again.welcome["peer"] == "gateway"
        assert again.welcome["address"] == f"{building}/g1"
        assert again.welcome["epoch"] > gateway.welcome["epoch"]


async def test_a_client_brings_a_fresh_token_of_itself_on_the_open_socket(server, building):
    async with Crew(server) as crew:
        client = await crew.client()
        await client.subscribe(f"{building}/*")
        await client.ask("auth", token=await server.client_token())
        gateway = await crew.gateway(f"{building}/g1")
        await gateway.set({"a": 1})
        await client.knows(f"{building}/g1", {"a": 1})


async def test_a_client_may_not_renew(server):
    async with Crew(server) as crew:
        client = await crew.client()
        with pytest.raises(Refused):
            await client.ask("renew")
        await client.ping()


async def test_an_idle_peer_that_answers_pings_stays(server):
    async with Crew(server) as crew:
        client = await crew.client()
        # Silence itself is what is observed: longer than two heartbeats.
        await asyncio.sleep(5)
        await client.ping()
