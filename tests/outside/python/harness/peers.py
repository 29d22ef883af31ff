"""Gateways and clients that know only the protocol page, on the `websockets` library."""

from __future__ import annotations

import asyncio
import itertools
import json

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .exchange import Exchange, assert_all_agree, parsed_binary
from .server import Server
from .view import View

REPLY_LIMIT_S = 10.0
# What a test may collect of one session before it is plainly runaway.
MAX_FRAMES = 200_000


class Refused(Exception):
    """The broker answered a frame with `error`."""

    def __init__(self, reply: dict):
        super().__init__(json.dumps(reply))
        self.reply = reply
        self.code = reply["code"]


class Ended(AssertionError):
    """The session ended while a test waited for something on it."""


class Peer(Exchange):
    """One session. Frames are kept in the order of their arrival, and shape the client's view."""

    def __init__(self, socket):
        self.socket = socket
        self.frames: list[dict] = []
        self.view = View()
        self.welcome: dict = {}
        self._numbers = itertools.count(1)
        self._arrival = asyncio.Condition()
        self._over = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str, *, header_token: str | None = None, headers: dict | None = None,
                      subprotocols=("riser.v1",), **options) -> Peer:
        sent = dict(headers or {})
        if header_token is not None:
            sent["Authorization"] = f"Bearer {header_token}"
        options = {"compression": None, "ping_interval": None, "proxy": None, "open_timeout": 10,
                   "close_timeout": 3, "max_size": None, **options}
        return cls(await connect(url, subprotocols=list(subprotocols), additional_headers=sent, **options))

    async def hello(self, token: str | None = None, /, **fields) -> dict:
        frame = {"t": "hello", "agent": "outside/1.0", **fields}
        if token is not None:
            frame["token"] = token
        await self.send(frame)
        self.welcome = await self.receive(lambda f: f["t"] == "welcome", "welcome")
        return self.welcome

    async def _read(self) -> None:
        try:
            while True:
                message = await self.socket.recv()
                frame = json.loads(message) if isinstance(message, str) else parsed_binary(message)
                assert isinstance(frame, dict) and isinstance(frame.get("t"), str), frame
                assert len(self.frames) < MAX_FRAMES
                self.view.take(frame)
                await self._arrived(frame)
        except ConnectionClosed:
            pass
        finally:
            self._over = True
            await self._arrived(None)

    async def _arrived(self, frame: dict | None) -> None:
        async with self._arrival:
            if frame is not None:
                self.frames.append(frame)
            self._arrival.notify_all()

    # Sending

    async def send(self, frame: dict | str | bytes) -> None:
        """Sends; that the session has ended is noticed by whoever waits for an answer."""
        try:
            await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)
        except ConnectionClosed:
            pass

    async def ask(self, t: str, **fields) -> dict:
        """Sends a frame with the next `n`; returns its `ok`, or raises Refused."""
        n = fields.pop("n", None)
        n = next(self._numbers) if n is None else n
        mark = len(self.frames)
        await self.send({"t": t, "n": n, **fields})
        reply = await self.receive(lambda f: f["t"] in ("ok", "error") and f.get("n") == n,
                                   f"an answer to {t}", REPLY_LIMIT_S, since=mark)
        if reply["t"] == "error":
            assert isinstance(reply.get("code"), str) and isinstance(reply.get("message"), str), reply
            raise Refused(reply)
        return reply

    async def refused(self, t: str, **fields) -> str:
        """Sends a frame that must be answered with `error`; returns the code."""
        try:
            reply = await self.ask(t, **fields)
        except Refused as error:
            return error.code
        raise AssertionError(f"{t} was answered {reply}")

    async def outcome(self, t: str, **fields) -> str:
        """What came of a frame: `ok`, an error code, or `closed 4500` and the like."""
        try:
            await self.ask(t, **fields)
            return "ok"
        except Refused as error:
            return error.code
        except Ended:
            return f"closed {await self.ended()}"

    async def set(self, values: dict, **fields) -> dict:
        return await self.ask("state", set=values, **fields)

    async def subscribe(self, to: str, lanes=("state", "presence"), **fields) -> dict:
        """Subscribes and waits until the broker says that all of it came."""
        mark = len(self.frames)
        reply = await self.ask("subscribe", to=to, lanes=list(lanes), **fields)
        await self.receive(lambda f: f["t"] == "synced" and f["to"] == to, f"synced of {to}", since=mark)
        return reply

    async def ping(self, timeout: float = 5.0) -> dict:
        """A round trip: whatever the broker sent this session before it has arrived as well."""
        mark = len(self.frames)
        await self.send({"t": "ping"})
        return await self.receive(lambda f: f["t"] == "pong", "pong", timeout, since=mark)

    # Receiving

    async def until(self, condition, what: str, timeout: float = 5.0):
        """Waits until `condition()` is true; it is asked again after every frame and at the end."""

        async def hold():
            async with self._arrival:
                while not (value := condition()):
                    if self._over:
                        raise Ended(f"closed {self.close_code} while waiting for {what}")
                    await self._arrival.wait()
                return value

        try:
            return await asyncio.wait_for(hold(), timeout)
        except asyncio.TimeoutError:
            seen = json.dumps(self.frames[-8:], default=repr)[:3000]
            raise AssertionError(f"not within {timeout} s: {what}; the last frames: {seen}") from None

    async def receive(self, matches, what: str, timeout: float = 5.0, since: int = 0) -> dict:
        """The first frame from position `since` on that matches."""
        return await self.until(lambda: next((f for f in self.frames[since:] if matches(f)), None), what, timeout)

    async def knows(self, address: str, state: dict, timeout: float = 5.0) -> None:
        """Waits until the view of a gateway's state is exactly this."""
        await self.until(lambda: self.view.of(address).state == state,
                         f"{address} being {json.dumps(state)[:300]}", timeout)

    async def sees_online(self, address: str, online: bool, timeout: float = 5.0) -> None:
        await self.until(lambda: self.view.of(address).online is online, f"{address} online={online}", timeout)

    async def presence(self, address: str, timeout: float = 5.0, since: int = 0, **wanted) -> dict:
        """The first presence frame of the address that has the wanted fields."""
        return await self.receive(
            lambda f: f["t"] == "presence" and f["of"] == address and all(f.get(k) == v for k, v in wanted.items()),
            f"presence of {address} with {wanted}", timeout, since)

    # The end

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def close_code(self) -> int | None:
        return self.socket.close_code

    async def ended(self, timeout: float = 5.0) -> int:
        """Waits for the end of the connection; returns the broker's close code, 1006 for none."""
        try:
            await asyncio.wait_for(asyncio.shield(self._reader), timeout)
            await asyncio.wait_for(self.socket.wait_closed(), timeout)
        except asyncio.TimeoutError:
            raise AssertionError(f"still open after {timeout} s; last: {self.frames[-3:]}") from None
        return self.socket.close_code

    async def abort(self) -> None:
        """Ends the TCP connection with a reset, as a gateway that loses its power does not even do."""
        self.socket.transport.abort()
        await self.ended()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code, reason)
        await self.ended()

    def assert_one_reply_each(self) -> None:
        """Each `n` was answered at most once."""
        numbers = [f["n"] for f in self.frames if f["t"] in ("ok", "error") and "n" in f]
        assert len(numbers) == len(set(numbers)), f"answered twice: {numbers}"


class Crew:
    """Opens sessions for one test and closes what is still open at its end."""

    def __init__(self, server: Server):
        self.server = server
        self._peers: list[Peer] = []
        self._tasks: list[asyncio.Task] = []

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, kind, *_rest) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(peer.socket.close() for peer in self._peers), return_exceptions=True)
        await asyncio.gather(*(peer._reader for peer in self._peers), return_exceptions=kind is not None)
        if kind is None:
            for peer in self._peers:
                peer.assert_one_reply_each()
                peer.assert_exchange_rules()
            assert_all_agree(self._peers)

    async def connect(self, edge: int = 0, **options) -> Peer:
        peer = await Peer.connect(self.server.ws(edge), **options)
        self._peers.append(peer)
        return peer

    async def session(self, token: str, /, edge: int = 0, **hello) -> Peer:
        peer = await self.connect(edge)
        await peer.hello(token, **hello)
        return peer

    async def gateway(self, address: str, /, edge: int = 0, **hello) -> Peer:
        return await self.session(await self.server.gateway_token(address), edge, **hello)

    async def client(self, edge: int = 1, grants: list | None = None, subject: str = "alice", **hello) -> Peer:
        return await self.session(await self.server.client_token(grants, subject), edge, **hello)

    def obeys(self, gateway: Peer, status: str = "succeeded") -> None:
        """From now on the gateway answers every command with this, as long as it is connected."""
        self._tasks.append(asyncio.create_task(gateway.obey(status)))
