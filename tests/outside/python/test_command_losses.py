"""A gateway's session that ends after `sent`: what is sent again, to whom, how often, and what comes of it (row S8)."""

from __future__ import annotations

import asyncio

import pytest

from harness.peers import Crew
from harness.raw import CLOSE, TEXT, Raw
from harness.waiting import eventually

REMEMBERS_MS = 600_000
# How often one command is sent, the first time included.
SENDS = 3


@pytest.mark.parametrize("edge_after", [0, 1])
@pytest.mark.parametrize("end", ["abort", "close", "takeover"])
async def test_a_command_is_sent_again_to_a_gateway_that_remembers_and_its_result_counts(server, building, end, edge_after):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        gateway = await crew.session(token, edge=0, remembers_ms=REMEMBERS_MS)
        cmd = await client.command(address, args={"for_s": 5})
        first = await gateway.commanded(cmd)
        await gateway.result(cmd, "received")
        if end != "takeover":
            await (gateway.abort() if end == "abort" else gateway.close())
        again = await crew.session(token, edge=edge_after, remembers_ms=REMEMBERS_MS)
        second = await again.commanded(cmd)
        assert second["ttl_ms"] <= first["ttl_ms"]
        assert {**second, "ttl_ms": 0} == {**first, "ttl_ms": 0}
        await again.result(cmd, "received")
        await again.result(cmd, "succeeded", data="as before")
        # `sent` is told once, and the repeated `received` to nobody.
        final = await client.ends(cmd, ["sent", "received", "succeeded"])
        assert final["data"] == "as before"
        assert await server.decided(cmd) == ["sent", "received", "succeeded"]
        await again.ping()
        assert len(again.commands()) == 1


@pytest.mark.parametrize("hello", [{}, {"remembers_ms": 0}, {"remembers_ms": 1}], ids=str)
async def test_a_command_is_not_sent_again_to_a_gateway_that_does_not_remember(server, building, hello):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        gateway = await crew.session(token, edge=0, **hello)
        cmd = await client.command(address, deadline_ms=1_500)
        sent_ms = (await gateway.commanded(cmd))["deadline_at_ms"] - 1_500
        await gateway.abort()

        async def forgotten():
            return (await client.ping())["now_ms"] > sent_ms + 50

        await eventually(forgotten, "a moment that a millisecond's memory does not reach back to")
        again = [await crew.session(token, edge=edge, **hello) for edge in (0, 1)]
        await client.ends(cmd, ["sent", "unknown"])
        await again[-1].ping()
        assert [f for session in again for f in session.commands()] == []
        assert await server.decided(cmd) == ["sent", "unknown"]


async def test_a_result_given_after_the_reconnect_counts_although_nothing_is_sent_again(server, building):
    """The lock needed longer than its gateway's connection lasted."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        gateway = await crew.session(token, edge=0)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await gateway.abort()
        again = await crew.session(token, edge=1)
        await again.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])
        assert again.commands() == []


async def test_what_has_its_last_word_is_not_sent_again(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        gateway = await crew.session(token, edge=0, remembers_ms=REMEMBERS_MS)
        done, given_up, open_still = [await client.command(address, args=number) for number in range(3)]
        overdue = await client.command(address, deadline_ms=300)
        await gateway.commanded(overdue)
        await gateway.result(done, "succeeded")
        await gateway.result(given_up, "cancelled")
        await client.ends(overdue, ["sent", "unknown"])
        await gateway.abort()
        again = await crew.session(token, edge=1, remembers_ms=REMEMBERS_MS)
        await again.commanded(open_still)
        await again.ping()
        assert [f["cmd"] for f in again.commands()] == [open_still]


async def test_what_is_sent_again_comes_in_order_and_before_what_was_held(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        await client.subscribe(address)
        gateway = await crew.session(token, edge=0, remembers_ms=REMEMBERS_MS)
        lost = [await client.command(address, args=number, deadline_ms=30_000) for number in range(5)]
        await gateway.commanded(lost[-1])
        await gateway.abort()
        await client.sees_online(address, False)
        held = [await client.command(address, args=number, deadline_ms=30_000, if_offline="hold") for number in range(5, 10)]
        for cmd in held:
            await client.told(cmd, "held")
        again = await crew.session(token, edge=1, remembers_ms=REMEMBERS_MS)
        newer = await client.command(address, args=10)
        await again.commanded(newer)
        assert [f["args"] for f in again.commands()] == list(range(11))
        for cmd in [*lost, *held, newer]:
            await again.result(cmd, "succeeded")
            assert (await client.final(cmd))["status"] == "succeeded"


async def test_a_command_that_ends_the_session_each_time_is_sent_three_times_and_then_unknown(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        gateway = await crew.session(token, edge=0, remembers_ms=REMEMBERS_MS)
        cmd = await client.command(address, deadline_ms=4_000)
        for send in range(1, SENDS + 1):
            await gateway.commanded(cmd)
            await gateway.abort()
            gateway = await crew.session(token, edge=send % 2, remembers_ms=REMEMBERS_MS)
        await client.ends(cmd, ["sent", "unknown"])
        await gateway.ping()
        assert gateway.commands() == [], f"sent more than {SENDS} times"
        assert await server.decided(cmd) == ["sent", "unknown"]
        # The gateway itself is as good as before.
        after = await client.command(address)
        await gateway.commanded(after)
        await gateway.result(after, "succeeded")
        await client.ends(after, ["sent", "succeeded"])


async def test_a_socket_that_is_half_open_gets_no_command_once_the_gateway_is_elsewhere(server, building):
    """The old socket is still there and reads nothing; the broker was told nothing of its end."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        async with await Raw.open(server.ws(0), token, receive_buffer=4096) as old:
            before = await client.command(address, args="before")
            await client.told(before, "sent")
            current = await crew.session(token, edge=1)
            crew.obeys(current)
            cmds = [await client.command(address, args=number) for number in range(20)]
            for cmd in cmds:
                await client.ends(cmd, ["sent", "succeeded"])
            assert [f["cmd"] for f in current.commands()] == cmds
            reached = await everything(old)
        assert b"before" in reached
        assert reached.count(b'"command"') == 1, "a command reached the old socket"


async def everything(raw: Raw) -> bytes:
    """All texts that are still to be read on a socket that the broker closes."""
    texts = b""

    async def drain():
        nonlocal texts
        while True:
            _, opcode, payload = await raw.read()
            if opcode == CLOSE:
                return
            if opcode == TEXT:
                texts += payload

    await asyncio.wait_for(drain(), 10)
    return texts
