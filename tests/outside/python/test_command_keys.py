"""Row S3 of the threats: a key makes a retry the same command, whoever repeats it, wherever and when."""

from __future__ import annotations

import asyncio

import pytest

from harness.exchange import statuses
from harness.peers import Crew, Refused

BODY = {"path": "hall/lock", "action": "unlock", "args": {"for_s": 5}, "deadline_ms": 10_000}


async def test_a_key_at_once_from_two_clients_is_one_command_and_both_are_told(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        clients = [await crew.client(edge=0), await crew.client(edge=1, subject="bob")]
        for turn in range(10):
            cmds = await asyncio.gather(*(one.command(address, key=f"turn-{turn}", **BODY) for one in clients))
            assert cmds[0] == cmds[1]
            await gateway.commanded(cmds[0])
            await gateway.result(cmds[0], "succeeded", data=turn)
            for client in clients:
                final = await client.ends(cmds[0], ["sent", "succeeded"])
                assert final["data"] == turn
        await gateway.ping()
        assert len(gateway.commands()) == 10


async def test_a_key_from_another_client_in_the_middle_brings_the_outcomes_so_far_and_the_rest(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, first = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await first.command(address, key="k", **BODY)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "running", data={"percent": 10})
        await first.told(cmd, "running")
        second = await crew.client(edge=0, subject="bob")
        assert await second.command(address, key="k", **BODY) == cmd
        running = await second.told(cmd, "running")
        assert running["data"] == {"percent": 10}
        await gateway.result(cmd, "succeeded", code="done")
        for client in (first, second):
            final = await client.ends(cmd, ["sent", "running", "succeeded"])
            assert final["code"] == "done"
        await gateway.ping()
        assert len(gateway.commands()) == 1


@pytest.mark.parametrize("how", ["succeeded", "offline", "expired", "unknown"])
async def test_a_key_of_a_command_that_is_over_brings_its_outcomes_and_nothing_is_sent(server, building, how):
    address = f"{building}/g1"
    body = {**BODY, "deadline_ms": 300 if how in ("expired", "unknown") else 10_000,
            "if_offline": "hold" if how == "expired" else "fail"}
    async with Crew(server) as crew:
        first = await crew.client(edge=1)
        gateway = await crew.gateway(address, edge=0) if how in ("succeeded", "unknown") else None
        if how == "succeeded":
            crew.obeys(gateway)
        cmd = await first.command(address, key="k", **body)
        assert (await first.final(cmd))["status"] == how
        told = statuses(first.outcomes(cmd))
        late = gateway or await crew.gateway(address, edge=0)
        mark = len(late.frames)
        for edge in (0, 1):
            again = await crew.client(edge=edge, subject="bob")
            assert await again.command(address, key="k", **body) == cmd
            await again.ends(cmd, told)
        await late.ping()
        assert late.commands(since=mark) == []


async def test_a_retry_on_the_same_session_is_the_same_command_and_done_once(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        replies = await client.ask_all("command", [{"to": address, "key": "k", **BODY}] * 5)
        assert {reply["t"] for reply in replies} == {"ok"}
        (cmd,) = {reply["cmd"] for reply in replies}
        await gateway.commanded(cmd)
        await gateway.result(cmd, "succeeded")
        assert (await client.final(cmd))["status"] == "succeeded"
        assert await client.command(address, key="k", **BODY) == cmd
        await gateway.ping()
        assert len(gateway.commands()) == 1
        assert await server.decided(cmd) == ["sent", "succeeded"]


@pytest.mark.parametrize("change", [
    {"action": "lock"}, {"path": "hall/door"}, {"args": {"for_s": 6}}, {"args": None},
], ids=str)
async def test_another_body_under_the_same_key_is_a_conflict(server, building, change):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, key="k", **BODY)
        await gateway.commanded(cmd)
        for edge in (0, 1):
            other = await crew.client(edge=edge, subject="bob")
            assert await other.refused("command", to=address, key="k", **{**BODY, **change}) == "conflict"
            body = {"to": address, "key": "k", **BODY, **change}
            answer = await server.api("POST", "/v1/commands", edge=edge, body=body)
            assert answer.status == 409
            assert answer.problem()["code"] == "conflict"
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])
        # Over or not, the key is taken.
        assert await client.refused("command", to=address, key="k", **{**BODY, **change}) == "conflict"
        await gateway.ping()
        assert len(gateway.commands()) == 1


async def test_two_bodies_at_once_under_one_key_leave_one_command(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        clients = [await crew.client(edge=edge) for edge in (0, 1)]

        async def attempt(client, action, turn):
            try:
                return await client.command(address, path="hall/lock", action=action, key=f"turn-{turn}")
            except Refused as error:
                return error.code

        for turn in range(10):
            got = await asyncio.gather(attempt(clients[0], "lock", turn), attempt(clients[1], "unlock", turn))
            assert sorted(answer == "conflict" for answer in got) == [False, True], got
            winner = next(answer for answer in got if answer != "conflict")
            command = await gateway.commanded(winner)
            assert command["action"] == ("lock" if got[0] == winner else "unlock")
        await gateway.ping()
        assert len(gateway.commands()) == 10


async def test_the_same_key_for_another_address_is_another_command(server, building):
    async with Crew(server) as crew:
        gateways = [await crew.gateway(f"{building}/g{number}", edge=number) for number in (0, 1)]
        client = await crew.client(edge=1)
        cmds = [await client.command(f"{building}/g{number}", key="k", **BODY) for number in (0, 1)]
        assert cmds[0] != cmds[1]
        for gateway, cmd in zip(gateways, cmds):
            await gateway.commanded(cmd)


async def test_without_a_key_the_same_body_is_another_command(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmds = [await client.command(address, **BODY) for _ in range(3)]
        assert len(set(cmds)) == 3
        await gateway.commanded(cmds[-1])
        assert [f["cmd"] for f in gateway.commands()] == cmds


@pytest.mark.parametrize("key", ["k", "k" * 128, "a.b/c:d *>#+ {x}", "Schlüssel", "..", "%2e%2e"])
async def test_any_key_up_to_its_limit_is_taken(server, building, key):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        crew.obeys(gateway)
        clients = [await crew.client(edge=edge) for edge in (0, 1)]
        cmds = [await client.command(address, key=key, **BODY) for client in clients]
        assert cmds[0] == cmds[1]
        for client in clients:
            assert (await client.final(cmds[0]))["status"] == "succeeded"
        assert await server.decided(cmds[0]) == ["sent", "succeeded"]


async def test_a_key_over_http_is_the_same_command_as_over_a_socket(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, key="k", **BODY)
        await gateway.commanded(cmd)
        answer = await server.api("POST", "/v1/commands", body={"to": address, "key": "k", **BODY})
        assert answer.status == 202 and answer.json()["cmd"] == cmd
        await gateway.result(cmd, "failed", code="jammed")
        await client.ends(cmd, ["sent", "failed"])
        body = {"to": address, "key": "k", "wait": "final", **BODY}
        answer = await server.api("POST", "/v1/commands", edge=1, body=body)
        assert answer.status == 200, answer.body
        assert statuses(answer.json()["outcomes"]) == ["sent", "failed"]
        await gateway.ping()
        assert len(gateway.commands()) == 1


async def test_a_key_does_not_lend_rights(server, building):
    """Whoever knows a key and may not command the address is told nothing of the command."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, key="k", **BODY)
        await gateway.commanded(cmd)
        reader = await crew.client(edge=1, grants=[{"to": "*/*", "may": ["read"]}])
        assert await reader.refused("command", to=address, key="k", **BODY) == "forbidden"
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])
        await reader.ping()
        assert reader.outcomes(cmd) == []
