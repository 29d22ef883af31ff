"""A listener of events that does not read: what waits for it is bounded, so it is sent away with 4002, to come back
with its cursor. Nobody else notices."""

from __future__ import annotations

import json

import pytest

from harness.exchange import ids
from harness.harm import CLOSED
from harness.peers import Crew
from harness.raw import CLOSE, CONT, TEXT, Raw
from harness.server import Server
from harness.waiting import eventually

EVENT = ["event"]
# Nine megabytes: more than an edge keeps at hand for everybody, and many times what may wait for one connection.
EVENTS, PAD_BYTES = 150, 60_000


@pytest.fixture(scope="module")
def server():
    """The default heartbeat: who reads nothing answers no ping either."""
    running = Server(heartbeat=None)
    yield running
    running.stop()


async def test_a_listener_that_does_not_keep_up_is_closed_with_4002_and_resumes(server, building):
    address = f"{building}/g1"
    names = ids("e", EVENTS)
    async with Crew(server) as crew:
        gateway, control = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await control.subscribe(address, lanes=EVENT)
        start = (await control.ping())["cursor"]
        ended = await server.total(CLOSED, code="4002")
        async with await Raw.open(server.ws(1), await server.client_token(), receive_buffer=4096) as slow:
            await slow.say({"t": "subscribe", "n": 1, "to": address, "lanes": EVENT})
            await slow.hear("synced")
            for name in names:
                await gateway.event(id=name, data="x" * PAD_BYTES)
            await control.hears(names, timeout=20)

            async def sent_away():
                return await server.total(CLOSED, code="4002") > ended

            await eventually(sent_away, "the end of the slow session", 15)
            got, code = await read_to_the_end(slow)
        # Whether the close frame still found room depends on the kernel; that it was meant is counted.
        assert code in (4002, None)
        assert [event["id"] for event in got] == names[:len(got)], "what came before the end has a hole"
        assert len(got) < len(names)
        await control.ping()
        again = await crew.client(edge=0)
        await again.subscribe(address, lanes=EVENT, cursor=got[-1]["cursor"] if got else start)
        await again.hears(names[len(got):], timeout=20)


async def read_to_the_end(raw: Raw) -> tuple[list[dict], int | None]:
    """The whole events that can still be read, and the close code if one came before the end of the connection."""
    events, text = [], b""
    try:
        while True:
            fin, opcode, payload = await raw.read(20)
            if opcode == CLOSE:
                return events, int.from_bytes(payload[:2], "big")
            if opcode in (TEXT, CONT):
                text += payload
                if fin:
                    frame, text = json.loads(text), b""
                    events += [frame] if frame["t"] == "event" else []
    except AssertionError:
        return events, None
