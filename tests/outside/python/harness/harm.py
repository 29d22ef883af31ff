"""The frame around every test of bad input.

Whatever comes in, three things hold: the counter named by the protocol's operators' view rises, another
session on the same edge goes on working, and the process is alive.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

from .peers import Crew
from .server import Server
from .waiting import eventually

REFUSED = "riser_refused_total"
CLOSED = "riser_closed_total"
# A bystander on a loaded two-core machine; without harm the answer takes a millisecond.
BYSTANDER_S = 2.0


@asynccontextmanager
async def harmless(server: Server, counter: str | None = None, *, edge: int = 0, **labels: str):
    """Runs the block beside a bystander on `edge`; at the end `counter` with the labels must have risen."""
    async with Crew(server) as crew:
        bystander = await crew.client(edge=edge)
        before = await server.total(counter, **labels) if counter else 0.0
        yield
        await bystander.ping(BYSTANDER_S)
        assert server.alive(), server.logs()[-4000:]
        if counter:

            async def rose():
                return await server.total(counter, **labels) > before

            await eventually(rose, f"{counter} {labels} rising above {before}")
