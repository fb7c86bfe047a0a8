"""What several files of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import program


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser of the system: none is downloaded."""
    found = program("chromium") or program("chromium-browser")
    if found is None:
        pytest.skip("there is no chromium; on Debian and Ubuntu: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
