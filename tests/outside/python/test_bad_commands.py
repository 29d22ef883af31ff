"""Commands that somebody may not give, too many of them, and words about commands that are not theirs to say."""

from __future__ import annotations

import asyncio

import pytest

from harness.harm import harmless
from harness.peers import Crew

HELD, OPEN_COMMANDS = 32, 256
COMMAND = {"path": "hall/lock", "action": "unlock"}


# Rights

@pytest.mark.parametrize("grant", [
    {"to": "{b}/*", "may": ["read", "event", "listen", "speak"]},
    {"to": "{b}/g2", "may": ["command"]},
    {"to": "{b}x/*", "may": ["command"]},
    {"to": "{b}/_", "may": ["command"]},
    {"to": "{b}/*", "path": ["kitchen/#"], "may": ["command"]},
    {"to": "{b}/*", "path": ["hall"], "may": ["command"]},
], ids=str)
async def test_without_the_right_to_command_nothing_is_sent_or_cancelled(server, building, grant):
    address = f"{building}/g1"
    grant = {**grant, "to": grant["to"].format(b=building)}
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        mallory = await crew.client(edge=0, grants=[grant], subject="mallory")
        assert await mallory.refused("command", to=address, **COMMAND) == "forbidden"
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        assert await mallory.refused("cancel", cmd=cmd) == "forbidden"
        held = await client.command(f"{building}/away", if_offline="hold", deadline_ms=60_000)
        assert await mallory.refused("cancel", cmd=held) == "forbidden"
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])
        assert len(gateway.commands()) == 1 and [f for f in gateway.frames if f["t"] == "cancel"] == []
        late = await crew.gateway(f"{building}/away", edge=0)
        await late.commanded(held)


@pytest.mark.parametrize("grant", [
    {"to": "{b}/g1", "may": ["command"]}, {"to": "{b}/*", "may": ["command"]}, {"to": "*/*", "path": ["hall/#"], "may": ["command"]},
], ids=str)
async def test_the_right_to_command_alone_is_enough(server, building, grant):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=1)
        client = await crew.client(edge=0, grants=[{**grant, "to": grant["to"].format(b=building)}])
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await client.ask("cancel", cmd=cmd)
        await gateway.result(cmd, "cancelled")
        await client.ends(cmd, ["sent", "cancelled"])


async def test_a_right_that_is_withdrawn_is_checked_at_the_next_frame(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await client.ask("auth", token=await server.client_token([{"to": "*/*", "may": ["read"]}]))
        assert await client.refused("command", to=address, **COMMAND) == "forbidden"
        assert await client.refused("cancel", cmd=cmd) == "forbidden"
        assert await client.refused("event", to=address, type="x") == "forbidden"
        assert await client.refused("open", to=address, path="talk/door", kind="opus") == "forbidden"
        await gateway.ping()
        assert len(gateway.commands()) == 1


@pytest.mark.parametrize("grant", [
    {"to": "{b}/*", "may": ["read", "command", "listen", "speak"]}, {"to": "{b}/g2", "may": ["event"]},
    {"to": "{b}/*", "path": ["kitchen/#"], "may": ["event"]},
], ids=str)
async def test_without_the_right_to_send_events_nothing_is_stored(server, building, grant):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        listener = await crew.client(edge=1)
        await listener.subscribe(f"{building}/*", lanes=["event"])
        mallory = await crew.client(edge=0, grants=[{**grant, "to": grant["to"].format(b=building)}])
        assert await mallory.refused("event", to=address, path="hall/bell", type="ring") == "forbidden"
        await listener.ping()
        assert listener.events() == []


async def test_seen_needs_the_right_to_read(server, building):
    async with harmless(server), Crew(server) as crew:
        listener = await crew.client(edge=1)
        await listener.subscribe(f"{building}/_", lanes=["event"])
        for grants in ([{"to": f"{building}/*", "may": ["event", "command"]}], [{"to": f"{building}/g1", "may": ["read"]}]):
            mallory = await crew.client(edge=0, grants=grants)
            assert await mallory.refused("seen", of=f"{building}/_", id="x") == "forbidden"
        await listener.ping()
        assert listener.events() == []


@pytest.mark.parametrize(("t", "fields"), [
    ("command", {"to": "{b}/g2", **COMMAND}), ("command", {"to": "{b}/g1", **COMMAND}), ("cancel", {"cmd": "{cmd}"}),
    ("seen", {"of": "{b}/_", "id": "x"}),
], ids=["a command to another", "a command to itself", "cancel", "seen"])
async def test_a_gateway_is_no_client(server, building, t, fields):
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(f"{building}/g1", edge=0), await crew.client(edge=1)
        cmd = await client.command(f"{building}/g1")
        await gateway.commanded(cmd)
        fields = {name: value.format(b=building, cmd=cmd) for name, value in fields.items()}
        assert await gateway.refused(t, **fields) == "forbidden"
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])


async def test_a_client_is_no_gateway(server, building):
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(f"{building}/g1", edge=0), await crew.client(edge=1)
        cmd = await client.command(f"{building}/g1")
        await gateway.commanded(cmd)
        assert await client.refused("result", cmd=cmd, status="succeeded") == "forbidden"
        await gateway.result(cmd, "failed")
        await client.ends(cmd, ["sent", "failed"])


# Words that are not theirs to say

async def test_a_result_for_another_gateways_command_is_forbidden(server, building):
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(f"{building}/g1", edge=0), await crew.client(edge=1)
        cmd = await client.command(f"{building}/g1")
        await gateway.commanded(cmd)
        for edge, address in ((0, f"{building}/g2"), (1, f"{building}/g11"), (1, f"{building}x/g1")):
            thief = await crew.gateway(address, edge=edge)
            for status in ("received", "succeeded", "cancelled"):
                assert await thief.refused("result", cmd=cmd, status=status) == "forbidden"
        await gateway.result(cmd, "failed", code="jammed")
        await client.ends(cmd, ["sent", "failed"])


async def test_a_result_for_a_command_that_is_not_known_is_not_found(server, building):
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(f"{building}/g1", edge=0), await crew.client(edge=1)
        cmd = await client.command(f"{building}/g1")
        await gateway.commanded(cmd)
        # Whatever its parts are: another character of the same class names another command, or none.
        at = next(place for place in reversed(range(len(cmd))) if cmd[place].isalnum())
        other = cmd[:at] + ("1" if cmd[at] == "0" else "0" if cmd[at].isdigit() else "a" if cmd[at] != "a" else "b") + cmd[at + 1:]
        assert await gateway.refused("result", cmd=other, status="succeeded") in ("not_found", "bad_frame")
        assert await client.refused("cancel", cmd=other) in ("not_found", "bad_frame")
        assert (await server.api("GET", f"/v1/commands/{other}")).status == 404
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])


async def test_a_result_for_a_command_that_was_never_sent_is_a_conflict(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        client = await crew.client(edge=1)
        offline = await client.command(address)
        expired = await client.command(address, if_offline="hold", deadline_ms=200)
        cancelled = await client.command(address, if_offline="hold")
        await client.told(cancelled, "held")
        await client.ask("cancel", cmd=cancelled)
        for cmd, told in ((offline, ["offline"]), (expired, ["held", "expired"]), (cancelled, ["held", "cancelled"])):
            await client.ends(cmd, told)
        gateway = await crew.gateway(address, edge=0)
        for cmd in (offline, expired, cancelled):
            assert await gateway.refused("result", cmd=cmd, status="succeeded") == "conflict"
            assert await gateway.refused("result", cmd=cmd, status="received") == "conflict"
        await client.ping()
        assert [f for f in client.frames if f.get("late")] == []
        assert await server.decided(expired) == ["held", "expired"]


async def test_a_cancel_of_what_is_over_is_a_conflict(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        done = await client.command(address)
        await gateway.commanded(done)
        await gateway.result(done, "succeeded")
        await client.ends(done, ["sent", "succeeded"])
        offline = await client.command(f"{building}/nobody")
        await client.ends(offline, ["offline"])
        held = await client.command(f"{building}/nobody", if_offline="hold")
        await client.ask("cancel", cmd=held)
        await client.ends(held, ["held", "cancelled"])
        for edge in (0, 1):
            other = await crew.client(edge=edge)
            for cmd in (done, offline):
                assert await other.refused("cancel", cmd=cmd) == "conflict"
            # What is cancelled already is as it was wished: whoever lost the answer may ask again.
            await other.ask("cancel", cmd=held)
        await gateway.ping()
        assert [f for f in gateway.frames if f["t"] == "cancel"] == []


async def test_a_cancel_that_is_repeated_is_answered_and_harmless(server, building):
    address = f"{building}/g1"
    async with harmless(server), Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        for _ in range(3):
            await client.ask("cancel", cmd=cmd)
        await gateway.receive(lambda f: f["t"] == "cancel" and f["cmd"] == cmd, "the cancel")
        await gateway.result(cmd, "cancelled")
        await client.ends(cmd, ["sent", "cancelled"])


# Too many

async def test_the_33rd_held_command_is_refused_whoever_gives_it(server, building):
    address = f"{building}/g1"
    held = {"to": address, **COMMAND, "if_offline": "hold", "deadline_ms": 60_000}
    async with harmless(server), Crew(server) as crew:
        clients = [await crew.client(edge=edge) for edge in (0, 1)]
        cmds = [(await clients[number % 2].ask("command", **held))["cmd"] for number in range(HELD)]
        for client in clients:
            assert await client.refused("command", **held) == "queue_full"
        answer = await server.api("POST", "/v1/commands", body=held)
        assert answer.problem()["code"] == "queue_full" and answer.status in (409, 429, 503), answer.status
        # Another gateway has a queue of its own, and whoever does not want to wait is told so.
        await clients[0].command(f"{building}/g2", if_offline="hold")
        assert (await clients[0].final(await clients[0].command(address)))["status"] == "offline"
        # A place that is given up can be taken.
        await clients[0].ask("cancel", cmd=cmds[0])
        await clients[0].final(cmds[0])
        cmds.append((await clients[0].ask("command", **held))["cmd"])
        assert await clients[1].refused("command", **held) == "queue_full"
        gateway = await crew.gateway(address, edge=1)
        await gateway.commanded(cmds[-1])
        assert [f["cmd"] for f in gateway.commands()] == cmds[1:]


async def test_33_held_commands_at_once_through_both_edges_leave_32(server, building):
    address = f"{building}/g1"
    held = {"to": address, **COMMAND, "if_offline": "hold", "deadline_ms": 60_000}
    async with harmless(server), Crew(server) as crew:
        clients = [await crew.client(edge=edge) for edge in (0, 1)]
        answers = await asyncio.gather(*(client.ask_all("command", [held] * 20) for client in clients))
        replies = [reply for mine in answers for reply in mine]
        assert len([reply for reply in replies if reply["t"] == "ok"]) == HELD
        assert {reply["code"] for reply in replies if reply["t"] == "error"} == {"queue_full"}
        gateway = await crew.gateway(address, edge=0)
        await gateway.until(lambda: len(gateway.commands()) == HELD, "what was held", 10)
        await gateway.ping()
        assert {f["cmd"] for f in gateway.commands()} == {reply["cmd"] for reply in replies if reply["t"] == "ok"}


async def test_of_a_thousand_open_commands_of_a_client_256_are_taken(server, building):
    addresses = [f"{building}/g{number}" for number in range(8)]
    async with harmless(server), Crew(server) as crew:
        gateways = [await crew.gateway(address, edge=number % 2) for number, address in enumerate(addresses)]
        client, other = await crew.client(edge=1), await crew.client(edge=1)
        bodies = [{"to": addresses[number % 8], **COMMAND, "args": number, "deadline_ms": 30_000} for number in range(1000)]
        replies = await client.ask_all("command", bodies)
        taken = [reply["cmd"] for reply in replies if reply["t"] == "ok"]
        assert len(taken) == OPEN_COMMANDS
        # Whatever waited too long in the queue to be looked at may be told to come again instead.
        codes = {reply["code"] for reply in replies if reply["t"] == "error"}
        assert "too_many" in codes and codes <= {"too_many", "rate_limited"}
        # Nobody else pays for it.
        for gateway, address in zip(gateways, addresses):
            cmd = await other.command(address, args="other")
            await gateway.commanded(cmd, 10)
            assert len(gateway.commands()) == OPEN_COMMANDS // 8 + 1
            # What is over makes room.
            for command in gateway.commands():
                await gateway.result(command["cmd"], "succeeded")
            await other.ends(cmd, ["sent", "succeeded"])
        for cmd in taken:
            await client.ends(cmd, ["sent", "succeeded"])
        again = await client.command(addresses[0])
        await gateways[0].commanded(again)
