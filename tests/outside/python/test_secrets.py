"""No token, key or payload in logs and metrics, at debug level, whatever happens to the session.

Every other file's server is searched for its tokens too when it stops; here the ways a secret could get
out are walked on purpose, and payloads are searched for as well.
"""

from __future__ import annotations

import re

from harness.peers import Crew
from harness.raw import TEXT, Raw, frame, upgrade_head
from harness.web import call


async def test_no_canary_is_found_in_logs_or_metrics(server, building):
    address = f"{building}/g1"
    canaries = [f"canary-{word}-5f0c9a1e77" for word in
                ("value", "path", "name", "unknown", "json", "binary", "token", "query", "basic", "event", "body", "key")]
    value, path, name, unknown, broken, binary, token, query, basic, event, body, key = canaries
    async with Crew(server) as crew:
        gateway = await crew.gateway(address, edge=0)
        client = await crew.client(edge=1)
        # Once somebody has connected, whatever the terminal shows of the ready file has been shown.
        shown = {secret: server.logs().count(secret) for secret in (server.api_key, server.ready["client_token"])}
        await client.subscribe(f"{building}/*")
        await gateway.set({path: value})
        await client.knows(address, {path: value})
        await gateway.ask("describe", devices={path: {"kind": "lock", "name": name}})
        renewed = (await gateway.ask("renew"))["token"]
        server.credentials.append(renewed)
        await gateway.outcome("event", id="1", path="bell", type="ring", data={"x": event})
        await gateway.outcome("state", set={f"bad//{path}": value})
        await gateway.outcome("state", set={"a": value}, must=["x"])
        await (await crew.client()).outcome("auth", token=token)
        await (await crew.client()).send(f'{{"t":"ping","x":"{broken}"')
        await (await crew.client()).send(f'{{"t":"{unknown}"}}')
        await (await crew.client()).send(binary.encode())
        await (await crew.session(server.api_key)).outcome("subscribe", to="*/*", lanes=["state"])
        stranger = await crew.connect()
        await stranger.send({"t": "hello", "token": token})
        await stranger.ended()
        await gateway.send({"t": "hello", "token": renewed})
        await gateway.ended()
    for headers in ([("Authorization", f"Basic {basic}")], [("Authorization", f"Bearer {key}")], [("Cookie", f"t={token}")]):
        async with await Raw.dial(server.ws()) as raw:
            await raw.put(upgrade_head(server.ws(), headers=headers))
            await raw.answer()
    async with await Raw.dial(server.ws()) as raw:
        await raw.put(upgrade_head(server.ws(), target=f"/v1/ws?token={query}"))
        assert (await raw.answer()).status == 400
    async with await Raw.open(server.ws(), server.ready["client_token"]) as raw:
        await raw.put(frame(TEXT, value.encode(), mask=False))
        await raw.closed()
    await call(server.http(), "POST", "/v1/tokens", key=key, body={"peer": body})
    await server.api("POST", "/v1/tokens", body={"peer": "gateway", "address": body + "//", "ttl_s": 1})
    await server.api("POST", "/v1/tokens", body=f'{{"peer":"{body}'.encode())
    await call(server.http(), "GET", f"/v1/presence?building=b1&token={query}")

    logs, metrics = server.logs(), await server.metrics(0) + await server.metrics(1)
    found = [canary for canary in canaries if canary in logs or canary in metrics]
    assert not found, [line for line in logs.splitlines() if any(canary in line for canary in found)][:5]
    server.assert_no_secret_logged()
    for secret, count in shown.items():
        assert logs.count(secret) == count, "a credential of the ready file was logged by a session"
        assert secret not in metrics


async def test_the_log_is_kept_at_debug_level_so_that_the_search_means_something(server):
    async with Crew(server) as crew:
        await crew.client()
    assert re.search(r"\bDEBUG\b", server.logs(), re.IGNORECASE)
