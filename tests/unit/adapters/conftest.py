from collections.abc import AsyncIterator

import pytest
from adapters_kit import Web, running_web


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with running_web() as web:
        yield web
