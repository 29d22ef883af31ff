"""Row F7 of the threats: a microphone that is left on and says nothing. It takes a minute, beside the other files."""

from __future__ import annotations

import pytest

from harness.exchange import BINARY
from harness.peers import Crew

# A stream without frames is closed after a minute.
IDLE_S = 60.0


@pytest.mark.first
@pytest.mark.limit(120)
async def test_a_stream_without_frames_is_closed_after_a_minute(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=["live"])
        stream = await speaker.open_stream()
        await speaker.speak(stream, [0])
        await listener.hears_frames(stream, [0])
        closed = await listener.closed(stream, IDLE_S + 30.0)
        assert closed["reason"] == "closed"
        # It is gone for its opener too, who is still there and may open another.
        await speaker.speak(stream, [1])
        await speaker.until(lambda: "not_found" in speaker.errors(), "an error")
        again = await speaker.open_stream()
        await speaker.speak(again, [0])
        await listener.hears_frames(again, [0])
        assert [f["seq"] for f in listener.frames if f["t"] == BINARY and f["stream"] == stream] == [0]
