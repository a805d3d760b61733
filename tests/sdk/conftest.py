"""A scripted far end, and both colours of the client in front of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from inferencesh import AsyncInference, Inference
from inferencesh._drivers import AsyncDriver, SyncDriver
from inferencesh._flow import Steps

from tests.sdk.far_end import FarEnd, far_end


class SyncColour:
    """Uses the blocking client."""

    name = "sync"

    def __init__(self, url: str) -> None:
        self._url = url

    def call(self, use: Callable[[Any], Any]) -> Any:
        """What *use* makes of a client."""
        with Inference("key", base_url=self._url) as client:
            return use(client)

    def updates(self, use: Callable[[Any], Any]) -> list[Any]:
        """All updates of the stream that *use* opens."""
        return self.call(lambda client: list(use(client)))

    def play(self, flow: Any) -> tuple[Any, list[Any]]:
        """What *flow* returns and emits when the driver carries it out."""
        driver, steps = SyncDriver(), Steps(flow)
        emitted = list(driver.iterate(steps))
        driver.close()
        return steps.value, emitted


class AsyncColour:
    """Uses the asynchronous client, in a loop of its own for each call."""

    name = "async"

    def __init__(self, url: str) -> None:
        self._url = url

    def call(self, use: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            async with AsyncInference("key", base_url=self._url) as client:
                result = use(client)
                return await result if inspect.isawaitable(result) else result

        return asyncio.run(main())

    def updates(self, use: Callable[[Any], Any]) -> list[Any]:
        async def collect(client: Any) -> list[Any]:
            return [update async for update in use(client)]

        found: list[Any] = self.call(collect)
        return found

    def play(self, flow: Any) -> tuple[Any, list[Any]]:
        async def main() -> tuple[Any, list[Any]]:
            driver, steps = AsyncDriver(), Steps(flow)
            emitted = [update async for update in driver.iterate(steps)]
            await driver.close()
            return steps.value, emitted

        return asyncio.run(main())


@pytest.fixture
def far() -> Iterator[FarEnd]:
    with far_end() as server:
        yield server


@pytest.fixture(params=[SyncColour, AsyncColour], ids=["sync", "async"])
def colour(request: pytest.FixtureRequest, far: FarEnd) -> Any:
    """Both clients in turn, pointed at ``far``."""
    return request.param(far.url)
