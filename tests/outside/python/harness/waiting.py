"""Waiting for a condition, never for a time.

Tests name what must become true and how long that may take. Only a peer's inbox is event-driven; what
lives behind HTTP or in a file is looked at again and again, which is still level-triggered: a state that
was reached is seen whenever one looks.
"""

from __future__ import annotations

import asyncio
import inspect
import time

# How often something outside this process is looked at again. Short against every limit in the tests.
LOOK_AGAIN_S = 0.02


async def eventually(condition, what: str, timeout: float = 5.0):
    """Returns the condition's first true value, or fails with `what` after `timeout` seconds.

    The condition may be a coroutine function. An AssertionError from it counts as "not yet".
    """
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what} (last seen: {last!r})")
        await asyncio.sleep(LOOK_AGAIN_S)
