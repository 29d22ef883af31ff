"""Section 5: every status that a command can come to, through two edges, each with exactly one final outcome.

That a session is told no second final outcome, none before the `ok`, and none out of order is checked for every
session at the end of every test (`harness/exchange.py`).
"""

from __future__ import annotations

import asyncio

import pytest

from harness.exchange import statuses
from harness.peers import Crew

# Short deadlines are for commands that must run into them; what must not is given the default of 10 s.
SOON_MS = 300
# The edge that tells the time and the store that sets the deadline are not asked in the same millisecond.
CLOCKS_APART_MS = 1_000


@pytest.mark.parametrize("issuer_edge", [0, 1])
async def test_a_command_goes_through_all_its_statuses(server, building, issuer_edge):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=issuer_edge)
        cmd = await client.command(address, args={"for_s": 5, "why": ["ring", None]}, deadline_ms=10_000)
        command = await gateway.commanded()
        assert command["cmd"] == cmd
        assert (command["path"], command["action"]) == ("hall/lock", "unlock")
        assert command["args"] == {"for_s": 5, "why": ["ring", None]}
        assert command["by"] == "client:alice"
        assert 0 < command["ttl_ms"] <= 10_000
        now_ms = (await gateway.ping())["now_ms"]
        assert gateway.welcome["now_ms"] < command["deadline_at_ms"] <= now_ms + 10_000 + CLOCKS_APART_MS
        await gateway.result(cmd, "received")
        await gateway.result(cmd, "running", data={"percent": 50})
        await gateway.result(cmd, "succeeded", code="ok", data={"opened": True})
        final = await client.ends(cmd, ["sent", "received", "running", "succeeded"])
        assert (final["of"], final["code"], final["data"]) == (address, "ok", {"opened": True})
        assert (await client.told(cmd, "running"))["data"] == {"percent": 50}
        assert await server.decided(cmd) == ["sent", "received", "running", "succeeded"]


@pytest.mark.parametrize("status", ["succeeded", "failed", "rejected", "cancelled"])
async def test_a_gateways_last_word_alone_is_final(server, building, status):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await gateway.result(cmd, status, code="jammed", data=[1, {"bolt": "out"}])
        final = await client.ends(cmd, ["sent", status])
        assert (final["code"], final["data"]) == ("jammed", [1, {"bolt": "out"}])
        assert await server.decided(cmd) == ["sent", status]


async def test_a_command_without_args_and_a_result_without_data_are_taken(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address)
        assert (await gateway.commanded(cmd)).get("args") is None
        # A result is answered only where the gateway wants to know.
        await gateway.send({"t": "result", "cmd": cmd, "status": "succeeded"})
        final = await client.ends(cmd, ["sent", "succeeded"])
        assert (final.get("code"), final.get("data")) == (None, None)
        await gateway.ping()
        assert gateway.errors() == []


async def test_what_a_client_says_of_itself_is_not_believed(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, by="client:root", cmd="b1.g1.mine", tenant="other", deadline_at_ms=2**52,
                                   ttl_ms=2**52, at_ms=1, of="b9/g9")
        command = await gateway.commanded()
        assert command["cmd"] == cmd and command["by"] == "client:alice"
        assert command["ttl_ms"] <= 10_000
        await gateway.result(cmd, "succeeded")
        assert (await client.ends(cmd, ["sent", "succeeded"]))["of"] == address


# Offline, held, expired

@pytest.mark.parametrize("edge", [0, 1])
async def test_a_command_to_a_gateway_that_never_was_there_ends_offline(server, building, edge):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=edge)
        cmd = await client.command(address, if_offline="fail")
        await client.ends(cmd, ["offline"])
        gateway = await crew.gateway(address, edge=0)
        await gateway.ping()
        assert gateway.commands() == []
        assert await server.decided(cmd) == ["offline"]


async def test_a_command_to_a_gateway_that_went_away_ends_offline(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        await client.subscribe(address)
        gateway = await crew.gateway(address, edge=0)
        # The issuing edge has seen where the gateway is before it goes.
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "succeeded")
        await client.final(cmd)
        await gateway.close()
        await client.sees_online(address, False)
        # What to do with an offline gateway is to fail unless the issuer says otherwise.
        await client.ends(await client.command(address), ["offline"])
        again = await crew.gateway(address, edge=1)
        await again.ping()
        assert again.commands() == []


@pytest.mark.parametrize("gateway_edge", [0, 1])
async def test_held_commands_come_in_order_when_the_gateway_connects(server, building, gateway_edge):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        held = [await client.command(address, args=number, if_offline="hold") for number in range(5)]
        for cmd in held:
            await client.told(cmd, "held")
        gateway = await crew.gateway(address, edge=gateway_edge)
        newer = await client.command(address, args=5)
        await gateway.commanded(newer)
        assert [f["cmd"] for f in gateway.commands()] == [*held, newer]
        assert [f["args"] for f in gateway.commands()] == [0, 1, 2, 3, 4, 5]
        for cmd in held:
            await gateway.result(cmd, "succeeded")
            await client.ends(cmd, ["held", "sent", "succeeded"])
        assert await server.decided(held[0]) == ["held", "sent", "succeeded"]
        await gateway.result(newer, "succeeded")
        await client.ends(newer, ["sent", "succeeded"])


async def test_what_was_held_comes_before_anything_that_is_sent_while_the_gateway_connects(server, building):
    """One issuer goes on at each edge while the gateway connects: nothing overtakes what was held before."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        issuers = [await crew.client(edge=edge) for edge in (0, 1)]
        before = [await issuers[number % 2].command(address, args=number, if_offline="hold") for number in range(10)]
        for number, cmd in enumerate(before):
            await issuers[number % 2].told(cmd, "held")

        async def go_on(client, count):
            return [reply["cmd"] for reply in await client.ask_all("command", [
                {"to": address, "path": "hall/lock", "action": "unlock", "if_offline": "hold"} for _ in range(count)])]

        gateway, *during = await asyncio.gather(crew.gateway(address, edge=1), *(go_on(one, 10) for one in issuers))
        for cmd in [*before, *during[0], *during[1]]:
            await gateway.commanded(cmd)
        arrived = [f["cmd"] for f in gateway.commands()]
        assert len(arrived) == len(set(arrived)) == 30
        assert set(arrived[:10]) == set(before)
        for turn, mine in enumerate(during):
            mine = before[turn::2] + mine
            assert [cmd for cmd in arrived if cmd in mine] == mine, "one issuer's commands changed places"


async def test_a_held_command_expires_although_nobody_ever_connects(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        cmd = await client.command(address, if_offline="hold", deadline_ms=SOON_MS)
        await client.ends(cmd, ["held", "expired"])
        assert await server.decided(cmd) == ["held", "expired"]
        gateway = await crew.gateway(address, edge=0)
        await gateway.ping()
        assert gateway.commands() == []


async def test_of_held_commands_only_those_in_time_are_sent(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        soon = [await client.command(address, if_offline="hold", deadline_ms=SOON_MS) for _ in range(3)]
        later = [await client.command(address, if_offline="hold", deadline_ms=60_000) for _ in range(3)]
        for cmd in soon:
            await client.ends(cmd, ["held", "expired"])
        gateway = await crew.gateway(address, edge=0)
        await gateway.commanded(later[-1])
        assert [f["cmd"] for f in gateway.commands()] == later
        assert all(0 < f["ttl_ms"] <= 60_000 for f in gateway.commands())


async def test_an_issuer_that_has_gone_does_not_take_its_held_command_along(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        cmd = await client.command(address, if_offline="hold", deadline_ms=60_000)
        await client.told(cmd, "held")
        await client.abort()
        gateway = await crew.gateway(address, edge=0)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "succeeded")
        assert await server.decided(cmd) == ["held", "sent", "succeeded"]


# Unknown and late

@pytest.mark.parametrize("said", [[], ["received"], ["received", "running"]])
async def test_without_a_last_word_by_the_deadline_the_outcome_is_unknown(server, building, said):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, deadline_ms=SOON_MS * 3)
        await gateway.commanded(cmd)
        for word in said:
            await gateway.result(cmd, word)
        await client.ends(cmd, ["sent", *said, "unknown"])
        assert await server.decided(cmd) == ["sent", *said, "unknown"]


async def test_a_word_after_unknown_is_passed_on_as_late_and_changes_nothing(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, deadline_ms=SOON_MS)
        await gateway.commanded(cmd)
        await client.ends(cmd, ["sent", "unknown"])
        await gateway.result(cmd, "succeeded", data={"opened": True})
        late = await client.told(cmd, "succeeded", late=True)
        assert late["final"] is False and late["data"] == {"opened": True}
        assert await server.decided(cmd) == ["sent", "unknown"]


async def test_another_word_after_the_last_one_is_late_and_the_same_again_is_told_nobody(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "succeeded", data=1)
        await client.ends(cmd, ["sent", "succeeded"])
        await gateway.result(cmd, "succeeded", data=1)
        await gateway.result(cmd, "running")
        await gateway.result(cmd, "failed", code="jammed")
        await client.told(cmd, "failed", late=True)
        late = [f for f in client.outcomes(cmd) if f.get("late")]
        assert [f["status"] for f in late] == ["running", "failed"]
        assert await server.decided(cmd) == ["sent", "succeeded"]


async def test_repeated_and_overtaken_words_are_answered_and_passed_on_to_nobody(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        for word, data in [("received", None), ("received", None), ("running", 1), ("running", 1), ("received", None),
                           ("running", 2), ("running", 2), ("succeeded", None)]:
            await gateway.result(cmd, word, data=data)
        await client.ends(cmd, ["sent", "received", "running", "running", "succeeded"])
        assert [f["data"] for f in client.outcomes(cmd) if f["status"] == "running"] == [1, 2]


async def test_received_after_running_is_passed_on_to_nobody(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=1), await crew.client(edge=0)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        for word in ("running", "received", "succeeded"):
            await gateway.result(cmd, word)
        await client.ends(cmd, ["sent", "running", "succeeded"])


# Cancelled

async def test_a_held_command_that_is_cancelled_never_reaches_the_gateway(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        kept, gone = [await client.command(address, if_offline="hold", deadline_ms=60_000) for _ in range(2)]
        await client.told(gone, "held")
        await client.ask("cancel", cmd=gone)
        await client.ends(gone, ["held", "cancelled"])
        gateway = await crew.gateway(address, edge=0)
        await gateway.commanded(kept)
        await gateway.ping()
        assert [f["cmd"] for f in gateway.commands()] == [kept]
        assert await server.decided(gone) == ["held", "cancelled"]


@pytest.mark.parametrize(("said", "data"), [("cancelled", None), ("succeeded", {"too": "late"})])
async def test_a_cancel_after_sent_is_forwarded_and_the_gateway_decides(server, building, said, data):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "received")
        await client.ask("cancel", cmd=cmd)
        await gateway.receive(lambda f: f["t"] == "cancel" and f["cmd"] == cmd, "the cancel")
        await gateway.result(cmd, said, data=data)
        final = await client.ends(cmd, ["sent", "received", said])
        assert final.get("data") == data


async def test_a_cancel_that_the_gateway_ignores_ends_unknown(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        cmd = await client.command(address, deadline_ms=SOON_MS * 3)
        await gateway.commanded(cmd)
        await client.ask("cancel", cmd=cmd)
        await client.ends(cmd, ["sent", "unknown"])


async def test_another_client_with_the_right_may_cancel_and_the_issuer_is_told(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, other = await crew.client(edge=1), await crew.client(edge=0, subject="bob")
        cmd = await client.command(address, if_offline="hold", deadline_ms=60_000)
        await client.told(cmd, "held")
        await other.ask("cancel", cmd=cmd)
        await client.ends(cmd, ["held", "cancelled"])


# Order and where the gateway is

def doors(address: str, numbers) -> list[dict]:
    return [{"to": address, "path": "hall/lock", "action": "unlock", "args": number} for number in numbers]


@pytest.mark.parametrize("issuer_edge", [0, 1])
async def test_a_hundred_commands_arrive_in_the_order_of_their_oks(server, building, issuer_edge):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=issuer_edge)
        replies = await client.ask_all("command", doors(address, range(100)))
        cmds = [reply["cmd"] for reply in replies]
        await gateway.until(lambda: len(gateway.commands()) >= 100, "a hundred commands", 10)
        assert [f["cmd"] for f in gateway.commands()] == cmds
        assert sorted(f["args"] for f in gateway.commands()) == list(range(100))
        for cmd in cmds:
            await gateway.send({"t": "result", "cmd": cmd, "status": "succeeded"})
        for cmd in cmds:
            await client.ends(cmd, ["sent", "succeeded"])


async def test_two_issuers_at_two_edges_each_keep_their_order(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        issuers = [await crew.client(edge=0), await crew.client(edge=1)]
        answers = await asyncio.gather(*(one.ask_all("command", doors(address, range(100))) for one in issuers))
        await gateway.until(lambda: len(gateway.commands()) >= 200, "two hundred commands", 10)
        arrived = [f["cmd"] for f in gateway.commands()]
        assert len(set(arrived)) == 200
        for replies in answers:
            mine = [reply["cmd"] for reply in replies]
            assert [cmd for cmd in arrived if cmd in mine] == mine


async def test_a_gateway_that_moved_is_reached_where_it_is_and_never_where_it_was(server, building):
    """The issuing edge knows the gateway's old place from a command before."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        sessions = [await crew.session(token, edge=0)]
        for turn in range(6):
            current = sessions[-1]
            cmd = await client.command(address, args=turn)
            await current.commanded(cmd)
            await current.result(cmd, "succeeded")
            await client.ends(cmd, ["sent", "succeeded"])
            sessions.append(await crew.session(token, edge=(turn + 1) % 2))
        for turn, session in enumerate(sessions[:-1]):
            assert await session.ended() == 4006
            assert [f["args"] for f in session.commands()] == [turn]


async def test_commands_to_a_gateway_that_keeps_moving_are_each_sent_at_most_once(server, building):
    """Without `remembers_ms` nothing is sent twice, whichever session a command was on its way to."""
    address = f"{building}/g1"
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        sessions, cmds = [await crew.session(token, edge=1)], []
        crew.obeys(sessions[0])
        for turn in range(10):
            # The next session comes up while commands are on their way to the one before.
            replies, session = await asyncio.gather(
                client.ask_all("command", [{**body, "deadline_ms": 2_000} for body in doors(address, range(5))]),
                crew.session(token, edge=turn % 2))
            crew.obeys(session)
            sessions.append(session)
            cmds += [reply["cmd"] for reply in replies]
        ended = {cmd: (await client.final(cmd))["status"] for cmd in cmds}
        arrived = [f["cmd"] for session in sessions for f in session.commands()]
        allowed = {"succeeded": {1}, "unknown": {0, 1}, "offline": {0}}
        for cmd, status in ended.items():
            assert arrived.count(cmd) in allowed[status], (status, arrived.count(cmd))
        assert "succeeded" in ended.values(), "nothing was done: the test shows nothing"


async def test_outcomes_are_the_issuers_alone(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        bystander = await crew.client(edge=1, subject="bob")
        await bystander.subscribe(f"{building}/*", lanes=["state", "event", "presence", "live"])
        cmd = await client.command(address)
        await gateway.commanded(cmd)
        await gateway.result(cmd, "succeeded")
        await client.ends(cmd, ["sent", "succeeded"])
        await bystander.ping()
        assert [f for f in bystander.frames if f["t"] in ("outcome", "command")] == []
        assert statuses(client.outcomes(cmd)) == ["sent", "succeeded"]
