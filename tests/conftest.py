"""The servers of a test session, each started when the first test asks for it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis

from tests import servers
from tests.ceph import ceph_s3_server
from tests.golden.trees import TREES
from tests.integration.forge import Forge, forging
from tests.servers import S3Server

TESTS = Path(__file__).parent

# The contracts hold assertions, but are not test modules themselves.
pytest.register_assert_rewrite("tests.conformance.contract")

# A busy machine must not fail a test, so no example has a deadline. `make test` tries half of the examples,
# `make test-slow` all of them.
hypothesis.settings.register_profile("all", deadline=None, max_examples=100)
hypothesis.settings.register_profile("half", deadline=None, max_examples=50)
hypothesis.settings.load_profile("half")

# Files whose tests share a fleet, or what else takes seconds to start.
SHARING = {
    f"tests/integration/test_{name}.py" for name in ("chaos", "commands", "compose", "kubernetes", "traces")
}

# Folders whose tests wait for processes and servers, the longest first. In a run by several processes they come first.
WAITING = ("integration", "golden", "faults", "crash", "plugin_sqlite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests (``-n``), begin with the longest, and end with those of milliseconds."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, int]:
    folder = item.path.relative_to(TESTS).parts[0]
    waiting = WAITING.index(folder) if folder in WAITING else len(WAITING)
    return sharing(item.nodeid) != "moto", waiting + (folder == "unit")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep thousands of tests out of the garbage collector's way, here and in each process that a test forks."""
    if session.items:
        gc.collect()
        gc.freeze()


def pytest_configure() -> None:
    """
    Run what tests start in the environment that most users have.

    Ctrl-C reaches it: a shell lets what it runs in the background ignore it, and all below that.
    """
    for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
        # Most users set neither, and an output without a buffer hides errors.
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what a test logged: processes that share the tests cannot tell each other what is no UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """
    With ``--dist loadscope``, hand out in one piece what `sharing` names.

    One process begins at the end, with the tests that compute: it uses the time in which the others wait.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return sharing(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            if node is self.nodes[-1]:
                self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
            super()._assign_work_unit(node)
            # All of a process's tests are counted whenever one has ended.
            given = self.assigned_work[node]
            for name in [name for name, tests in given.items() if all(tests.values())]:
                del given[name]

    # In the order of the tests, not by their number.
    config.option.loadscopereorder = False
    return Sharing(config, log) if config.option.dist == "loadscope" else None


def sharing(nodeid: str) -> str:
    """
    Return the name of what is costly to have in several processes and is used by a test and others, or its own id.

    That is moto, which takes seconds to start and hundreds of MB, what the tests of a file of `SHARING` start, each
    tree of which snapdir makes a snapshot, a browser, and what the tests of a file of unit tests share. Where a test is
    not recognised, it starts what it needs a second time.
    """
    file, _, name = nodeid.partition("::")
    if "moto" in nodeid.lower():
        return "moto"
    if file.startswith("tests/unit/") or file.endswith("_in_a_browser.py") or file in SHARING:
        return file
    if file.startswith("tests/golden/") and (tree := name.partition("[")[2].removesuffix("]")) in TREES:
        return tree
    return nodeid


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers.rclone_s3_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_memory_server() -> Iterator[S3Server]:
    with servers.rclone_s3_server(None) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server_() -> Iterator[S3Server]:
    with servers.moto_s3_server() as server:
        yield server


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set what S3 clients need in this process; return it for others."""
    for name in servers.UNSET_FOR_S3:
        monkeypatch.delenv(name, raising=False)
    for name, value in servers.S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return dict(servers.S3_ENVIRONMENT)


@pytest.fixture
def rclone_s3(rclone_server: S3Server, s3_environment: dict[str, str]) -> S3Server:
    """rclone's S3 server on a directory: what is in a bucket can be looked at, and damaged, as files."""
    return rclone_server


@pytest.fixture
def rclone_memory_s3(rclone_memory_server: S3Server, s3_environment: dict[str, str]) -> S3Server:
    """rclone's S3 server on its own memory: the fast one."""
    return rclone_memory_server


@pytest.fixture
def moto_s3(moto_server_: S3Server, s3_environment: dict[str, str]) -> S3Server:
    """moto's S3 server: a second implementation, much slower."""
    return moto_server_


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with ceph_s3_server(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def ceph_s3(ceph_server: S3Server, s3_environment: dict[str, str]) -> S3Server:
    """Ceph's S3 server, for slow tests."""
    return ceph_server


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Runs command lines that need no environment but their own, without the time that the importing takes."""
    with forging(tmp_path_factory.mktemp("forge")) as found:
        yield found


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with servers.redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session", autouse=True)
def _close_s3_clients() -> Iterator[None]:
    """Close the connections that S3 backends keep for the life of a process: warnings are errors here."""
    yield
    if s3_clients := sys.modules.get("snapferry.stores.backends.s3.client.clients"):
        for client in s3_clients._clients.values():
            client.close()


@pytest.fixture
def file_root(tmp_path: Path) -> Path:
    """An empty directory that is a store."""
    root = tmp_path / "store"
    root.mkdir()
    return root
