"""WebSocket frames by hand on a bare socket: for everything that a well-behaved library cannot do."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct

from .web import Answer, place, read_answer

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
# The protocol's promise: after a refusal or a close frame the TCP connection is gone within this.
TCP_END_S = 5.0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True,
          length_form: int | None = None, claim: int | None = None) -> bytes:
    """One frame. `length_form` 7, 16 or 64 forces the width of the length; `claim` is a length that is not true."""
    length = len(payload) if claim is None else claim
    form = length_form or (7 if length < 126 else 16 if length < 65536 else 64)
    out = bytearray([(0x80 if fin else 0) | (rsv << 4) | opcode])
    bit = 0x80 if mask else 0
    if form == 7:
        out.append(bit | length)
    elif form == 16:
        out += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        out += bytes([bit | 127]) + struct.pack(">Q", length)
    if not mask:
        return bytes(out) + payload
    key = os.urandom(4)
    out += key
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return bytes(out) + masked.to_bytes(len(payload), "big")


def upgrade_head(url: str, *, target: str = "/v1/ws", method: str = "GET", version: str = "HTTP/1.1",
                 headers: list[tuple[str, str]] | None = None, without: tuple[str, ...] = (),
                 token: str | None = None) -> bytes:
    """An upgrade request; `headers` are added as they are, `without` leaves usual ones out."""
    host, port = place(url)
    usual = [("Host", f"{host}:{port}"), ("Upgrade", "websocket"), ("Connection", "Upgrade"),
             ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
             ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", "riser.v1")]
    lines = [(name, value) for name, value in usual if name not in without]
    lines += headers or []
    if token is not None:
        lines.append(("Authorization", f"Bearer {token}"))
    text = f"{method} {target} {version}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines) + "\r\n"
    return text.encode("latin-1")


class Raw:
    """A socket that says what it is told, answers no ping and closes nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.seen: list[tuple[bool, int, bytes]] = []

    @classmethod
    async def dial(cls, url: str, receive_buffer: int | None = None) -> Raw:
        host, port = place(url)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        # The stream's own buffer is small as well, so that a reader that rests really stops the socket.
        return cls(*await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 20))

    @classmethod
    async def open(cls, url: str, token: str | None = None, *, receive_buffer: int | None = None) -> Raw:
        """Dials and upgrades; with a token also says hello and waits for the welcome."""
        raw = await cls.dial(url, receive_buffer)
        raw.writer.write(upgrade_head(url))
        answer = await read_answer(raw.reader)
        assert answer.status == 101, (answer.status, answer.headers)
        if token is not None:
            await raw.say({"t": "hello", "token": token})
            await raw.hear("welcome")
        return raw

    async def say(self, value) -> None:
        await self.put(frame(TEXT, json.dumps(value).encode()))

    async def put(self, data: bytes) -> None:
        """Writes; a broker that has closed already is noticed when reading."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def answer(self, timeout: float = 10.0) -> Answer:
        """The response to what was sent; that there is none is a failure of the test."""
        try:
            return await read_answer(self.reader, timeout)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise AssertionError(f"the connection ended without an answer: {error!r}") from None

    async def read(self, timeout: float = 5.0) -> tuple[bool, int, bytes]:
        """One frame of the broker's: whether final, opcode, payload. It must not be masked."""

        async def one():
            first, second = await self.reader.readexactly(2)
            assert first & 0x70 == 0, "a reserved bit is set"
            assert second & 0x80 == 0, "the broker masked a frame"
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", await self.reader.readexactly(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", await self.reader.readexactly(8))[0]
            return bool(first & 0x80), first & 0x0F, await self.reader.readexactly(length)

        try:
            got = await asyncio.wait_for(one(), timeout)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise AssertionError(f"the connection ended without a close frame: {error!r}") from None
        except asyncio.TimeoutError:
            raise AssertionError(f"no frame within {timeout} s") from None
        self.seen.append(got)
        return got

    async def read_json(self, timeout: float = 5.0) -> dict:
        """The next text message; control frames before it are passed over."""
        deadline = asyncio.get_running_loop().time() + timeout
        text = b""
        while True:
            fin, opcode, payload = await self.read(max(0.01, deadline - asyncio.get_running_loop().time()))
            assert opcode != CLOSE, f"closed with {payload!r}"
            if opcode in (TEXT, CONT):
                text += payload
                if fin:
                    return json.loads(text)

    async def hear(self, kind: str, timeout: float = 5.0) -> dict:
        """The next frame of this type; others before it are passed over."""

        async def find():
            while True:
                message = await self.read_json(timeout)
                if message["t"] == kind:
                    return message

        return await asyncio.wait_for(find(), timeout)

    async def closed(self, timeout: float = 5.0) -> int:
        """Reads up to the broker's close frame and returns its code; 1005 for an empty one."""

        async def find():
            while True:
                _, opcode, payload = await self.read(timeout)
                if opcode == CLOSE:
                    payload[2:].decode()
                    return struct.unpack(">H", payload[:2])[0] if payload else 1005

        try:
            return await asyncio.wait_for(find(), timeout)
        except asyncio.TimeoutError:
            raise AssertionError(f"no close frame within {timeout} s") from None

    async def tcp_end(self, timeout: float = TCP_END_S) -> None:
        """Waits for the end of the TCP connection, although this side says nothing more."""

        async def drain():
            while await self.reader.read(65536):
                pass

        try:
            await asyncio.wait_for(drain(), timeout)
        except ConnectionError:
            pass
        except asyncio.TimeoutError:
            raise AssertionError(f"the TCP connection is still there after {timeout} s") from None

    async def ping_pong(self, timeout: float = 5.0) -> dict:
        await self.say({"t": "ping"})
        return await self.hear("pong", timeout)

    def drop(self) -> None:
        self.writer.transport.abort()

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_) -> None:
        self.drop()
