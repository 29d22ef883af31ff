"""What operators see of commands, events and live streams: counters that rise, without ids, and logs without payloads."""

from __future__ import annotations

import pytest

from harness.exchange import binary
from harness.peers import Crew
from harness.waiting import eventually


async def rises(server, before: float, name: str, **labels: str) -> None:
    async def rose():
        return await server.total(name, **labels) > before

    await eventually(rose, f"{name} {labels} rising above {before}")


@pytest.mark.parametrize("status", ["held", "sent", "received", "running", "succeeded", "failed", "rejected", "cancelled",
                                    "offline", "expired", "unknown"])
async def test_outcomes_are_counted_by_status(server, building, status):
    address = f"{building}/g1"
    before = await server.total("outcome", status=status)
    async with Crew(server) as crew:
        client = await crew.client(edge=1)
        if status == "offline":
            await client.final(await client.command(address))
        elif status in ("held", "expired"):
            await client.final(await client.command(address, if_offline="hold", deadline_ms=200))
        else:
            gateway = await crew.gateway(address, edge=0)
            cmd = await client.command(address, deadline_ms=300 if status == "unknown" else 10_000)
            await gateway.commanded(cmd)
            if status not in ("sent", "unknown"):
                await gateway.result(cmd, status)
            await client.told(cmd, status, timeout=10)
        await rises(server, before, "outcome", status=status)


async def test_events_are_counted(server, building):
    address = f"{building}/g1"
    before = await server.total("riser_", lane="event")
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=["event"])
        await gateway.event(id="counted")
        await client.hears(["counted"])
        await rises(server, before, "riser_", lane="event")


async def test_live_frames_and_what_is_dropped_of_them_are_counted(server, building):
    address = f"{building}/g1"
    before = await server.total("riser_", lane="live")
    async with Crew(server) as crew:
        gateway, client = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await client.subscribe(address, lanes=["live"])
        stream = await gateway.open_stream()
        await gateway.speak(stream, range(3))
        await client.hears_frames(stream, range(3))
        await rises(server, before, "riser_", lane="live")
        dropped = await server.total("live_frames_dropped", reason="rate")
        await gateway.speak(stream, range(1000))
        await gateway.until(gateway.errors, "rate_limited")
        await rises(server, dropped, "live_frames_dropped", reason="rate")


async def test_two_devices_that_take_turns_with_one_credential_are_counted_and_told(server, building):
    address = f"{building}/g1"
    before = await server.total("clone")
    async with Crew(server) as crew:
        client, token = await crew.client(edge=1), await server.gateway_token(address)
        await client.subscribe("*/*", lanes=["event"])
        for turn in range(10):
            await crew.session(token, edge=turn % 2, agent=f"device-{turn % 2}")
        await rises(server, before, "clone")
        told = await client.receive(lambda f: f["t"] == "event" and f["of"] == address, "an event at the gateway's address")
        assert (told["type"], told["from"]) == ("clone_suspected", "broker")


async def test_metrics_carry_no_ids_and_logs_no_payloads(server, building):
    address = f"{building}/canary-gateway"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        client = await crew.client(edge=1, subject="canary-subject")
        await client.subscribe(address, lanes=["event", "live"])
        cmd = await client.command(address, path="canary/path", action="canary-action", args="canary-args", key="canary-key")
        await gateway.commanded(cmd)
        await gateway.result(cmd, "failed", code="canary-code", data="canary-data")
        await client.final(cmd)
        await client.refused("command", to=address, path="canary/path", action="canary-other", key="canary-key")
        await gateway.event("canary-type", id="canary-id", data="canary-event")
        await client.hears(["canary-id"])
        stream = await client.open_stream("canary/stream", to=address, params="canary-params")
        await client.send(binary(stream, 1, b"canary-audio"))
        await gateway.hears_frames(stream, [1])
        await server.api("GET", f"/v1/commands/{cmd}")
        for edge in (0, 1):
            text = await server.metrics(edge)
            assert "canary" not in text and cmd not in text
    logs = server.logs()
    for secret in ("canary-args", "canary-key", "canary-code", "canary-data", "canary-event", "canary-params", "canary-audio"):
        assert secret not in logs, secret
