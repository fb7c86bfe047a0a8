"""What several files of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .forge import Forge, forging


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Runs command lines that need no environment but their own, without the time that the importing takes."""
    with forging(tmp_path_factory.mktemp("forge")) as found:
        yield found
