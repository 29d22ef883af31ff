"""What peers say and are told of commands, events and live streams: the half of a session that sections 3 to 6
of the protocol page describe, and the rules that every session's frames must keep whatever a test is about."""

from __future__ import annotations

import itertools
import struct
from collections import Counter

FINAL = {"succeeded", "failed", "rejected", "offline", "expired", "unknown", "cancelled"}
# The order in which a command's outcomes come; what is final comes after all of these.
RANK = {"held": 0, "sent": 1, "received": 2, "running": 3}
# The promise: a command has its final outcome by its deadline and this much.
DECIDED_S = 5.0
# The default deadline, what the promise adds, and a margin for a loaded machine.
FINAL_LIMIT_S = 10.0 + DECIDED_S + 5.0
# Longer than any test: whoever obeys does so to its end.
OBEY_LIMIT_S = 600.0
CMD_BYTES = 192
CMD_LETTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")

# The type under which a binary frame stands among a session's frames: no frame of the protocol has it.
BINARY = "(binary)"
KINDS = {"opus": 1, "pcm16": 2, "g711a": 3, "g711u": 4, "position": 5, "other": 16}
_HEADER = struct.Struct(">BBHIII")


def binary(stream: int, seq: int, payload: bytes = b"", *, kind: int = 1, flags: int = 0, zero: int = 0,
           clock: int = 0) -> bytes:
    """A live stream's binary frame: the header of 16 bytes and the payload."""
    return _HEADER.pack(kind, flags, zero, stream, seq, clock) + payload


def parsed_binary(message: bytes) -> dict:
    """A binary frame as a dictionary that stands among the others in the order of arrival."""
    assert len(message) >= _HEADER.size, f"a binary frame of {len(message)} bytes"
    kind, flags, zero, stream, seq, clock = _HEADER.unpack_from(message)
    assert zero == 0, message[:16]
    return {"t": BINARY, "kind": kind, "flags": flags, "stream": stream, "seq": seq, "clock": clock,
            "payload": message[_HEADER.size:]}


def statuses(outcomes: list[dict]) -> list[str]:
    """The statuses of outcomes in order, without what came late."""
    return [outcome["status"] for outcome in outcomes if not outcome.get("late")]


class Exchange:
    """Commands, events and live streams of one session. What it stands on is in `Peer`."""

    # Commands: the issuer's side

    async def command(self, to: str, /, **fields) -> str:
        """Issues a command, by default to unlock a door; returns its `cmd`."""
        reply = await self.ask("command", to=to, **{"path": "hall/lock", "action": "unlock", **fields})
        return reply["cmd"]

    def outcomes(self, cmd: str) -> list[dict]:
        return [f for f in self.frames if f["t"] == "outcome" and f["cmd"] == cmd]

    async def told(self, cmd: str, status: str, timeout: float = 5.0, **wanted) -> dict:
        """The command's first outcome of this status."""
        return await self.receive(
            lambda f: f["t"] == "outcome" and f["cmd"] == cmd and f["status"] == status
            and all(f.get(name) == value for name, value in wanted.items()),
            f"the outcome {status} {wanted or ''} of {cmd}", timeout)

    async def final(self, cmd: str, timeout: float = FINAL_LIMIT_S) -> dict:
        """The command's final outcome."""
        return await self.receive(lambda f: f["t"] == "outcome" and f["cmd"] == cmd and f["final"],
                                  f"the final outcome of {cmd}", timeout)

    async def ends(self, cmd: str, expected: list[str], timeout: float = FINAL_LIMIT_S) -> dict:
        """Waits for the final outcome; all outcomes up to it must be the expected ones."""
        last = await self.final(cmd, timeout)
        assert statuses(self.outcomes(cmd)) == expected, self.outcomes(cmd)
        return last

    # Commands: the gateway's side

    def commands(self, since: int = 0) -> list[dict]:
        return [f for f in self.frames[since:] if f["t"] == "command"]

    async def commanded(self, cmd: str | None = None, timeout: float = 5.0, since: int = 0) -> dict:
        """The first command, or the first with this `cmd`."""
        return await self.receive(lambda f: f["t"] == "command" and cmd in (None, f["cmd"]), f"the command {cmd or ''}",
                                  timeout, since)

    async def result(self, cmd: str, status: str, /, **fields) -> dict:
        return await self.ask("result", cmd=cmd, status=status, **fields)

    async def obey(self, status: str) -> None:
        """Answers every command with this until the session ends."""
        done = 0
        while not self.is_over:
            await self.until(lambda: self.is_over or len(self.commands()) > done, "a command", OBEY_LIMIT_S)
            for command in self.commands()[done:]:
                done += 1
                await self.send({"t": "result", "cmd": command["cmd"], "status": status, "data": {"args": command.get("args")}})

    # Events

    async def event(self, type: str = "ring", /, **fields) -> str:
        """Stores an event; returns its cursor."""
        reply = await self.ask("event", type=type, **fields)
        assert isinstance(reply["cursor"], str) and reply["cursor"], reply
        return reply["cursor"]

    def events(self, of: str | None = None, since: int = 0) -> list[dict]:
        return [f for f in self.frames[since:] if f["t"] == "event" and of in (None, f["of"])]

    async def hears(self, expected: list, of: str | None = None, since: int = 0, timeout: float = 5.0,
                    by: str = "id") -> list[dict]:
        """Waits for as many events as expected, then for a round trip; they must be exactly these, in this order."""
        expected = list(expected)
        await self.until(lambda: len(self.events(of, since)) >= len(expected), f"{len(expected)} events", timeout)
        await self.ping()
        heard = self.events(of, since)
        assert [event.get(by) for event in heard] == expected
        return heard

    # Live streams

    async def open_stream(self, path: str = "talk/door", /, kind: str = "opus", **fields) -> int:
        """Opens a stream; returns its number."""
        reply = await self.ask("open", path=path, kind=kind, **fields)
        assert isinstance(reply["stream"], int) and 0 <= reply["stream"] < 1 << 32, reply
        return reply["stream"]

    async def close_stream(self, stream: int) -> dict:
        return await self.ask("close", stream=stream)

    async def speak(self, stream: int, seqs, payload: bytes = b"audio", **header) -> None:
        """Sends a frame for each of the numbers."""
        for seq in seqs:
            await self.send(binary(stream, seq, payload, **header))

    async def opened(self, stream: int, timeout: float = 5.0, since: int = 0) -> dict:
        return await self.receive(lambda f: f["t"] == "opened" and f["stream"] == stream, f"opened {stream}", timeout, since)

    async def closed(self, stream: int, timeout: float = 5.0, since: int = 0) -> dict:
        return await self.receive(lambda f: f["t"] == "closed" and f["stream"] == stream, f"closed {stream}", timeout, since)

    def heard(self, stream: int, since: int = 0) -> list[dict]:
        return [f for f in self.frames[since:] if f["t"] == BINARY and f["stream"] == stream]

    async def hears_frames(self, stream: int, seqs, timeout: float = 5.0, since: int = 0) -> list[dict]:
        """Waits for as many frames of the stream as there are numbers; they must be exactly these, in this order."""
        seqs = list(seqs)
        await self.until(lambda: len(self.heard(stream, since)) >= len(seqs), f"{len(seqs)} frames of {stream}", timeout)
        got = self.heard(stream, since)
        assert [f["seq"] for f in got] == seqs
        return got

    # Many frames at once

    async def ask_all(self, t: str, bodies, timeout: float = 30.0) -> list[dict]:
        """Sends all of them without waiting in between; returns the answers in the order of their arrival."""
        mark, numbers = len(self.frames), set()
        for body in bodies:
            n = next(self._numbers)
            numbers.add(n)
            await self.send({"t": t, "n": n, **body})

        def answers() -> list[dict]:
            return [f for f in self.frames[mark:] if f["t"] in ("ok", "error") and f.get("n") in numbers]

        await self.until(lambda: len(answers()) >= len(numbers), f"{len(numbers)} answers to {t}", timeout)
        return answers()

    def errors(self, since: int = 0) -> list[str]:
        """The codes of errors that answer no `n`."""
        return [f["code"] for f in self.frames[since:] if f["t"] == "error" and "n" not in f]

    # What must hold for every session

    def assert_exchange_rules(self) -> None:
        """Outcomes come after their `ok`, in order and one of them final; live frames between `opened` and `closed`."""
        _assert_outcomes(self.frames)
        _assert_streams(self.frames)


def _assert_outcomes(frames: list[dict]) -> None:
    answered: Counter = Counter()
    told: dict[str, list[dict]] = {}
    for frame in frames:
        if frame["t"] == "ok" and "cmd" in frame:
            cmd = frame["cmd"]
            assert isinstance(cmd, str) and 0 < len(cmd) <= CMD_BYTES and set(cmd) <= CMD_LETTERS, frame
            answered[cmd] += 1
        elif frame["t"] == "outcome":
            assert answered[frame["cmd"]], f"an outcome before the ok: {frame}"
            told.setdefault(frame["cmd"], []).append(frame)
    for cmd, outcomes in told.items():
        for outcome in outcomes:
            late = outcome.get("late", False)
            assert outcome["status"] in FINAL or outcome["status"] in RANK, outcome
            assert outcome["final"] is (outcome["status"] in FINAL and not late), outcome
            assert isinstance(outcome["at_ms"], int) and isinstance(outcome["of"], str), outcome
        finals = [outcome for outcome in outcomes if outcome["final"]]
        assert len(finals) <= answered[cmd], f"more than one final outcome: {outcomes}"
        assert all(_said(final) == _said(finals[0]) for final in finals), f"final outcomes that differ: {finals}"
        if answered[cmd] == 1:
            # Who repeated the command was told its outcomes again; for everybody else they come in order, once.
            _assert_in_order(outcomes)


def _said(outcome: dict) -> tuple:
    return outcome["status"], outcome.get("code"), outcome.get("data")


def _assert_in_order(outcomes: list[dict]) -> None:
    final = next((at for at, outcome in enumerate(outcomes) if outcome["final"]), len(outcomes))
    assert all(outcome.get("late") for outcome in outcomes[final + 1:]), f"after the final outcome: {outcomes}"
    before = outcomes[:final]
    assert not any(outcome.get("late") for outcome in before), f"late before the final outcome: {outcomes}"
    ranks = [RANK[outcome["status"]] for outcome in before]
    assert ranks == sorted(ranks), f"out of order: {outcomes}"
    once = [rank for rank in ranks if rank != RANK["running"]]
    assert len(once) == len(set(once)), f"told twice: {outcomes}"


def _assert_streams(frames: list[dict]) -> None:
    opened: set[int] = set()
    for frame in frames:
        if frame["t"] == "opened":
            assert frame["kind"] in KINDS, frame
            opened.add(frame["stream"])
        elif frame["t"] == "closed":
            assert frame["stream"] in opened, f"closed and never opened: {frame}"
            assert frame["reason"] in ("closed", "lost"), frame
            opened.discard(frame["stream"])
        elif frame["t"] == BINARY:
            assert frame["stream"] in opened, f"a live frame outside of its stream: {frame}"


def assert_all_agree(sessions) -> None:
    """Whoever was told a final outcome of a command was told the same."""
    finals: dict[str, tuple] = {}
    for session in sessions:
        for frame in session.frames:
            if frame["t"] == "outcome" and frame["final"]:
                said = finals.setdefault(frame["cmd"], _said(frame))
                assert said == _said(frame), f"two final outcomes of {frame['cmd']}: {said} and {_said(frame)}"


_IDS = itertools.count(1)


def ids(prefix: str, count: int) -> list[str]:
    """Names for events that no other test of this process uses."""
    return [f"{prefix}-{next(_IDS)}" for _ in range(count)]
