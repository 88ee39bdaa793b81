"""What every test stands on: the embedded service, in process or on a port."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def need() -> Callable[[bool, str], None]:
    """`need(there_is_it, reason)` skips with the reason, or fails when REQUIRE_ALL=1."""

    def check(there: bool, reason: str) -> None:
        if there:
            return
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"REQUIRE_ALL=1 but {reason}")
        pytest.skip(reason)

    return check
