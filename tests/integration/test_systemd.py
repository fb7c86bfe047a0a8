"""
The units of systemd: each ExecStart started natively with its own environment, and stopped by its unit's signal.

Only what a machine would bring is replaced: /etc, /var, where the program is, the broker's address, and ports.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.schedules.status import mirror_statuses
from snapferry.workers.ledger import State
from snapferry.workers.lifecycle.shutdown import FORCE_S
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.documented import documented
from tests.sample import make_store, random_files, tree
from tests.scrape import scrape
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server, free_port
from tests.variables import READ

from .processes import PATIENCE_S, REPOSITORY, Started, marked, started, until
from .processes import environment as environment_of
from .units import FOLDER, Unit, units

PROGRAM = "/opt/snapferry/bin/snapferry"
ROLES = ["worker@", "orchestrator", "scheduler", "flower", "dashboard"]


@dataclass
class Machine:
    """Stands for a machine on which the units are installed as docs/deploy.md says."""

    root: Path
    broker: str

    def __post_init__(self) -> None:
        """Lay out what is in /etc, with the examples as they are shipped but for the address of the broker."""
        for name in ("etc", "lib", "cache", "credentials"):
            (self.root / name).mkdir()
        for name in ("snapferry.env", "secrets.env"):
            text = (FOLDER / f"{name}.example").read_text()
            self.write(name, text.replace("redis://127.0.0.1:6379/0", self.broker))
        self.write(
            "snapferry.toml",
            '[[mirror]]\nname = "nightly"\nfrom = "file:///srv/a"\nto = "file:///srv/b"\nevery = "6h"\n',
        )

    def write(self, name: str, text: str) -> None:
        """Write a file of /etc/snapferry."""
        (self.root / "etc" / name).write_text(text)

    def unit(self, role: str, instance: str = "") -> Unit:
        """Return a unit with the places of this machine."""
        return self.at(FOLDER / f"snapferry-{role}.service", instance)

    def at(self, file: Path, instance: str) -> Unit:
        """Return the unit in *file* with the places of this machine."""
        places = {
            "S": str(self.root / "lib"),
            "C": str(self.root / "cache"),
            "d": str(self.root / "credentials"),
        }
        return Unit(file, instance, places)

    def once(self, unit: Unit) -> subprocess.CompletedProcess[str]:
        """Run a unit that ends by itself, as systemd would."""
        command, environment = self._prepared(unit)
        return subprocess.run(
            command,
            env=environment_of(environment),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def _prepared(self, unit: Unit) -> tuple[list[str], dict[str, str]]:
        """Make the places of a unit; return its command and its environment."""
        for kind in ("State", "Cache"):
            if unit.has(f"{kind}Directory"):
                place = {"State": "lib", "Cache": "cache"}[kind]
                folder = self.root / place / unit.one(f"{kind}Directory")
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(int(unit.one(f"{kind}DirectoryMode"), 8))
        for credential in unit.said("SetCredential") if unit.has("SetCredential") else []:
            name, _, otherwise = credential.partition(":")
            assert name in unit.said("LoadCredential")
            if not (file := self.root / "credentials" / name).exists():
                file.write_text(otherwise)
        environment = unit.environment(self.root / "etc")
        environment = {
            name: value.replace("/etc/snapferry", str(self.root / "etc"))
            for name, value in environment.items()
        }
        program, *words = unit.command(environment)
        assert program == PROGRAM
        found = shutil.which("snapferry", path=Path(sys.executable).parent)
        assert found, "snapferry is not installed"
        # A home that is not there: nothing may be looked for in it.
        return [found, *words], environment | {"HOME": "/nonexistent"}

    @contextmanager
    def running(self, unit: Unit, port: int = 0) -> Iterator[Started]:
        """Start a unit as systemd would, ready when this is entered; *port* takes the place of its port."""
        (found, *words), environment = self._prepared(unit)
        if port:
            assert sum(word.startswith("--port=") for word in words) == 1
            words = [re.sub("^--port=.*", f"--port={port}", word) for word in words]
        with started(found, *words, env=environment, log=self.root / f"{unit.name}.log") as process:
            serves = self._serves(unit.name, process, port)
            until(lambda: serves() or process.process.poll() is not None, f"{unit.name} serves")
            assert process.process.poll() is None, process.logged()[-2000:]
            yield process

    def _serves(self, name: str, process: Started, port: int) -> Callable[[], bool]:
        if "flower" in name:
            return lambda: answers(f"http://127.0.0.1:{port}/healthcheck")
        if "dashboard" in name:
            return lambda: answers(f"http://127.0.0.1:{port}/healthz")
        if "scheduler" in name:
            return self._is_scheduled
        return lambda: " ready." in process.logged()

    def _is_scheduled(self) -> bool:
        """Say whether the mirror of snapferry.toml is to be run at some time."""
        settings = Settings(broker_url=self.broker)
        mirrors = read_config(str(self.root / "etc/snapferry.toml")).mirror
        return mirror_statuses(settings, Jobs(settings), mirrors)[0].next_at is not None


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def machine(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "machine"
    root.mkdir()
    return Machine(root, redis_url)


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_serves_and_ends_by_its_signal_in_its_time(role: str, machine: Machine) -> None:
    unit = machine.unit(role, "1" if "@" in role else "")
    port = free_port() if role in {"flower", "dashboard"} else 0
    with machine.running(unit, port) as process:
        if role == "flower":
            assert not (machine.root / "lib/snapferry/flower").stat().st_mode & 0o077
        assert unit.one("KillMode") == "mixed"
        os.kill(process.process.pid, signal.Signals[unit.one("KillSignal")])
        code = process.process.wait(PATIENCE_S)

        assert code == 0, process.logged()[-2000:]
        until(lambda: not marked(process.mark), "its children are gone")


def test_the_units_of_a_machine_copy_a_snapshot_with_the_keys_that_systemd_hands_them(
    machine: Machine, rclone_server: S3Server, tmp_path: Path
) -> None:
    """Two workers on a machine are two nodes; settings of one are its own; plans are kept in the unit's cache."""
    (machine.root / "credentials/snapferry-aws").write_text(
        f"[backup]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    port = free_port()
    allowed = f"SNAPFERRY_ACCESS_ENDPOINTS={rclone_server.endpoint}\nSNAPFERRY_ACCESS_PROFILES=backup\n"
    machine.write("snapferry-orchestrator.env", allowed)
    machine.write("snapferry-worker@1.env", allowed)
    machine.write(
        "snapferry-worker@2.env",
        allowed
        + f"SNAPFERRY_METRICS_PORT={port}\nSNAPFERRY_LOG_FORMAT=text\nWORKER_OPTIONS=--concurrency 2 --queue default\n",
    )
    snapshot = make_store(tmp_path / "a", random_files(20))
    bucket = rclone_server.make_bucket()
    destination = rclone_server.url(bucket) + "&region=us-east-1&profile=backup"
    jobs = Jobs(Settings(broker_url=machine.broker))
    with ExitStack() as stack:
        stack.enter_context(machine.running(machine.unit("orchestrator")))
        one = stack.enter_context(machine.running(machine.unit("worker@", "1")))
        two = stack.enter_context(machine.running(machine.unit("worker@", "2")))
        job = jobs.submit(
            JobSpec.of(StoreRef(url=f"file://{tmp_path / 'a'}"), StoreRef(url=destination), [snapshot])
        )
        ended = jobs.wait(job, timeout_s=PATIENCE_S)

        assert ended.state is State.DONE, ended.error
        assert any("worker-1@" in line for line in one.said())
        assert "worker-2@" in two.logged()
        assert scrape(port).value("snapferry_build_info", role="worker") == 1
        plans = machine.root / "cache/snapferry/orchestrator" / f"snapferry-plans-{os.getuid()}"
        assert plans.is_dir()

    arrived = {entry["Key"] for entry in rclone_server.client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert arrived == tree(tmp_path / "a").keys()


NIGHTLY = FOLDER / "one-machine"


def test_the_unit_of_one_machine_runs_a_mirror_once_without_redis(machine: Machine, tmp_path: Path) -> None:
    make_store(tmp_path / "a", random_files(20))
    machine.write(
        "snapferry.toml",
        f'[[mirror]]\nname = "nightly"\nfrom = "file://{tmp_path}/a"\nto = "file://{tmp_path}/b"\nevery = "1d"\n',
    )
    ended = machine.once(machine.at(NIGHTLY / "snapferry@.service", "nightly"))

    assert ended.returncode == 0, ended.stderr
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert sorted(path.name for path in (machine.root / "lib/snapferry/runs").iterdir()) == [
        "mirror-nightly.json",
        "mirror-nightly.lock",
    ]
    assert list((machine.root / "cache/snapferry/runs").iterdir()) == []
    missing = machine.once(machine.at(NIGHTLY / "snapferry@.service", "weekly"))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_the_unit_of_one_machine_is_as_confined_as_those_of_the_fleet(machine: Machine) -> None:
    own, fleet = machine.at(NIGHTLY / "snapferry@.service", "x"), machine.unit("worker@", "1")
    sandbox = {
        key
        for section, key in fleet.settings()
        if section == "Service"
        and re.match("Protect|Private|Restrict|System|Lock|NoNew|Capab|Limit|UMask|IPAddress", key)
    }

    assert len(sandbox) > 15
    assert {key: own.said(key) for key in sandbox} == {key: fleet.said(key) for key in sandbox}
    assert own.one("Type") == "oneshot"
    # A fleet on the same machine has a drop-in that restarts units: it must not apply to this one.
    assert "-" not in own.file.name
    timer = Unit(NIGHTLY / "snapferry@.timer", "x")
    assert timer.one("Persistent", "Timer") == "true"
    if servers.program("systemd-analyze"):
        assert "03:30:00" in systemd_analyze("calendar", timer.one("OnCalendar", "Timer"))


def test_every_unit_stops_later_than_the_grace_and_comes_back_unless_it_is_told_to_stop() -> None:
    example = (FOLDER / "snapferry.env.example").read_text()
    grace = float(dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))["SNAPFERRY_GRACE"])
    assert grace == Settings().grace

    assert {unit.file.name for unit in units()} == {f"snapferry-{role}.service" for role in ROLES}
    for unit in units():
        assert unit.seconds("TimeoutStopSec") > grace + FORCE_S, unit.name
        assert unit.one("Restart") == "always", unit.name
        assert unit.one("StartLimitIntervalSec", "Unit") == "0", unit.name
        assert unit.seconds("RestartMaxDelaySec") > unit.seconds("RestartSec"), unit.name


def test_every_unit_runs_as_its_own_user_with_little_to_write_to() -> None:
    for unit in units():
        assert (unit.one("User"), unit.one("Group")) == ("snapferry", "snapferry"), unit.name
        for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictNamespaces"):
            assert unit.one(key) == "yes", (unit.name, key)
        assert unit.one("ProtectSystem") == "strict", unit.name
        assert unit.said("CapabilityBoundingSet") == [], unit.name
        assert unit.has("ReadWritePaths") == (unit.file.name in COPYING), unit.name


COPYING = {"snapferry-worker@.service", "snapferry-orchestrator.service"}


def test_every_variable_is_one_that_is_read() -> None:
    named = {
        name
        for file in FOLDER.rglob("*")
        if file.is_file()
        for name in re.findall(r"\bSNAPFERRY_[A-Z_]+", file.read_text())
    }

    assert {"SNAPFERRY_BROKER_URL", "SNAPFERRY_GRACE", "SNAPFERRY_CONFIG"} <= named
    assert named <= READ


def test_no_file_that_is_shipped_holds_a_password() -> None:
    for file in FOLDER.rglob("*"):
        if file.is_file():
            given = [line for line in file.read_text().splitlines() if not line.startswith("#")]
            assert not [
                line for line in given if re.search(r"://[^/ ]*@|BASIC_AUTH=.|SECRET|PASSWORD", line)
            ], file


def systemd_analyze(*arguments: str) -> str:
    """Run systemd-analyze; return what it said. Fails the test if it is not content, skips it where there is none."""
    program = servers.program("systemd-analyze")
    if program is None:
        # CI accepts no skipped test where it can be had.
        pytest.skip("there is no systemd-analyze; on Debian and Ubuntu: apt-get install systemd")
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as they are installed, with a program that is there; without what systemd before 254 does not know."""
    folder = tmp_path / "system"
    folder.mkdir()
    (copy,) = [line for line in documented("daemon-reload") if line.startswith("cp ")]
    assert copy.endswith(" /etc/systemd/system/")
    nightly = re.search(
        "^    (cp .*one-machine.*)$", (REPOSITORY / "docs/nightly.md").read_text(), re.MULTILINE
    )
    assert nightly
    for command in (copy, nightly[1]):
        subprocess.run(
            ["sh", "-c", command.replace("/etc/systemd/system/", str(folder))], cwd=REPOSITORY, check=True
        )
    version = re.match(r"systemd (\d+)", systemd_analyze("--version"))
    assert version
    for file in [*folder.glob("*.service"), *folder.glob("*.d/*.conf")]:
        text = file.read_text().replace(PROGRAM, sys.executable)
        if int(version[1]) < 254:
            text = re.sub(r"^Restart(Steps|MaxDelaySec)=.*$", "", text, flags=re.MULTILINE)
        file.write_text(text)
    return [str(folder / unit.name) for unit in units()] + [str(folder / "snapferry@nightly.timer")]


def test_systemd_accepts_the_units(installed: list[str]) -> None:
    for unit in installed:
        assert systemd_analyze("verify", "--man=no", unit) == "", unit


def test_systemd_accepts_the_documented_mail_about_a_failure(installed: list[str], tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/nightly.md").read_text()
    blocks = re.findall(r"`/etc/systemd/system/([^`]+)`:\n\n((?:    .*\n|\n)+)", page)
    folder = Path(installed[0]).parent
    for name, block in blocks:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(re.sub("^    ", "", block, flags=re.MULTILINE))

    assert [name for name, _ in blocks] == ["snapferry@.service.d/failure.conf", "mail-failure@.service"]
    unit = folder / "snapferry@nightly.service"
    assert (
        systemd_analyze("verify", "--man=no", str(unit), str(folder / f"mail-failure@{unit.name}.service"))
        == ""
    )


def test_systemd_finds_the_units_well_confined(installed: list[str]) -> None:
    """Exposure goes from 0 to 10; what listens to others and runs as it likes has more than 9."""
    for unit in installed:
        template = re.sub("@.*", "@.service", unit)
        systemd_analyze("security", "--offline=true", "--threshold=20", "--no-pager", template)
