"""The manifests of Kubernetes: the schemas that they are held against, and what they must agree on with the rest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.lifecycle.shutdown import FORCE_S
from snapferry.workers.queues import COPY_QUEUE, lists
from snapferry.workers.settings.config_file import read_config
from tests.keda import SCALED_OBJECT, TRIGGER_AUTHENTICATION
from tests.manifests import (
    FOLDER,
    Manifest,
    base,
    container,
    example,
    one,
    pod,
    pods,
    render_instead,
    variables,
    with_keda,
    with_sentinel,
)
from tests.variables import READ

ROOT = Path(__file__).parents[2]
KEDA = {"ScaledObject": SCALED_OBJECT, "TriggerAuthentication": TRIGGER_AUTHENTICATION}

# The oldest that is still in wide use, and the newest that schemas are here for.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]

OURS = ["orchestrator", "worker", "scheduler", "flower", "dashboard"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rendered", [base, example, with_keda])
def test_every_manifest_fits_the_schema_that_kubernetes_publishes(rendered: Any, version: str) -> None:
    manifests = [found for found in rendered() if found["kind"] not in KEDA]

    assert manifests
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(one("Deployment", "snapferry-worker")))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_manifests_of_keda_have_its_fields() -> None:
    found = [manifest for manifest in with_keda() if manifest["kind"] in KEDA]

    assert {manifest["kind"] for manifest in found} == KEDA.keys()
    # A cluster without KEDA refuses them, and with them all that is applied together.
    assert not [manifest for manifest in example() if manifest["kind"] in KEDA]
    for manifest in found:
        assert manifest["apiVersion"] == "keda.sh/v1alpha1"
        jsonschema.validate(manifest["spec"], KEDA[manifest["kind"]])


def test_with_sentinels_keda_counts_the_same_on_the_master() -> None:
    found = [manifest for manifest in with_sentinel() if manifest["kind"] in KEDA]
    (scaled_object,) = [manifest["spec"] for manifest in found if manifest["kind"] == "ScaledObject"]
    (authentication,) = [
        manifest["spec"] for manifest in found if manifest["kind"] == "TriggerAuthentication"
    ]

    for manifest in found:
        jsonschema.validate(manifest["spec"], KEDA[manifest["kind"]])
    assert {trigger["type"] for trigger in scaled_object["triggers"]} == {"redis-sentinel"}
    assert scaled_object == scaled() | {
        "triggers": [trigger | {"type": "redis-sentinel"} for trigger in scaled()["triggers"]]
    }
    assert {"addresses", "sentinelMaster"} <= {ref["parameter"] for ref in authentication["secretTargetRef"]}


def test_how_keda_scales_down_fits_the_schema_of_the_autoscaler() -> None:
    spec = scaled()
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
            "maxReplicas": 1,
            "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        },
    }

    kubernetes_validate.validate(autoscaler, VERSIONS[-1], strict=True)


def scaled() -> Any:
    return one("ScaledObject", "snapferry-worker", with_keda())["spec"]


def test_keda_counts_every_list_of_the_queue_and_what_was_taken_from_them() -> None:
    counted = {trigger["name"]: trigger["metadata"]["listName"] for trigger in scaled()["triggers"]}

    assert sorted(counted.values()) == sorted([*lists(COPY_QUEUE), UNACKED])
    assert sorted(scaled()["advanced"]["scalingModifiers"]["formula"].split(" + ")) == sorted(counted)


def test_keda_gives_a_worker_as_many_batches_as_it_copies_at_once() -> None:
    arguments = container("worker")["args"]
    concurrency = arguments[arguments.index("--concurrency") + 1]

    assert scaled()["advanced"]["scalingModifiers"]["target"] == concurrency
    assert {trigger["metadata"]["listLength"] for trigger in scaled()["triggers"]} == {concurrency}


def test_keda_alone_says_how_many_workers_there_are_and_one_is_always_left() -> None:
    assert "replicas" in one("Deployment", "snapferry-worker", base())["spec"]
    assert "replicas" not in one("Deployment", "snapferry-worker", with_keda())["spec"]
    assert scaled()["scaleTargetRef"]["name"] == "snapferry-worker"
    assert scaled()["minReplicaCount"] == 1
    # They hand out again what a dead worker had, so something must always be left of them.
    assert one("Deployment", "snapferry-orchestrator")["spec"]["replicas"] == 2


def test_every_program_is_given_more_time_to_end_than_its_grace() -> None:
    for name in ("orchestrator", "worker"):
        maps = [
            source["configMapRef"]["name"]
            for source in container(name)["envFrom"]
            if "configMapRef" in source
        ]
        (grace,) = [
            float(data["SNAPFERRY_GRACE"])
            for data in (one("ConfigMap", found)["data"] for found in maps)
            if "SNAPFERRY_GRACE" in data
        ]
        assert pod(name)["terminationGracePeriodSeconds"] > grace + FORCE_S


def test_every_variable_is_one_that_is_read_and_documented() -> None:
    page = (ROOT / "docs/configure.md").read_text()
    named = {variable for name in OURS for variable in variables(container(name))}

    assert {"SNAPFERRY_BROKER_URL", "SNAPFERRY_GRACE", "SNAPFERRY_FLOWER_BASIC_AUTH"} <= named
    for variable in named - {"TMPDIR", "AWS_SHARED_CREDENTIALS_FILE"}:
        assert variable in READ, variable
        assert f"`{variable}`" in page, variable


def test_no_pod_is_root_or_writes_to_its_image() -> None:
    for name, found in pods():
        (one_container,) = found["containers"]
        user, may = found["securityContext"], one_container["securityContext"]
        assert user["runAsNonRoot"], name
        assert user["runAsUser"] > 0, name
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert may["readOnlyRootFilesystem"], name
        assert not may["allowPrivilegeEscalation"], name
        assert may["capabilities"] == {"drop": ["ALL"]}, name
        assert not found["automountServiceAccountToken"], name
        # A Service's variables begin with the name of snapferry, too.
        assert found["enableServiceLinks"] is False, name
        assert set(one_container["resources"]["requests"]) == {"cpu", "memory"}, name
        assert "memory" in one_container["resources"]["limits"], name


def test_what_a_pod_writes_to_is_a_volume_of_its_own() -> None:
    for name in OURS:
        found = container(name)
        mounts = {mount["mountPath"]: mount for mount in found["volumeMounts"]}
        (temporary,) = [entry["value"] for entry in found["env"] if entry["name"] == "TMPDIR"]
        volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
        assert "sizeLimit" in volumes[mounts[temporary]["name"]]["emptyDir"], name


def test_no_secret_is_in_the_manifests() -> None:
    assert "Secret" not in {manifest["kind"] for manifest in example()}
    for file in FOLDER.rglob("*"):
        if file.is_file():
            assert not re.search(r"://[^/ ]*:[^/ ]*@|AWS_SECRET|AKIA", file.read_text()), file


def test_all_pods_are_named_alike_by_labels_selectors_and_policies() -> None:
    names = {f"snapferry-{name}" for name, _ in pods()}
    for manifest in example():
        spec = manifest.get("spec", {})
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            name = manifest["metadata"]["name"]
            labels = spec["template"]["metadata"]["labels"]
            assert labels["app.kubernetes.io/name"] == name
            assert spec["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        if manifest["kind"] == "Service":
            assert spec["selector"] == {"app.kubernetes.io/name": manifest["metadata"]["name"]}
        if manifest["kind"] == "NetworkPolicy":
            named = set(re.findall(r"snapferry-\w+", yaml.safe_dump(spec)))
            assert named <= names, manifest["metadata"]["name"]
    assert {f"snapferry-{name}" for name in [*OURS, "redis"]} == names


def test_ports_that_services_and_policies_name_are_ports_of_their_pods() -> None:
    ports = {name: {port["name"]: port["containerPort"] for port in found["containers"][0].get("ports", [])}
             for name, found in pods()}  # fmt: skip
    for name in ("redis", "flower", "dashboard"):
        (port,) = one("Service", f"snapferry-{name}")["spec"]["ports"]
        assert ports[name][port.get("targetPort", port["name"])] == port["port"]
    for name in ("orchestrator", "worker"):
        template = one("Deployment", f"snapferry-{name}")["spec"]["template"]
        scraped = int(template["metadata"]["annotations"]["prometheus.io/port"])
        settings = next(
            found for found in example() if found["metadata"]["name"].startswith("snapferry-settings")
        )
        assert ports[name]["metrics"] == scraped == int(settings["data"]["SNAPFERRY_METRICS_PORT"])


def test_redis_keeps_its_data_never_evicts_and_refuses_before_it_is_killed() -> None:
    found = container("redis")
    arguments = found["args"]

    assert arguments[arguments.index("--appendonly") + 1] == "yes"
    assert arguments[arguments.index("--maxmemory-policy") + 1] == "noeviction"
    assert arguments[arguments.index("--maxmemory") + 1] == "1gb"
    assert found["resources"]["limits"]["memory"] == "2Gi"
    (claim,) = one("StatefulSet", "snapferry-redis")["spec"]["volumeClaimTemplates"]
    mounts = {mount["name"]: mount["mountPath"] for mount in found["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == arguments[arguments.index("--dir") + 1]


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert {container(name)["image"].rpartition(":")[2] for name in OURS} == {version}
    images = {found["containers"][0]["image"] for name, found in pods(base()) if name != "redis"}
    assert images == {f"snapferry:{version}"}


def test_stores_are_mounted_for_those_that_copy_and_only_read_by_the_dashboard() -> None:
    claims = {
        name: [volume for volume in found.get("volumes", []) if "persistentVolumeClaim" in volume]
        for name, found in pods()
    }
    assert {name for name, found in claims.items() if found} == {"orchestrator", "worker", "dashboard"}
    for name in ("orchestrator", "worker", "dashboard"):
        (claim,) = claims[name]
        (mount,) = [m for m in container(name)["volumeMounts"] if m["name"] == claim["name"]]
        assert mount["mountPath"] == "/stores"
        assert mount.get("readOnly", False) == (name == "dashboard")
    assert not [found for _, found in pods(base()) if "persistentVolumeClaim" in str(found)]


def test_the_mirrors_of_the_example_can_be_read() -> None:
    (mirror,) = read_config(str(FOLDER / "example/snapferry.toml")).mirror

    assert mirror.name == "nightly"


def test_the_example_can_do_without_its_redis_as_it_says() -> None:
    text = (FOLDER / "example/kustomization.yaml").read_text()
    head, separator, patch = text.partition("# patches:\n")
    assert separator
    text = head + "patches:\n" + re.sub("^# ", "", patch, flags=re.MULTILINE)

    gone = named(example()) - named(render_instead(text))

    assert gone == {
        *((kind, "snapferry-redis") for kind in ("StatefulSet", "Service", "NetworkPolicy")),
        ("NetworkPolicy", "snapferry-redis-egress"),
    }


def named(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}


def test_every_image_of_others_has_a_version_of_three_numbers() -> None:
    images = {found["containers"][0]["image"] for _, found in pods()} - {
        container(name)["image"] for name in OURS
    }

    assert images
    assert [image for image in images if not re.search(r":\d+\.\d+\.\d+$", image)] == []


def test_no_pod_reaches_link_local_addresses_and_redis_reaches_nothing() -> None:
    policies = [found["spec"] for found in example() if found["kind"] == "NetworkPolicy"]
    egress = [policy for policy in policies if "Egress" in policy["policyTypes"]]
    closed = set(re.findall(r"snapferry-\w+", yaml.safe_dump([policy["podSelector"] for policy in egress])))

    assert closed == {f"snapferry-{name}" for name, _ in pods()}
    assert one("NetworkPolicy", "snapferry-redis-egress")["spec"].get("egress", []) == []
    blocks = [
        target["ipBlock"]
        for policy in egress
        for rule in policy.get("egress", [])
        for target in rule["to"]
        if "ipBlock" in target
    ]
    assert sorted((block["cidr"], block["except"]) for block in blocks) == [
        ("0.0.0.0/0", ["169.254.0.0/16"]), ("::/0", ["fe80::/10"]),
    ]  # fmt: skip


def test_profiles_of_aws_are_where_stores_are_opened() -> None:
    for name in OURS:
        mounted = {mount["mountPath"]: mount for mount in container(name)["volumeMounts"]}
        told = {entry["name"]: entry.get("value") for entry in container(name)["env"]}
        opens_stores = name in {"orchestrator", "worker", "dashboard"}
        assert ("/etc/snapferry/aws" in mounted) == opens_stores, name
        assert (told.get("AWS_SHARED_CREDENTIALS_FILE") == "/etc/snapferry/aws/profiles") == opens_stores, (
            name
        )
        if opens_stores:
            volume = mounted["/etc/snapferry/aws"]["name"]
            (secret,) = [v["secret"] for v in pod(name)["volumes"] if v["name"] == volume]
            assert (secret["secretName"], secret["optional"]) == ("snapferry-aws-profiles", True)
