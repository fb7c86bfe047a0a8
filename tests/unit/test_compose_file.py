"""What docker-compose.yml says: its form, and what no service may lack, read and not run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from snapferry.orchestrator.cli.group import COMMANDS
from snapferry.workers.settings.environment import Settings, dashboard_login, notify_urls
from tests.composed import FILE, VARIABLE, Missing, Service, document, entry_point, interpolated
from tests.published import checked

ROOT = FILE.parent
SERVICES: dict[str, dict[str, Any]] = document()["services"]
OWN = {name for name, service in SERVICES.items() if service["image"] == "snapferry"}
FLEET = ("orchestrator", "worker")
EACH = pytest.mark.parametrize("name", sorted(SERVICES))

# Variables of compose alone: what it mounts, and who may write there.
OF_COMPOSE = {"SNAPFERRY_AWS_PROFILES", "SNAPFERRY_STORES", "SNAPFERRY_USER"}
# What a member of the fleet takes from files, or from the time that compose gives it to stop.
NOT_HANDED_ON = {"config", "prices", "grace"}

# The variables without which compose does not begin.
GIVEN = {"FLOWER_BASIC_AUTH": "a:b", "REDIS_PASSWORD": "c0ffee", "SNAPFERRY_DASHBOARD_BASIC_AUTH": "a:b"}

SIZES = {"k": 1024, "m": 1024**2, "g": 1024**3}


def size(text: str) -> int:
    """Return the bytes of a size, as compose and Redis write it."""
    number, unit = re.fullmatch(r"(\d+)([kmg])b?", text).groups()  # type: ignore[union-attr]
    return int(number) * SIZES[unit]


def limits(name: str, given: dict[str, str] | None = None) -> tuple[float, int]:
    """Return how many CPUs and bytes a service may take."""
    found = SERVICES[name]["deploy"]["resources"]["limits"]
    return float(interpolated(found["cpus"], given or {})), size(interpolated(found["memory"], given or {}))


def mounts(name: str) -> dict[str, tuple[str, bool]]:
    """Return path in the container -> what is mounted there, and whether it may be written."""
    found = {}
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, str):
            source, target, *options = interpolated(volume, {}).split(":")
            found[target] = (source, options != ["ro"])
        else:
            found[volume["target"]] = (interpolated(volume["source"], {}), not volume["read_only"])
    for line in SERVICES[name].get("tmpfs", []):
        found[line.partition(":")[0]] = (line, True)
    return found


def test_the_file_is_of_the_published_schema() -> None:
    ended = checked(FILE, "compose-spec")

    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("healthcheck:", "healthchecks:"), ("stop_grace_period: 60s", "stop_grace_period: [60]")],
)
def test_a_broken_file_is_not_of_the_schema(tmp_path: Path, right: str, wrong: str) -> None:
    text = FILE.read_text()
    assert right in text
    (tmp_path / "broken.yml").write_text(text.replace(right, wrong, 1))

    assert checked(tmp_path / "broken.yml", "compose-spec").exit_code == 1


@EACH
def test_every_service_is_started_again_watched_and_limited(name: str) -> None:
    service = SERVICES[name]

    if name == "sample":
        # It does its work once, and ends.
        assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"].keys() == {"test", "interval", "timeout", "start_period"} | (
            {"retries"} if name == "redis" else set()
        )
    cpus, memory = limits(name)
    # Docker refuses more CPUs than there are, and some machines have one.
    assert 0 < cpus <= 1
    assert memory >= 256 * 1024**2
    upper = name.upper()
    assert limits(name, {f"{upper}_CPUS": "3.5", f"{upper}_MEMORY": "7g"}) == (3.5, 7 * 1024**3)
    assert service["logging"] == {"driver": "local"}


@EACH
def test_no_service_is_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]

    user, _, group = interpolated(service["user"], {}).partition(":")
    assert int(user) > 0
    assert group.isdigit()
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode"} & service.keys()
    # Compose refuses to hand secrets from the environment to a service that is read-only.
    assert service["read_only"] is ("secrets" not in service)


def test_the_image_is_built_in_stages_and_is_of_the_user_that_owns_its_folders() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    stages = [line for line in lines if line.startswith("FROM ")]
    last = lines[lines.index(stages[-1]) :]

    assert len(stages) > 1
    (user,) = [line.removeprefix("USER ") for line in last if line.startswith("USER ")]
    assert interpolated(SERVICES["worker"]["user"], {}) == user == SERVICES["flower"]["user"]
    # What compilers and pip leave stays behind: only the environment is taken over.
    assert [line for line in last if line.startswith("COPY ")] == [
        "COPY --from=environment /opt/snapferry /opt/snapferry"
    ]


def test_the_image_runs_the_command_with_the_arguments_that_it_is_given() -> None:
    """As in `docker run snapferry sync …`: the words after the image are those after the command's name."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (shown,) = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]

    assert (entry_point(), shown) == (["snapferry"], ["--help"])
    for name in OWN - {"sample"}:
        service = SERVICES[name]
        assert "entrypoint" not in service
        assert service["command"][0] in COMMANDS, name
    for found in sorted((ROOT / "deploy/kubernetes").rglob("*.yaml")):
        # There `command` takes the place of the entry point.
        for words in re.findall(r"^ +(command|args):\s*(?:\[|\n +- )(\w+)", found.read_text(), re.MULTILINE):
            assert words != ("args", "snapferry"), found


def test_base_images_have_an_exact_version_and_may_be_given_with_a_digest() -> None:
    text = (ROOT / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE)

    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    assert {line.split()[1] for line in text.splitlines() if line.startswith("FROM ")} == {"${PYTHON_IMAGE}"}


@EACH
def test_images_are_of_one_version_and_pages_are_for_this_machine_alone(name: str) -> None:
    service = SERVICES[name]

    assert name in OWN or re.search(r":v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$", service["image"])
    assert ("build" in service) == (name in OWN)
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_what_not_every_fleet_needs_has_a_profile() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}

    assert profiles == {
        "redis": [],
        "orchestrator": [],
        "worker": [],
        "flower": [],
        "dashboard": [],
        "scheduler": ["scheduler"],
        "sample": ["demo"],
        "s3": ["demo"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    for service in SERVICES.values():
        # Nothing waits for what its own profile does not start.
        for other in service.get("depends_on", {}):
            assert profiles[other] in ([], service.get("profiles", []))


def test_no_password_stands_in_the_file() -> None:
    secrets = document()["secrets"]
    assert secrets
    assert all(secret.keys() == {"environment"} for secret in secrets.values())
    stated = [pair for service in SERVICES.values() for pair in service.get("environment", {}).items()]
    private = {
        name: value
        for name, value in stated
        if re.search("AUTH|PASSWORD|SECRET|TOKEN|KEY", name) and value is not None
    }
    assert private == {
        "FLOWER_BASIC_AUTH": "${FLOWER_BASIC_AUTH:?set FLOWER_BASIC_AUTH to user:password}",
        "REDIS_PASSWORD": "${REDIS_PASSWORD:?set REDIS_PASSWORD to letters and digits, as of openssl rand -hex 24}",
        "REDISCLI_AUTH": "${REDIS_PASSWORD:?set REDIS_PASSWORD to letters and digits, as of openssl rand -hex 24}",
        "SNAPFERRY_DASHBOARD_BASIC_AUTH": "${SNAPFERRY_DASHBOARD_BASIC_AUTH:?"
        "set SNAPFERRY_DASHBOARD_BASIC_AUTH to user:password}",
        # Read by Grafana, which does not start where there is no such file.
        "GF_SECURITY_ADMIN_PASSWORD": "$$__file{/run/secrets/grafana_password}",
    }
    for name, service in SERVICES.items():
        used = set(re.findall(r"/run/secrets/(\w+)", yaml.safe_dump(service)))
        assert used == set(service.get("secrets", [])) <= secrets.keys(), name
    # No user and password in a URL but what comes of a variable.
    assert not re.search(r"://[^/\s@]*[^/\s@:]@", VARIABLE.sub("", FILE.read_text()))


def test_what_must_be_set_is_named_and_nothing_else_must_be() -> None:
    text = FILE.read_text()
    variables = list(VARIABLE.finditer(text))
    needed = {match["name"]: match[0] for match in variables if match["how"] == "?"}

    assert needed.keys() == {"FLOWER_BASIC_AUTH", "REDIS_PASSWORD", "SNAPFERRY_DASHBOARD_BASIC_AUTH"}
    for name, variable in needed.items():
        with pytest.raises(Missing, match=f"set {name} to "):
            interpolated(variable, {})
        # Set but empty is not set.
        with pytest.raises(Missing):
            interpolated(variable, {name: ""})
    # Every other one has a default.
    assert all(match["how"] for match in variables if match["name"])


def test_the_page_on_deployment_names_every_profile_and_every_variable() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    section = text.split("\n## Docker Compose\n", 1)[1].split("\n## ", 1)[0]
    variables = {match["name"] for match in VARIABLE.finditer(FILE.read_text()) if match["name"]}
    variables |= {secret["environment"] for secret in document()["secrets"].values()}
    limited = {f"{name.upper()}_{what}" for name in SERVICES for what in ("CPUS", "MEMORY")}
    assert limited <= variables

    named = set(re.findall(r"`([A-Z_]+)`", section))
    assert named >= variables - limited
    assert named - variables <= {"SNAPFERRY_BATCH_OBJECTS", "SNAPFERRY_GRACE", "SNAPFERRY_PRICES"}
    rows = dict(re.findall(r"^\| `?(\w+)`? \| (`.*) \|$", section, re.MULTILINE))
    for name, service in SERVICES.items():
        (profile,) = service.get("profiles", ["none"])
        assert f"`{name}`" in rows[profile], name


def test_every_variable_of_snapferry_is_one_that_it_reads() -> None:
    known = {f"SNAPFERRY_{field.upper()}" for field in Settings.model_fields}
    assert dashboard_login({"SNAPFERRY_DASHBOARD_BASIC_AUTH": "a:b"}) == ("a", "b")
    assert notify_urls({"SNAPFERRY_NOTIFY_URLS": "json://a json://b"}) == ("json://a", "json://b")
    known |= {"SNAPFERRY_DASHBOARD_BASIC_AUTH", "SNAPFERRY_NOTIFY_URLS"}
    stated = {variable for service in SERVICES.values() for variable in service.get("environment", {})}
    stated |= {match["name"] for match in VARIABLE.finditer(FILE.read_text()) if match["name"]} - OF_COMPOSE

    assert {variable for variable in stated if variable.startswith("SNAPFERRY_")} <= known
    # One value for the whole fleet: what can be set is handed to all of its members.
    settings = {f"SNAPFERRY_{field.upper()}" for field in Settings.model_fields.keys() - NOT_HANDED_ON}
    for name in FLEET:
        assert settings <= SERVICES[name]["environment"].keys(), name
    for name in OWN - {"sample"}:
        assert Service(name, GIVEN).environment()["SNAPFERRY_BROKER_URL"] == "redis://:c0ffee@redis:6379/0"


def test_the_settings_of_the_fleet_are_accepted() -> None:
    for name in FLEET:
        settings = Settings.from_environment(Service(name, GIVEN).environment())
        assert (settings.metrics_port, settings.metrics_address) == (9464, "0.0.0.0")


def test_whoever_stops_a_member_of_the_fleet_waits_for_longer_than_its_grace() -> None:
    for name in FLEET:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings().grace + 3


@pytest.mark.parametrize("name", sorted(OWN))
def test_there_is_a_temporary_directory_in_a_container_that_is_read_only(name: str) -> None:
    found = mounts(name)
    folder = Service(name, GIVEN).environment().get("TMPDIR", "/tmp")

    source, writable = found[folder]
    assert writable
    if name == "orchestrator":
        # The plans of large jobs do not fit into memory.
        assert source in document()["volumes"]
    # What lies in memory counts as memory.
    held = [int(size(text)) for line in SERVICES[name]["tmpfs"] for text in re.findall(r"size=(\w+)", line)]
    assert len(held) == len(SERVICES[name]["tmpfs"])
    assert sum(held) <= limits(name)[1] / 2


def test_profiles_of_aws_are_where_stores_are_opened() -> None:
    path = "/etc/snapferry/aws-profiles"
    for name, service in SERVICES.items():
        told = service.get("environment", {}).get("AWS_SHARED_CREDENTIALS_FILE")
        assert (mounts(name).get(path), told) == (
            (("./deploy/aws/profiles.example", False), path)
            if name in {*FLEET, "dashboard"}
            else (None, None)
        )


def test_stores_are_where_they_are_needed_and_the_dashboard_only_reads_them() -> None:
    assert {name: found["/stores"] for name in SERVICES if "/stores" in (found := mounts(name))} == {
        "orchestrator": ("stores", True),
        "worker": ("stores", True),
        "sample": ("stores", True),
        "dashboard": ("stores", False),
    }


def test_every_volume_is_declared_and_every_file_that_is_mounted_is_there() -> None:
    sources = {source for name in SERVICES for source, _ in mounts(name).values()}
    named = {source for source in sources if re.fullmatch(r"\w+", source)}
    files = {source for source in sources if source.startswith("./")}

    assert named == document()["volumes"].keys()
    # Whoever runs the scheduler writes this one.
    files.remove("./snapferry.toml")
    assert files
    assert [source for source in files if not (ROOT / source).exists()] == []
    (own,) = SERVICES["scheduler"]["volumes"]
    assert own["bind"] == {"create_host_path": False}


def test_redis_keeps_its_data_never_evicts_and_refuses_before_it_is_killed() -> None:
    command = [interpolated(part, {}) for part in SERVICES["redis"]["command"]]
    options = dict(zip(command[4::2], command[5::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert mounts("redis")["/data"] == ("redis", True)
    # It can need as much again while it rewrites its file.
    assert limits("redis")[1] >= 2 * size(options["--maxmemory"])


def test_prometheus_looks_for_the_fleet_where_its_metrics_are() -> None:
    found = mounts("prometheus")
    assert found["/etc/prometheus"] == ("./deploy/prometheus", False)
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = {}
    for job in configuration["scrape_configs"]:
        (discovery,) = job["dns_sd_configs"]
        (name,) = discovery["names"]
        assert (job["job_name"], discovery["type"]) == (f"snapferry-{name}", "A")
        targets[name] = discovery["port"]
    served = {
        name: service["environment"]["SNAPFERRY_METRICS_PORT"]
        for name, service in SERVICES.items()
        if "SNAPFERRY_METRICS_PORT" in service.get("environment", {})
    }

    assert targets == served
    assert served.keys() == set(FLEET)


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    found = mounts("grafana")
    folder = "/etc/grafana/provisioning"
    sources: dict[str, Any] = {}
    for kind in ("datasources", "dashboards"):
        source, writable = found[f"{folder}/{kind}"]
        assert not writable
        (file,) = (ROOT / source).iterdir()
        sources[kind] = yaml.safe_load(file.read_text())
        assert sources[kind]["apiVersion"] == 1
    (data,) = sources["datasources"]["datasources"]
    (provider,) = sources["dashboards"]["providers"]

    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert data == {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": "http://prometheus:9090",
        "isDefault": True,
        "jsonData": {"timeInterval": prometheus["global"]["scrape_interval"]},
    }
    assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert provider["type"] == "file"
    shown = [
        source
        for path, (source, _) in found.items()
        if Path(path).parent == Path(provider["options"]["path"])
    ]
    assert shown == ["./deploy/grafana/snapferry.json"]


class _Strict(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, as Docker Compose and kubectl do. PyYAML takes the last one."""


def _once(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    assert not twice, f"{twice}{node.start_mark}"
    loader.flatten_mapping(node)
    return dict(loader.construct_mapping(node, deep=True))


_Strict.add_constructor("tag:yaml.org,2002:map", _once)

FILES = sorted([FILE, *(ROOT / "deploy").rglob("*.yml"), *(ROOT / "deploy").rglob("*.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_mapping_of_a_deployment_has_a_key_twice(file: Path) -> None:
    assert list(yaml.load_all(file.read_text(), _Strict))
