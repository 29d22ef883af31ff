"""What a client knows, built from frames by the protocol's rules alone: section 4's receiving half."""

from __future__ import annotations


def below(path: str, top: str) -> bool:
    """Whether `path` is `top` or lies below it."""
    return path == top or path.startswith(top + "/")


class Gateway:
    """One gateway as a client sees it."""

    def __init__(self):
        self.online: bool | None = None
        self.version: tuple[int, int] = (0, 0)
        self.state: dict = {}
        self.stale: set[str] = set()
        self.devices: dict = {}
        self.presence: list[dict] = []
        self.snapshots = 0

    def offline_count(self) -> int:
        return sum(1 for frame in self.presence if not frame["online"])

    def _mark(self, stale: list[str], fresh: list[str]) -> None:
        """Marks values; where one list names a path within one of the other's, the longer name decides."""
        for path in self.state:
            worst = max((len(top) for top in stale if below(path, top)), default=-1)
            best = max((len(top) for top in fresh if below(path, top)), default=-1)
            if worst > best:
                self.stale.add(path)
            elif best >= 0:
                self.stale.discard(path)

    def snapshot(self, frame: dict) -> None:
        self.snapshots += 1
        self.version = (frame["epoch"], frame["rev"])
        self.state = dict(frame["state"])
        self.stale = set()
        self._mark(frame.get("stale", []), [])
        self.devices = frame.get("devices") or {}
        self.online = frame["online"]
        self._offline_is_stale()

    def delta(self, frame: dict) -> None:
        version = (frame["epoch"], frame["rev"])
        if version <= self.version:
            return
        self.version = version
        for path, value in frame.get("set", {}).items():
            if value is None:
                self.state.pop(path, None)
                self.stale.discard(path)
            else:
                self.state[path] = value
                self.stale.discard(path)
        self._mark(frame.get("stale", []), frame.get("fresh", []))

    def heard_of(self, frame: dict) -> None:
        self.presence.append(frame)
        self.online = frame["online"]
        self._offline_is_stale()

    def _offline_is_stale(self) -> None:
        if self.online is False:
            self.stale = set(self.state)


class View:
    """All gateways that a client heard of. Parts marked `more` take effect at the last."""

    def __init__(self):
        self.gateways: dict[str, Gateway] = {}
        self._parts: dict[tuple[str, str], dict] = {}

    def of(self, address: str) -> Gateway:
        return self.gateways.setdefault(address, Gateway())

    def take(self, frame: dict) -> None:
        kind = frame["t"]
        if kind in ("snapshot", "state"):
            whole = self._joined(frame)
            if whole is not None:
                gateway = self.of(frame["of"])
                gateway.snapshot(whole) if kind == "snapshot" else gateway.delta(whole)
        elif kind == "presence":
            self.of(frame["of"]).heard_of(frame)
        elif kind == "devices":
            self.of(frame["of"]).devices = frame["devices"]

    def _joined(self, frame: dict) -> dict | None:
        key = (frame["t"], frame["of"])
        begun = self._parts.pop(key, None)
        if begun is not None:
            frame = {**begun, **frame, **{
                name: {**begun.get(name, {}), **frame.get(name, {})} for name in ("set", "state", "devices")
                if name in begun or name in frame
            }, **{
                name: begun.get(name, []) + frame.get(name, []) for name in ("stale", "fresh")
                if name in begun or name in frame
            }, "more": frame.get("more", False)}
        if frame.get("more"):
            self._parts[key] = frame
            return None
        return frame
