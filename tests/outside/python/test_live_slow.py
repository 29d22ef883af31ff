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


async def talk(speaker: Peer, streams: list[int], seqs: range, listeners: list[Peer]) -> list[int]:
    """Sends frames on the streams in turn, as fast as the listeners hear them; the payload counts them all."""
    sent = []
    for seq in seqs:
        for place, stream in enumerate(streams):
            sent.append(seq * len(streams) + place)
            await speaker.send(binary(stream, seq, sent[-1].to_bytes(4, "big") + bytes(PAYLOAD_BYTES - 20)))
        for listener in listeners:
            await listener.until(lambda one=listener: newest(one) == sent[-1], f"frame {sent[-1]}", 20)
    return sent


def newest(listener: Peer) -> int | None:
    return next(iter(counted(listener.frames[-1:])), None)


def counted(frames: list[dict]) -> list[int]:
    return [int.from_bytes(f["payload"][:4], "big") for f in frames if f["t"] == BINARY]


async def read_until(raw: Raw, last) -> list[dict]:
    """Reads frames, binary ones among them, up to and with one that `last` accepts."""
    frames, text = [], b""

    async def run():
        nonlocal text
        while not frames or not last(frames[-1]):
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
    body = {"to": address, "path": "hall/lock", "action": "unlock", "key": "k"}
    async with Crew(server) as crew:
        speaker, gateway = await crew.client(edge=0, subject="bob"), await crew.gateway(address, edge=0)
        others = [await crew.client(edge=edge) for edge in (0, 1)]
        for other in others:
            await other.subscribe(hall, lanes=LIVE)
        streams = [await speaker.open_stream(f"talk/{number}", to=hall) for number in range(STREAMS)]
        async with await Raw.open(server.ws(1), await server.client_token(), receive_buffer=4096) as paused:
            await paused.say({"t": "subscribe", "n": 1, "to": hall, "lanes": LIVE})
            await paused.hear("synced")
            dropped = await server.total("dropped", lane="live")

            # From here on it reads nothing. Amid the audio that piles up it commands a door, and so does a witness.
            sent = await talk(speaker, streams, range(150), others)
            await paused.say({"t": "command", "n": 2, **body})
            cmd = (await gateway.commanded())["cmd"]
            witness = await crew.client(edge=1)
            assert await witness.command(**body) == cmd
            await gateway.result(cmd, "succeeded")
            await witness.final(cmd)
            sent += await talk(speaker, streams, range(150, FRAMES_AT_ONCE), others)
            for other in others:
                assert counted(other.frames) == sent, "a paused neighbour cost somebody else a frame"
            assert await server.total("dropped", lane="live") > dropped

            frames = await read_until(paused, lambda f: counted([f]) == sent[-1:])
            for stream in streams:
                await speaker.close_stream(stream)
            await read_until(paused, lambda f: f["t"] == "closed" and f["stream"] == streams[-1])
        audio = counted(frames)
        assert audio == sorted(set(audio)), "out of order, or twice"
        assert len(audio) < len(sent), "nothing was lost: the test shows nothing"
        whole = next(at for at, number in enumerate(audio) if number != at)
        assert audio[whole:] == sent[-len(audio[whole:]):], "more than one hole: not only the oldest were lost"
        # What the kernels had taken came before the outcome; what waited in the broker did not.
        outcome = next(at for at, f in enumerate(frames) if f["t"] == "outcome" and f["final"])
        before = counted(frames[:outcome])
        assert before == sent[:len(before)], "the outcome waited behind audio"
        assert frames[outcome]["status"] == "succeeded"


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
            frames = await read_until(paused, lambda f: f["t"] == BINARY and f["stream"] == last)
        for stream in streams:
            its = [f["t"] for f in frames if f.get("stream") == stream]
            assert its[0] == "opened" and its[-1] == "closed", its[-3:]
            assert its.count("closed") == 1


# Too fast

@pytest.mark.parametrize(("frames", "size"), [(3 * FRAMES_AT_ONCE, 20), (24, 16_368)], ids=["frames", "bytes"])
async def test_a_stream_over_its_rate_loses_what_is_too_much_and_is_told(server, building, frames, size):
    address = f"{building}/g1"
    clock = asyncio.get_running_loop().time
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        stream, other = await speaker.open_stream("talk/door"), await speaker.open_stream("talk/hall")
        async with harmless(server):
            begun, mark = clock(), len(speaker.frames)
            await speaker.speak(stream, range(frames), b"x" * size)
            # Another stream of the same session has a rate of its own.
            await speaker.speak(other, range(10))
            await speaker.close_stream(stream)
            lasted = clock() - begun
        await listener.closed(stream)
        await listener.hears_frames(other, range(10))
        seqs = [f["seq"] for f in listener.heard(stream)]
        at_once = min(FRAMES_AT_ONCE, BYTES_AT_ONCE // (size + 16))
        assert seqs == sorted(set(seqs)) and seqs[:at_once] == list(range(at_once))
        assert len(seqs) <= at_once * (1 + lasted) + 1
        assert len(seqs) < frames, "nothing was dropped: the test shows nothing"
        told = speaker.errors(since=mark)
        assert set(told) == {"rate_limited"} and 1 <= len(told) <= 1 + lasted


async def test_within_its_rate_a_stream_loses_nothing(server, building):
    address = f"{building}/g1"
    async with Crew(server) as crew:
        speaker, listener = await crew.gateway(address, edge=0), await crew.client(edge=1)
        await listener.subscribe(address, lanes=LIVE)
        stream = await speaker.open_stream()
        await speaker.speak(stream, range(FRAMES_AT_ONCE))
        await speaker.close_stream(stream)
        await listener.closed(stream)
        assert [f["seq"] for f in listener.heard(stream)] == list(range(FRAMES_AT_ONCE))
        assert speaker.errors() == []
