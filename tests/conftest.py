"""Fixtures of every test; what the tests share beyond them is in `harness`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from arta_mcp import redaction


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


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """What one test makes up as a secret must not be redacted from the texts of others."""
    known = dict(redaction._forms)  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
    yield
    redaction._forms.clear()  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
    redaction._forms.update(known)  # pyright: ignore[reportPrivateUsage]  # forgetting is for tests alone
