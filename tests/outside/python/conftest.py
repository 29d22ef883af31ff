"""Fixtures of the outside suite, and the few lines that let a test be a coroutine."""

from __future__ import annotations

import asyncio
import inspect
import itertools

import pytest

from harness.server import Server

# A test that takes longer hangs; those that observe long silences say so with `limit`.
USUAL_LIMIT_S = 60
_BUILDINGS = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs coroutine tests in an event loop of their own, under the test's time limit."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    marker = pyfuncitem.get_closest_marker("limit")
    seconds = marker.args[0] if marker else USUAL_LIMIT_S
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def run():
        await asyncio.wait_for(pyfuncitem.obj(**arguments), seconds)

    asyncio.run(run())
    return True


def pytest_collection_modifyitems(items):
    """The longest test starts first, so that the others run beside it."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture(scope="module")
def server():
    """Two edges over one bus, a fresh cluster per test file."""
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def building() -> str:
    """A building that no other test of this process uses."""
    return f"b{next(_BUILDINGS)}"
