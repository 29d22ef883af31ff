"""Tokens made by hand, right and wrong: a JWT library would refuse to write most of the wrong ones."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import time

_JTI = itertools.count(1)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Forge:
    """Signs with the key that the broker under test wrote into its ready file."""

    def __init__(self, ready: dict, made: list[str]):
        self._made = made
        # The key's name and algorithm stand in the header of any token that was signed with it.
        header = json.loads(unb64(ready["client_token"].split(".")[0]))
        assert header["alg"] == "HS256", header
        self.kid: str = header["kid"]
        self.secret: bytes = ready["signing_key"].encode()
        self.tenant: str = ready["tenant"]

    def header(self, **changes) -> dict:
        return _changed({"alg": "HS256", "typ": "JWT", "kid": self.kid}, changes)

    def claims(self, **changes) -> dict:
        """A gateway's claims, good for an hour; a change to `...` leaves the claim out."""
        now = int(time.time())
        good = {"iss": self.tenant, "aud": "riser", "sub": "forged/g1", "peer": "gateway", "iat": now,
                "exp": now + 3600, "jti": f"forged-{next(_JTI)}"}
        return _changed(good, changes)

    def client_claims(self, grants: list, **changes) -> dict:
        return self.claims(**{"sub": "mallory", "peer": "client", "grants": grants, **changes})

    def sign(self, claims: dict | str | bytes, header: dict | None = None, secret: bytes | None = None,
             hash_name: str = "sha256") -> str:
        """A compact JWT. Claims given as text or bytes are signed as they are."""
        head = b64(json.dumps(self.header() if header is None else header).encode())
        if isinstance(claims, dict):
            claims = json.dumps(claims)
        body = b64(claims.encode() if isinstance(claims, str) else claims)
        mac = hmac.new(self.secret if secret is None else secret, f"{head}.{body}".encode(), hash_name)
        token = f"{head}.{body}.{b64(mac.digest())}"
        self._made.append(token)
        return token


def _changed(base: dict, changes: dict) -> dict:
    merged = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not ...}
