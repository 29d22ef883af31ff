"""Rows T1, T2, T3 and T6: forged and broken tokens, each both ways in, and attempts to change who one is."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from harness.harm import CLOSED, REFUSED, harmless
from harness.peers import Crew
from harness.raw import Raw, upgrade_head
from harness.tokens import b64


def cut(token: str, keep: int) -> str:
    return ".".join(token.split(".")[:keep])


def forged(name: str):
    """Registers a maker of a bad token under a name."""
    def register(make):
        FORGERIES[name] = make
        return make
    return register


FORGERIES: dict = {}

for _spelling in ("none", "None", "NONE", "nOnE"):
    @forged(f"alg {_spelling}, no signature")
    def _(forge, spelling=_spelling):
        return cut(forge.sign(forge.claims(), forge.header(alg=spelling)), 2) + "."

    @forged(f"alg {_spelling}, signed")
    def _(forge, spelling=_spelling):
        return forge.sign(forge.claims(), forge.header(alg=spelling))


@forged("an empty signature")
def _(forge):
    return cut(forge.sign(forge.claims()), 2) + "."


@forged("two parts only")
def _(forge):
    return cut(forge.sign(forge.claims()), 2)


@forged("four parts")
def _(forge):
    return forge.sign(forge.claims()) + ".AAAA"


@forged("one bit of the signature")
def _(forge):
    token = forge.sign(forge.claims())
    head, body, mac = token.split(".")
    return f"{head}.{body}.{'A' if mac[0] != 'A' else 'B'}{mac[1:]}"


@forged("a changed body under a good signature")
def _(forge):
    head, _, mac = forge.sign(forge.claims()).split(".")
    return f"{head}.{b64(json.dumps(forge.claims(sub='forged/other')).encode())}.{mac}"


@forged("signed with the empty key")
def _(forge):
    return forge.sign(forge.claims(), secret=b"")


@forged("signed with the key's name")
def _(forge):
    return forge.sign(forge.claims(), secret=forge.kid.encode())


@forged("signed with a public key as if it were a secret")
def _(forge):
    pem = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
    return forge.sign(forge.claims(), secret=pem)


for _alg, _hash in (("HS384", "sha384"), ("HS512", "sha512"), ("RS256", "sha256"), ("ES256", "sha256"),
                    ("EdDSA", "sha256"), ("hs256", "sha256"), ("", "sha256"), (7, "sha256"), (None, "sha256")):
    @forged(f"alg {_alg!r} with the right secret")
    def _(forge, alg=_alg, hash_name=_hash):
        return forge.sign(forge.claims(), forge.header(alg=alg), hash_name=hash_name)


@forged("no alg")
def _(forge):
    return forge.sign(forge.claims(), forge.header(alg=...))


@forged("an embedded key")
def _(forge):
    jwk = {"kty": "oct", "k": b64(b"my own key"), "alg": "HS256", "kid": forge.kid}
    return forge.sign(forge.claims(), forge.header(jwk=jwk), secret=b"my own key")


@forged("a critical extension nobody knows")
def _(forge):
    return forge.sign(forge.claims(), forge.header(crit=["x-important"], **{"x-important": True}))


@forged("duplicate claims")
def _(forge):
    text = json.dumps(forge.claims())
    return forge.sign(text[:-1] + ', "sub": "forged/other"}')


@forged("claims nested ten thousand deep")
def _(forge):
    text = json.dumps(forge.claims())
    return forge.sign(text[:-1] + ', "x": ' + "[" * 10_000 + "]" * 10_000 + "}")


@forged("claims that are a list")
def _(forge):
    return forge.sign("[]")


@forged("claims that are no JSON")
def _(forge):
    return forge.sign(b"\xff\xfe{")


@forged("padding in the encoding")
def _(forge):
    return forge.sign(forge.claims()) + "="


for _kid in ("../../etc/passwd", "' OR 1=1 --", "a\u0000b", "", "*", 7, None, "k" * 8000, ["a"]):
    @forged(f"kid {str(_kid)[:20]!r}")
    def _(forge, kid=_kid):
        return forge.sign(forge.claims(), forge.header(kid=kid))


@forged("no kid")
def _(forge):
    return forge.sign(forge.claims(), forge.header(kid=...))


_NOW = "now"
for _name, _claims in {
    "another audience": {"aud": "elevator"}, "no audience": {"aud": ...}, "an audience that is a number": {"aud": 7},
    "another tenant": {"iss": "somebody-else"}, "no issuer": {"iss": ...}, "a tenant that is a pattern": {"iss": "*"},
    "an issuer in capitals": {"iss": "UPPER"},
    "no expiry": {"exp": ...}, "expired long ago": {"exp": 1}, "expiry zero": {"exp": 0},
    "expired beyond the leeway": {"exp": (_NOW, -75)}, "expiry 2^63": {"exp": 2**63}, "expiry 2^64": {"exp": 2**64},
    "a negative expiry": {"exp": -1}, "a fractional expiry": {"exp": (_NOW, 3600.5)},
    "an expiry in words": {"exp": "tomorrow"}, "an expiry in quotes": {"exp": "4102444800"},
    "an expiry beyond floating point": {"exp": "RAW 1e999"}, "no expiry but null": {"exp": None},
    "not yet valid": {"nbf": (_NOW, 3600)}, "not yet valid beyond the leeway": {"nbf": (_NOW, 75)},
    "a start in words": {"nbf": "now"}, "a start at 2^63": {"nbf": 2**63},
    "no peer": {"peer": ...}, "an unknown peer": {"peer": "king"}, "a peer in capitals": {"peer": "GATEWAY"},
    "no subject": {"sub": ...}, "a subject that is no address": {"sub": "nowhere"},
    "a subject that is a pattern": {"sub": "b1/*"}, "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 7}, "a client whose grants are a word": {"peer": "client", "grants": "all"},
}.items():
    @forged(_name)
    def _(forge, changes=_claims):
        raw, plain = {}, {}
        for name, value in changes.items():
            if isinstance(value, tuple):
                plain[name] = time.time().__floor__() + value[1]
            elif isinstance(value, str) and value.startswith("RAW "):
                raw[name] = value[4:]
                plain[name] = f"@{name}@"
            else:
                plain[name] = value
        text = json.dumps(forge.claims(**plain))
        for name, value in raw.items():
            text = text.replace(f'"@{name}@"', value)
        return forge.sign(text)


async def refused_both_ways(server, token: str) -> None:
    """401 before the upgrade when it comes in a header, 4501 when it comes in hello."""
    async with harmless(server, REFUSED):
        async with await Raw.dial(server.ws()) as raw:
            await raw.put(upgrade_head(server.ws(), token=token))
            answer = await raw.answer()
            assert answer.status == 401, answer.status
            answer.problem()
            await raw.tcp_end()
    async with harmless(server, CLOSED, code="4501"):
        async with await Raw.open(server.ws()) as raw:
            await raw.say({"t": "hello", "token": token})
            assert await raw.closed() == 4501
            await raw.tcp_end()


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_is_refused(server, name):
    await refused_both_ways(server, FORGERIES[name](server.forge))


async def test_a_token_made_by_the_rules_is_accepted_so_that_the_forgeries_show_something(server):
    async with Crew(server) as crew:
        gateway = await crew.session(server.forge.sign(server.forge.claims(sub="forged/good")))
        assert gateway.welcome["address"] == "forged/good"


@pytest.mark.parametrize("claims", [
    {"exp": -30}, {"nbf": 30}, {"nbf": -3600}, {"iat": -3600},
], ids=str)
async def test_clocks_may_differ_by_the_leeway(server, claims):
    now = int(time.time())
    token = server.forge.sign(server.forge.claims(**{name: now + offset for name, offset in claims.items()}))
    async with Crew(server) as crew:
        await crew.session(token)


@pytest.mark.parametrize("member", ["jku", "x5u"])
async def test_a_key_by_reference_is_refused_and_never_fetched(server, member):
    fetched = asyncio.Event()

    async def visited(_reader, writer):
        fetched.set()
        writer.close()

    listener = await asyncio.start_server(visited, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/keys.json"
    try:
        await refused_both_ways(server, server.forge.sign(server.forge.claims(), server.forge.header(**{member: url}), secret=b"mine"))
        assert not fetched.is_set()
    finally:
        listener.close()


async def test_a_token_of_a_mebibyte_is_refused_in_bounded_memory(server):
    token = server.forge.sign(server.forge.claims(padding="x" * (1 << 20)))
    before = server.rss_bytes()
    async with harmless(server, CLOSED, code="1009"):
        async with await Raw.open(server.ws()) as raw:
            await raw.say({"t": "hello", "token": token})
            assert await raw.closed() == 1009
            await raw.tcp_end()
    assert server.rss_bytes() - before < 8 * 1024 * 1024


async def test_a_token_of_forty_kilobytes_is_refused(server):
    token = server.forge.sign(server.forge.claims(padding="x" * 30_000), secret=b"wrong")
    async with harmless(server, CLOSED, code="4501"):
        async with await Raw.open(server.ws()) as raw:
            await raw.say({"t": "hello", "token": token})
            assert await raw.closed() == 4501
            await raw.tcp_end()


@pytest.mark.parametrize("token", [7, None, True, [], {}, ""], ids=str)
async def test_a_token_in_hello_that_is_no_text_is_refused(server, token):
    async with harmless(server, CLOSED):
        async with await Raw.open(server.ws()) as raw:
            await raw.say({"t": "hello", "token": token})
            assert await raw.closed() in (4500, 4501)
            await raw.tcp_end()


# T6

@pytest.mark.parametrize("early", [
    {"t": "ping"}, {"t": "state", "n": 1, "set": {"a": 1}}, {"t": "subscribe", "n": 1, "to": "*/*", "lanes": ["state"]},
    {"t": "auth", "n": 1, "token": "x"}, {"t": "nonsense"},
], ids=str)
async def test_a_frame_before_hello_closes_with_4500(server, early):
    async with harmless(server, CLOSED, code="4500"):
        async with await Raw.open(server.ws()) as raw:
            await raw.say(early)
            assert await raw.closed() == 4500
            await raw.tcp_end()


@pytest.mark.parametrize("peer", ["gateway", "client"])
async def test_a_second_hello_closes_with_4500(server, building, peer):
    token = await (server.gateway_token(f"{building}/g1") if peer == "gateway" else server.client_token())
    async with harmless(server, CLOSED, code="4500"):
        async with await Raw.open(server.ws(), token) as raw:
            await raw.say({"t": "hello", "token": token})
            assert await raw.closed() == 4500
            await raw.tcp_end()


async def other_tokens(server, building: str) -> dict[str, str]:
    return {
        "another subject": await server.client_token(subject="bob"),
        "a gateway": await server.gateway_token(f"{building}/g1"),
    }


@pytest.mark.parametrize("other", ["another subject", "a gateway"])
async def test_auth_as_another_peer_closes_with_4500(server, building, other):
    tokens = await other_tokens(server, building)
    async with harmless(server, CLOSED, code="4500"):
        async with await Raw.open(server.ws(), await server.client_token()) as raw:
            await raw.say({"t": "auth", "n": 1, "token": tokens[other]})
            assert await raw.closed() == 4500
            await raw.tcp_end()


async def test_auth_with_a_bad_token_gives_no_rights(server):
    async with Crew(server) as crew:
        client = await crew.client()
        bad = server.forge.sign(server.forge.client_claims([{"to": "*/*", "may": ["read"]}], sub="alice"), secret=b"mine")
        outcome = await client.outcome("auth", token=bad)
        assert outcome in ("forbidden", "bad_frame", "closed 4500", "closed 4501"), outcome


async def test_hello_cannot_change_who_the_header_says_one_is(server, building):
    header, hello = await server.gateway_token(f"{building}/g1"), await server.gateway_token(f"{building}/g2")
    async with Crew(server) as crew:
        peer = await crew.connect(header_token=header)
        await peer.send({"t": "hello", "token": hello})
        await peer.until(lambda: peer.frames or peer.is_over, "an answer")
        if peer.frames:
            assert peer.frames[0]["address"] == f"{building}/g1"
        else:
            assert await peer.ended() in (4500, 4501)
