"""Row R1 of the threats: a client that reads nothing for a minute while a thousand values a second change."""

from __future__ import annotations

import asyncio
import json

import pytest

from harness.harm import harmless
from harness.peers import Crew
from harness.raw import CLOSE, CONT, PING, PONG, TEXT, Raw, frame
from harness.server import Server
from harness.view import View

SILENCE_S = 60.0
PATHS = 50
# 100 frames of 10 paths make a thousand values a second. With 200 bytes each, a minute of them is three
# times what a kernel may keep for a socket, so that holding everything back for the client cannot pass.
FRAMES_PER_S, PATHS_PER_FRAME, VALUE_BYTES = 100, 10, 200
RSS_RISE = 16 * 1024 * 1024
# A third of the default heartbeat of 20 s, so that the silent reader still counts as alive.
SIGN_OF_LIFE_S = 7.0


@pytest.fixture(scope="module")
def server():
    """The default heartbeat: two seconds would be the test of something else."""
    running = Server(heartbeat=None)
    yield running
    running.stop()


def values_at(tick: int) -> dict:
    first = tick * PATHS_PER_FRAME % PATHS
    return {f"p{(first + i) % PATHS}": {"tick": tick, "pad": "v" * VALUE_BYTES} for i in range(PATHS_PER_FRAME)}


async def produce(gateway, ticks: int) -> dict:
    """Sends at a steady rate; what a late tick owes is sent at once. Returns the last value of every path."""
    clock = asyncio.get_running_loop().time
    begun, last = clock(), {}
    for tick in range(ticks):
        values = values_at(tick)
        last.update(values)
        await gateway.send({"t": "state", "set": values})
        await asyncio.sleep(max(0.0, begun + (tick + 1) / FRAMES_PER_S - clock()))
    return last


async def watch_memory(server, peak: list[int]) -> None:
    while True:
        peak[0] = max(peak[0], server.rss_bytes())
        await asyncio.sleep(0.5)


async def sign_of_life(raw: Raw) -> None:
    """A pong that nobody asked for: the client is there, it only does not read."""
    while True:
        await asyncio.sleep(SIGN_OF_LIFE_S)
        await raw.put(frame(PONG))


async def read_until(raw: Raw, view: View, address: str, wanted: dict, timeout: float) -> int:
    """Reads frames into the view until it has the wanted values; returns how many values came."""
    received, text = 0, b""

    async def run():
        nonlocal received, text
        while view.of(address).state != wanted:
            fin, opcode, payload = await raw.read(timeout)
            assert opcode != CLOSE, f"closed: {payload!r}"
            if opcode == PING:
                await raw.put(frame(PONG, payload))
            if opcode in (TEXT, CONT):
                text += payload
                if fin:
                    message = json.loads(text)
                    text = b""
                    received += len(message.get("set", ()))
                    view.take(message)

    await asyncio.wait_for(run(), timeout)
    return received


@pytest.mark.first
@pytest.mark.limit(150)
async def test_a_client_that_reads_nothing_for_a_minute_ends_with_the_newest_values(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        await produce(gateway, 20)
        control = await crew.client(edge=1)
        await control.subscribe(address)
        # The receive buffer is set before the connection, as small as the kernel lets it be.
        async with await Raw.open(server.ws(1), await server.client_token(), receive_buffer=4096) as raw:
            await raw.say({"t": "subscribe", "n": 1, "to": address, "lanes": ["state", "presence"]})
            view = View()
            await read_until(raw, view, address, (await server.state(address))["state"], 10)
            conflated = await server.total("conflated")
            baseline = server.rss_bytes()
            peak = [baseline]
            beside = [asyncio.create_task(watch_memory(server, peak)), asyncio.create_task(sign_of_life(raw))]
            async with harmless(server, edge=1):
                last = await produce(gateway, int(SILENCE_S * FRAMES_PER_S))
            for task in beside:
                task.cancel()
            await gateway.ping()

            # A reader at an ordinary pace had everything all along.
            await control.knows(address, last)
            assert await server.total("conflated") > conflated, "nothing was conflated: the test shows nothing"
            assert peak[0] - baseline < RSS_RISE, f"memory rose by {(peak[0] - baseline) >> 10} KiB"
            received = await read_until(raw, view, address, last, 20)
            sent = int(SILENCE_S * FRAMES_PER_S) * PATHS_PER_FRAME
            assert received < sent, "every value came: something kept them all"
            assert view.of(address).online is True
            await raw.ping_pong()
            await gateway.set({"p0": "after"})
            await read_until(raw, view, address, {**last, "p0": "after"}, 10)
