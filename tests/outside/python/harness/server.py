"""A broker process of the tests' own, and what can be seen of it: URLs, metrics, logs, memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from .tokens import Forge
from .web import Answer, call

ROOT = Path(__file__).resolve().parents[4]
# A debug build on a busy machine starts in well under this.
START_LIMIT_S = 30.0
# The drain window and a margin: what `riser dev` may take from SIGTERM to its end.
STOP_LIMIT_S = 30.0
EVERYTHING = [{"to": "*/*", "may": ["read", "command", "event", "listen", "speak"]}]
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def binary() -> Path:
    """The broker under test: RISER_BIN, or the release build of this checkout."""
    if named := os.environ.get("RISER_BIN"):
        return Path(named).resolve()
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release" / "riser"


class Server:
    """`riser dev` on free ports. Ended by its process id, and its exit status is part of the test."""

    def __init__(self, *, edges: int = 2, heartbeat: str | None = "2s"):
        self._folder = tempfile.TemporaryDirectory(prefix="riser-outside-")
        folder = Path(self._folder.name)
        self._ready_file = folder / "ready.json"
        self._log_file = folder / "log.txt"
        command = [str(binary()), "dev", "--edges", str(edges), "--flats", "0", "--listen", "127.0.0.1:0",
                   "--admin", "127.0.0.1:0", "--ready-file", str(self._ready_file)]
        if heartbeat is not None:
            command += ["--heartbeat", heartbeat]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RISER_")}
        environment["RUST_LOG"] = "debug"
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, cwd=folder)
        try:
            self.ready = self._wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        # Every credential that a test makes is remembered, so that the logs can be searched for it.
        self.credentials: list[str] = []
        self.forge = Forge(self.ready, self.credentials)

    def _wait_until_ready(self) -> dict:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"riser dev ended with {self.process.returncode}:\n{self.logs()}")
            try:
                return json.loads(self._ready_file.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.02)
        raise AssertionError(f"riser dev wrote no ready file within {START_LIMIT_S} s:\n{self.logs()}")

    # What it is

    def ws(self, edge: int = 0) -> str:
        return self.ready["ws"][edge]

    def http(self, edge: int = 0) -> str:
        return self.ready["http"][edge]

    def admin(self, edge: int = 0) -> str:
        return self.ready["admin"][edge]

    @property
    def api_key(self) -> str:
        return self.ready["api_key"]

    # What can be asked of it

    async def api(self, method: str, target: str, *, edge: int = 0, body=None, key: str | None = None) -> Answer:
        """A call of the HTTP interface with the tenant's API key, or with another key."""
        return await call(self.http(edge), method, target, key=self.api_key if key is None else key, body=body)

    async def token(self, *, edge: int = 0, **wanted) -> str:
        answer = await self.api("POST", "/v1/tokens", edge=edge, body=wanted)
        assert answer.status == 201, (answer.status, answer.body)
        token = answer.json()["token"]
        self.credentials.append(token)
        return token

    async def gateway_token(self, address: str, ttl_s: int = 3600) -> str:
        return await self.token(peer="gateway", address=address, ttl_s=ttl_s)

    async def client_token(self, grants: list | None = None, subject: str = "alice") -> str:
        return await self.token(peer="client", subject=subject, grants=grants or EVERYTHING, ttl_s=900)

    async def state(self, address: str, edge: int = 0) -> dict:
        answer = await self.api("GET", f"/v1/state/{address}", edge=edge)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    async def decided(self, cmd: str, edges=(0, 1)) -> list[str]:
        """The statuses of a command's outcomes as every edge tells them, of which the last is final and no other."""
        told = []
        for edge in edges:
            answer = await self.api("GET", f"/v1/commands/{cmd}", edge=edge)
            assert answer.status == 200, (answer.status, answer.body)
            record = answer.json()
            assert record["cmd"] == cmd, record
            told.append([outcome for outcome in record["outcomes"] if not outcome.get("late")])
        for outcomes in told:
            assert outcomes == told[0], f"the edges tell different stories: {told}"
            assert [outcome["final"] for outcome in outcomes] == [False] * (len(outcomes) - 1) + [True], outcomes
        return [outcome["status"] for outcome in told[0]]

    async def kill(self, edge: int) -> None:
        """Ends an edge as a crash would. The process goes on, with the other edges."""
        await self._control(edge, "kill")

    async def start(self, edge: int) -> None:
        """Starts a killed edge again; it serves when this returns."""
        await self._control(edge, "start")

    async def _control(self, edge: int, action: str) -> None:
        other = next(at for at in range(len(self.ready["admin"])) if at != edge)
        answer = await call(self.admin(other), "POST", f"/dev/edges/{edge}/{action}", timeout=30.0)
        assert 200 <= answer.status < 300, (action, answer.status, answer.body)

    @asynccontextmanager
    async def without(self, edge: int):
        """Kills an edge for the block, and starts it again whatever comes of the block."""
        await self.kill(edge)
        try:
            yield
        finally:
            await self.start(edge)

    async def metrics(self, edge: int = 0) -> str:
        answer = await call(self.admin(edge), "GET", "/metrics")
        assert answer.status == 200, answer.status
        return answer.body.decode()

    async def total(self, name: str, **labels: str) -> float:
        """The sum over all edges of the samples whose name contains `name` and that carry the labels."""
        total = 0.0
        for edge in range(len(self.ready["admin"])):
            try:
                text = await self.metrics(edge)
            except OSError:
                continue  # A killed edge has no metrics.
            for line in text.splitlines():
                sample = _SAMPLE.match(line)
                if sample and name in sample[1]:
                    found = dict(_LABEL.findall(sample[2] or ""))
                    if all(found.get(label) == value for label, value in labels.items()):
                        total += float(sample[3])
        return total

    def logs(self) -> str:
        return self._log_file.read_text(errors="replace")

    def assert_no_secret_logged(self) -> None:
        """No token made by a test, nor the signing key, stands in the log, which is kept at debug level."""
        logs = self.logs()
        for secret in [*self.credentials, self.ready["signing_key"]]:
            at = logs.find(secret)
            assert at < 0, f"a secret is in the log: …{logs[max(0, at - 200):at + 80]}…"

    def _edges(self) -> list[int]:
        """The processes that are edges: the one that was started, or those that it started."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task").glob("*/children")
        started = [child for listed in children for child in listed.read_text().split()]
        edges = [int(child) for child in started if Path(f"/proc/{child}/comm").read_text().strip() == "riser"]
        return edges or [pid]

    def rss_bytes(self) -> int:
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self._edges()]
        return sum(int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1]) * 1024 for status in statuses)

    def cpu_seconds(self) -> float:
        stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self._edges()]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")

    def alive(self) -> bool:
        return self.process.poll() is None

    # Its end

    async def ended(self, timeout: float = STOP_LIMIT_S) -> int:
        return await asyncio.to_thread(self.process.wait, timeout)

    def stop(self) -> None:
        """SIGTERM, and the exit status must be 0, whatever the tests did to it before."""
        try:
            if self.alive():
                self.process.send_signal(signal.SIGTERM)
            status = self.process.wait(STOP_LIMIT_S)
            assert status == 0, f"riser dev ended with {status}:\n{self.logs()[-4000:]}"
            self.assert_no_secret_logged()
        finally:
            if self.alive():
                self.process.kill()
                self.process.wait()
            self._folder.cleanup()
