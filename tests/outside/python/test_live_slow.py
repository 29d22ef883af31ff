"""Row F7 of the threats: a listener that does not read, a speaker that is too fast, a microphone left on.

What a paused listener loses shows in what it reads afterwards, and by order alone: what its kernel and the broker's
had taken before, then a hole, then the newest.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from harness.exchange import BINARY, binary, parsed_binary
from harness.harm import harmless
from harness.peers import Crew, Peer
from harness.raw import CLOSE, CONT, PING, PONG, TEXT, Raw, frame
from harness.raw import BINARY as BINARY_OPCODE
from harness.server import Server

LIVE = ["live"]
# What a stream may send at once, and in a second: so many frames, or so many bytes.
FRAMES_AT_ONCE, BYTES_AT_ONCE = 200, 128 * 1024
STREAMS = 8
# 200 frames of 600 bytes stay below both; eight streams of one speaker make close to a megabyte, many times
# what two kernels and the broker keep for one listener.
PAYLOAD_BYTES = 600


@pytest.fixture(scope="module")
def server():
    """The default heartbeat: who reads nothing answers no ping either."""
    running = Server(heartbeat=None)
    yield running
    running.stop()


async def talk(speaker: Peer, streams: list[int], seqs: range, listeners: list[Peer]) -> None:
    """Sends a frame on each stream for each number, as fast as the listeners hear them."""
    for seq in seqs:
        for stream in streams:
            await speaker.send(binary(stream, seq, bytes(PAYLOAD_BYTES)))
        for listener in listeners:
            await listener.until(lambda one=listener: all(heard_up_to(one.frames, stream, seq) for stream in streams),
                                 f"frame {seq} of every stream", 20)


def heard_up_to(frames: list[dict], stream: int, seq: int) -> bool:
    """Whether the stream's newest frame has this number; it is looked for from the end."""
    newest = next((f for f in reversed(frames) if f["t"] == BINARY and f["stream"] == stream), None)
    return newest is not None and newest["seq"] == seq


def numbers(frames: list[dict], stream: int) -> list[int]:
    return [f["seq"] for f in frames if f["t"] == BINARY and f["stream"] == stream]


async def read_until(raw: Raw, enough) -> list[dict]:
    """Reads frames, binary ones among them, until there are enough."""
    frames, text = [], b""

    async def run():
        nonlocal text
        while not enough(frames):
            fin, opcode, payload = await raw.read(20)
            assert opcode != CLOSE, f"closed: {payload!r}"
            if opcode == PING:
                await raw.put(frame(PONG, payload))
            elif opcode == BINARY_OPCODE:
                frames.append(parsed_binary(payload))
            elif opcode in (TEXT, CONT):
                text += payload
                if fin:
                    frames.append(json.loads(text))
                    text = b""

    await asyncio.wait_for(run(), 30)
    return frames


async def test_a_paused_listener_loses_its_own_oldest_frames_and_no_command_waits_behind_them(server, building):
    address, hall = f"{building}/g1", f"{building}/hall"
    body = {"path": "hall/lock", "action": "unlock", "key": "k"}
    async with Crew(server) as crew:
        speaker, gateway = await crew.client(edge=0, subject="bob"), await crew.gateway(address, edge=0)
        others = [await crew.client(edge=edge) for edge in (0, 1)]
        for other in others:
            await other.subscribe(hall, lanes=LIVE)
        streams = [await speaker.open_stream(f"talk/{number}", to=hall) for number in range(STREAMS)]
        async with await Raw.open(server.ws(1), await server.client_token(), receive_buffer=4096) as paused:
            await paused.say({"t": "subscribe", "n": 1, "to": hall, "lanes": LIVE})
            await paused.hear("synced")
            dropped = await server.total("live_frames_dropped", reason="slow_receiver")

            # From here on it reads nothing. Amid the audio that piles up it commands a door, and so does a witness.
            await talk(speaker, streams, range(150), others)
            await paused.say({"t": "command", "n": 2, "to": address, **body})
            cmd = (await gateway.commanded())["cmd"]
            witness = await crew.client(edge=1)
            assert await witness.command(address, **body) == cmd
            await gateway.result(cmd, "succeeded")
            await witness.final(cmd)
            await talk(speaker, streams, range(150, FRAMES_AT_ONCE), others)
            for other in others:
                for stream in streams:
                    assert numbers(other.frames, stream) == list(range(FRAMES_AT_ONCE)), "a neighbour's pause cost a frame"
            assert await server.total("live_frames_dropped", reason="slow_receiver") > dropped

            newest = FRAMES_AT_ONCE - 1
            frames = await read_until(paused, lambda got: all(heard_up_to(got, stream, newest) for stream in streams))
        # What the kernels had taken came before the outcome; what waited in the broker did not.
        outcome = next(at for at, f in enumerate(frames) if f["t"] == "outcome" and f["final"])
        assert frames[outcome]["status"] == "succeeded"
        for stream in streams:
            heard, before = numbers(frames, stream), numbers(frames[:outcome], stream)
            assert len(heard) < FRAMES_AT_ONCE, "nothing was lost: the test shows nothing"
            hole = next(at for at, seq in enumerate(heard) if seq != at)
            assert heard[:hole] == list(range(hole))
            assert heard[hole:] == list(range(heard[hole], FRAMES_AT_ONCE)), "more than the oldest was lost"
            assert before == list(range(len(before))), "the outcome waited behind audio"


async def test_to_a_paused_listener_nothing_of_a_stream_comes_after_its_end(server, building):
    hall = f"{building}/hall"
    async with Crew(server) as crew:
        speaker, listener = await crew.client(edge=0), await crew.client(edge=1)
        await listener.subscribe(hall, lanes=LIVE)
        async with await Raw.open(server.ws(1), await server.client_token(), receive_buffer=4096) as paused:
            await paused.say({"t": "subscribe", "n": 1, "to": hall, "lanes": LIVE})
            await paused.hear("synced")
            streams = [await speaker.open_stream(f"talk/{number}", to=hall) for number in range(STREAMS)]
            await talk(speaker, streams, range(100), [listener])
            for stream in streams:
                await speaker.close_stream(stream)
                await listener.closed(stream)
            last = await speaker.open_stream("talk/last", to=hall)
            await speaker.speak(last, [0])
            frames = await read_until(paused, lambda got: heard_up_to(got, last, 0))
        for stream in streams:
            its = [f["t"] for f in frames if f.get("stream") == stream]
            assert its[0] == "opened" and its[-1] == "closed", its[-3:]
            assert its.count("closed") == 1


# Too fast

@pytest.mark.parametrize(("size", "chunk"), [(20, 20), (16_368, 2)], ids=["frames", "bytes"])
async def test_a_stream_may_send_a_seconds_worth_at_once_and_then_is_told(server, building, size, chunk):
    """A few frames at a time, as fast as they are heard, until it is too fast; up to then nothing is lost."""
    address = f"{building}/g1"
    at_once = min(FRAMES_AT_ONCE, BYTES_AT_ONCE // (size + 16))
    clock = asyncio.get_running_loop().time
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        stream = await speaker.open_stream()
        begun, sent = clock(), 0
        while not speaker.errors():
            await speaker.speak(stream, range(sent, sent + chunk), b"x" * size)
            await speaker.ping()
            sent += chunk
            if not speaker.errors():
                await listener.hears_frames(stream, range(sent))
        lasted = clock() - begun
        assert at_once < sent <= at_once * (1 + lasted) + chunk
        assert set(speaker.errors()) == {"rate_limited"}
        await speaker.close_stream(stream)
        await listener.closed(stream)
        heard = numbers(listener.frames, stream)
        assert len(heard) < sent and heard[:sent - chunk] == list(range(sent - chunk))


async def test_a_flood_on_one_stream_is_told_now_and_then_and_costs_no_other(server, building):
    address = f"{building}/g1"
    clock = asyncio.get_running_loop().time
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        stream, other = await speaker.open_stream("talk/door"), await speaker.open_stream("talk/hall")
        async with harmless(server):
            begun = clock()
            await speaker.speak(stream, range(10 * FRAMES_AT_ONCE))
            # Another stream of the same session has a rate of its own.
            await speaker.speak(other, range(10))
            await speaker.close_stream(stream)
            lasted = clock() - begun
        await listener.closed(stream)
        await listener.hears_frames(other, range(10))
        heard = numbers(listener.frames, stream)
        assert heard == sorted(set(heard)) and 0 < len(heard) <= FRAMES_AT_ONCE * (1 + lasted) + 1
        assert set(speaker.errors()) == {"rate_limited"} and 1 <= len(speaker.errors()) <= 1 + lasted


async def test_within_its_rate_a_stream_loses_nothing(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        stream = await speaker.open_stream()
        await speaker.speak(stream, range(FRAMES_AT_ONCE))
        await speaker.close_stream(stream)
        await listener.closed(stream)
        assert numbers(listener.frames, stream) == list(range(FRAMES_AT_ONCE))
        assert speaker.errors() == []
