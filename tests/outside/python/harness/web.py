"""A small HTTP/1.1 client that sends exactly what it is told and shows exactly what came back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Answers of these tests are small; a larger one is a fault worth seeing.
MAX_ANSWER_BYTES = 8 * 1024 * 1024

ERROR_CODES = {
    "unknown_type", "unsupported", "bad_frame", "forbidden", "not_found", "conflict", "queue_full",
    "too_many", "rate_limited", "unavailable", "internal",
}


@dataclass
class Answer:
    """A response: status, headers by lower-case name (the last wins), body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self):
        return json.loads(self.body)

    def problem(self) -> dict:
        """The body as a problem of RFC 9457 with one of the protocol's error codes."""
        kind = self.headers.get("content-type", "").split(";")[0].strip()
        assert kind == "application/problem+json", f"{self.status} has content type {kind!r}: {self.body[:200]!r}"
        problem = self.json()
        assert isinstance(problem, dict), problem
        assert problem.get("status", self.status) == self.status, problem
        assert problem.get("code") in ERROR_CODES, problem
        return problem


def parse_head(head: bytes) -> Answer:
    """Parses a status line and headers, without the empty line."""
    lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0"), lines[0]
    headers = {}
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    return Answer(int(status), headers)


async def read_answer(reader: asyncio.StreamReader, timeout: float = 10.0) -> Answer:
    """Reads one whole response; the body by Content-Length, chunks, or up to the end."""

    async def whole() -> Answer:
        head = await reader.readuntil(b"\r\n\r\n")
        answer = parse_head(head[:-4])
        if answer.status < 200 or answer.status in (204, 304):
            return answer
        if "content-length" in answer.headers:
            answer.body = await reader.readexactly(int(answer.headers["content-length"]))
        elif answer.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await reader.readline()).split(b";")[0], 16):
                answer.body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readuntil(b"\r\n")
        else:
            answer.body = await reader.read(MAX_ANSWER_BYTES)
        return answer

    return await asyncio.wait_for(whole(), timeout)


def place(url: str) -> tuple[str, int]:
    """The host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname, parts.port


async def call(base: str, method: str, target: str, *, key: str | None = None, body=None,
               headers: dict[str, str] | None = None, timeout: float = 10.0) -> Answer:
    """One request on a connection of its own. `body` is bytes as they are, or anything else as JSON."""
    host, port = place(base)
    sent = {"Host": f"{host}:{port}", "Connection": "close", **(headers or {})}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    if data or method in ("POST", "PUT"):
        sent["Content-Length"] = str(len(data))
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in sent.items()) + "\r\n"
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_ANSWER_BYTES)
    try:
        writer.write(head.encode() + data)
        return await read_answer(reader, timeout)
    finally:
        writer.close()
