"""
The metrics of a worker with its child processes, over HTTP.

Each process counts in files of its own, in a folder that the main process made
and will remove; the main process adds them up when it is asked. What a child
counted outlives it: the files of dead processes are folded into one, so that
children may come and go for ever.
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import signals

from snapferry.stores.runtime.liveness import identity, is_dead
from snapferry.workers.private_folder import private_folder
from snapferry.workers.settings.environment import share_metrics_folder

from . import counters
from .catalogue import BUILD_INFO, Role

if TYPE_CHECKING:
    from prometheus_client import Metric as Family
    from prometheus_client.registry import Collector

# In place of a process's number, in the name of the file that has the counts of the dead: no process has it.
_NOBODY: Final = 0

_FOLDED: Final = ("counter", "histogram")
_FILES: Final = (*_FOLDED, "gauge_livesum")

# The library maps files of so many bytes with nothing behind them: on a full disk a write would end the process.
_FILE_BYTES: Final = 1 << 16


class CannotServe(Exception):
    """Metrics cannot be served as it was asked for; the message says why, in one line."""


@contextmanager
def serving(
    role: Role, address: str, port: int, *, tasks: list[str], collectors: Sequence[Collector] = ()
) -> Iterator[None]:
    """
    Count what this process and those forked from it do, and serve it at http://address:port/metrics in the block.

    *collectors* are asked as well, at each scrape. To be entered once in a
    process, before it forks. Raises `CannotServe`; then nothing was begun.
    """
    folder = _new_folder()
    owner = os.getpid()
    try:
        try:
            reserve(folder)
        except OSError as error:
            raise CannotServe(f"metrics cannot be kept in {folder}: {error.strerror}") from error
        # The library looks for it when a value is made, in every process.
        share_metrics_folder(str(folder))
        from prometheus_client import CollectorRegistry, start_http_server, values

        # It decides this when it is imported; that may have been before.
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        counters.enable(role, tasks)
        registry = CollectorRegistry(auto_describe=False)
        asked: list[Collector] = [BuildInfo(role), ProcessFiles(folder), *collectors]
        for collector in asked:
            registry.register(collector)
        try:
            server, thread = start_http_server(port, address, registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CannotServe(f"metrics cannot be served at {address} port {port}: {reason}") from error

        def forked(**_: object) -> None:
            # The pool of one process sends this signal in the main process.
            if os.getpid() != owner:
                server.socket.close()
                try:
                    reserve(folder)
                except OSError as error:
                    counters.disable(f"there is no room for them: {error.strerror}")

        signals.worker_process_init.connect(forked, weak=False)
        try:
            yield
        finally:
            if os.getpid() == owner:
                server.shutdown()  # type: ignore[possibly-undefined]
                server.server_close()
                thread.join()  # type: ignore[possibly-undefined]
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


class BuildInfo:
    """Says which versions run."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def collect(self) -> Iterable[Family]:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(BUILD_INFO.name, BUILD_INFO.help, labels=BUILD_INFO.labels)
        versions = (version("snapferry"), version("celery"), platform.python_version())
        family.add_metric((*versions, self._role), 1)
        yield family


class ProcessFiles:
    """Adds up what the processes of a worker counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Family]:
        from prometheus_client.multiprocess import MultiProcessCollector

        collector: Any = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        with self._lock:
            fold(self._folder)
            return list(collector.collect())


def reserve(folder: Path) -> None:
    """Make sure that this process's files will have room. Raises OSError, and then it must not count."""
    for kind in _FILES:
        path = folder / f"{kind}_{os.getpid()}.db"
        # One that is there is of an earlier process with this number, and its counts are to be kept.
        if kind not in _FOLDED or not path.exists():
            _blank(path)


def _blank(path: Path) -> None:
    with path.open("wb") as file:
        file.write(bytes(_FILE_BYTES))


def fold(folder: Path) -> None:
    """
    Add what dead processes counted to one file, and remove theirs; what they had in flight is forgotten.

    To be called by one caller at a time. Where there is no room it stays as it is.
    """
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    dead = {process for path in folder.glob("*.db") if _is_gone(process := _process_of(path))}
    for process in dead:
        mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]
    for kind in _FOLDED:
        theirs = [path for process in dead if (path := folder / f"{kind}_{process}.db").exists()]
        if not theirs:
            continue
        together = folder / f"{kind}_{_NOBODY}.db"
        sums: dict[str, float] = defaultdict(float)
        for path in [*([together] if together.exists() else []), *theirs]:
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                sums[key] += value
        fresh = folder / f"{kind}.folding"
        try:
            _blank(fresh)
        except OSError:
            return
        written: Any = MmapedDict(str(fresh))  # type: ignore[no-untyped-call]
        for key, value in sums.items():
            written.write_value(key, value, 0.0)
        written.close()
        fresh.replace(together)
        for path in theirs:
            path.unlink()


def _process_of(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _is_gone(process: int) -> bool:
    if process == _NOBODY:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # Somebody else's has the number now.
        return True
    return False


def _new_folder() -> Path:
    """Make a folder for the files of this process and its children; remove those of dead ones."""
    parent = private_folder("snapferry-metrics")
    if parent is None:
        raise CannotServe("metrics cannot be kept: the temporary directory (TMPDIR) takes no private folder")
    for left in parent.iterdir():
        if is_dead(left.name):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / identity()
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise CannotServe(f"metrics cannot be kept in {parent}: {error.strerror}") from error
    return folder
