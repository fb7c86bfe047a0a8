"""What several files of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import program

from .forge import Forge, forging


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Runs command lines that need no environment but their own, without the time that the importing takes."""
    with forging(tmp_path_factory.mktemp("forge")) as found:
        yield found


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
