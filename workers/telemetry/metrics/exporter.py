"""
The metrics of a worker with its child processes, over HTTP.

Each process counts in files of its own, in a folder that the main process creates and removes. The main process adds
the files up at each scrape. The counts of a child outlive it: the files of dead processes are merged into one file, so
any number of children may come and go.

Import this module only to serve metrics: prometheus_client is slow to import.
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
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

from celery import signals
from prometheus_client import CollectorRegistry, start_http_server, values
from prometheus_client import Metric as Family
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from snapferry.stores.runtime.liveness import identity, is_dead
from snapferry.workers.private_folder import private_folder
from snapferry.workers.settings.environment import share_metrics_folder

from . import counters
from .catalogue import BUILD_INFO, Role

# The process id in the name of the file with the counts of dead processes. No process has this id.
_NOBODY: Final = 0

_FOLDED: Final = ("counter", "histogram")
_FILES: Final = (*_FOLDED, "gauge_livesum")

# The library maps sparse files of this size. On a full disk a write to such a file would kill the process.
_FILE_BYTES: Final = 1 << 16


class CannotServe(Exception):
    """Metrics cannot be served. The message gives the reason in one line."""


@contextmanager
def serving(
    role: Role, address: str, port: int, *, tasks: list[str], collectors: Sequence[Collector] = ()
) -> Iterator[None]:
    """
    Count what this process and its forked children do, and serve it at http://address:port/metrics in the block.

    *collectors* are also collected at each scrape. Enter this once in a process, before it forks. Raises `CannotServe`;
    then nothing is counted or served.
    """
    folder = _new_folder()
    owner = os.getpid()
    try:
        try:
            reserve(folder)
        except OSError as error:
            raise CannotServe(f"cannot store metrics in {folder}: {error.strerror}") from error
        # The library reads the variable when a value is created, in every process.
        share_metrics_folder(str(folder))
        # The library has chosen the class at its import, when the variable was not set.
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        counters.enable(role, tasks)
        registry = CollectorRegistry(auto_describe=False)
        asked: list[Collector] = [BuildInfo(role), ProcessFiles(folder), *collectors]
        for collector in asked:
            registry.register(collector)
        server, thread = _start_server(port, address, registry)

        def forked(**_: object) -> None:
            # A solo pool sends this signal in the main process.
            if os.getpid() != owner:
                server.socket.close()
                try:
                    reserve(folder)
                except OSError as error:
                    counters.disable(f"no space in {folder}: {error.strerror}")

        signals.worker_process_init.connect(forked, weak=False)
        try:
            yield
        finally:
            if os.getpid() == owner:
                server.shutdown()
                server.server_close()
                thread.join()
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


def _start_server(
    port: int, address: str, registry: CollectorRegistry
) -> tuple[WSGIServer, threading.Thread]:
    try:
        return start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotServe(f"cannot serve metrics at {address} port {port}: {reason}") from error


class BuildInfo:
    """A collector of the metric with the running versions."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def collect(self) -> Iterable[Family]:
        family = GaugeMetricFamily(BUILD_INFO.name, BUILD_INFO.help, labels=BUILD_INFO.labels)
        versions = (version("snapferry"), version("celery"), platform.python_version())
        family.add_metric((*versions, self._role), 1)
        yield family


class ProcessFiles:
    """A collector that adds up the counts of all processes of a worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Family]:
        collector: Any = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        with self._lock:
            fold(self._folder)
            return list(collector.collect())


def reserve(folder: Path) -> None:
    """Reserve disk space for the files of this process. Raises OSError; then the process must not count."""
    for kind in _FILES:
        path = folder / f"{kind}_{os.getpid()}.db"
        # An existing file belongs to a dead process with the same id. Its counts are kept.
        if kind not in _FOLDED or not path.exists():
            _blank(path)


def _blank(path: Path) -> None:
    with path.open("wb") as file:
        file.write(bytes(_FILE_BYTES))


def fold(folder: Path) -> None:
    """
    Merge the counts of dead processes into one file, and remove their files. Their batches in flight are forgotten.

    Only one caller at a time may call this. Without disk space, all files stay as they are.
    """
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
        # The process id belongs to a process of another user now.
        return True
    return False


def _new_folder() -> Path:
    """Create a folder for the files of this process and its children. Remove the folders of dead processes."""
    parent = private_folder("snapferry-metrics")
    if parent is None:
        raise CannotServe(
            "cannot store metrics: cannot create a private folder in the temporary directory (TMPDIR)"
        )
    for left in parent.iterdir():
        if is_dead(left.name):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / identity()
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise CannotServe(f"cannot store metrics in {parent}: {error.strerror}") from error
    return folder
