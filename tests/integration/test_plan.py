"""The dry run says what the job then costs, as the servers of both sides count it: exactly, where it says so."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.counting import counting_proxy
from tests.opening import open_store
from tests.sample import fill, random_files
from tests.servers import S3Server

from .forge import Forge

PRICES = """
currency = "USD"
[[price]]
store = "s3://"
egress = 0.09
[price.requests]
GetObject = 0.4
HeadObject = 0.4
PutObject = 5.0
ListObjectsV2 = 5.0
"""

MIB = 1024 * 1024


def snapshots(server: S3Server, bucket: str) -> list[str]:
    """Make three snapshots that share most of 1,050 objects, one of them in parts."""
    store = open_store(server.url(bucket, "store"))
    base = random_files(1050, size=64) | {"./large": random.Random(5).randbytes(20 * MIB)}
    return [
        fill(store, base | {f"./own/{n}": random.Random(9 * k + n).randbytes(70) for n in range(3)})
        for k in range(3)
    ]


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("empty", marks=pytest.mark.slow),
        pytest.param("half full", marks=pytest.mark.slow),
        "the last one's own",
        pytest.param("published", marks=pytest.mark.slow),
    ],
)
def test_the_plan_is_what_the_job_costs(
    forge: Forge, rclone_memory_s3: S3Server, tmp_path: Path, before: str
) -> None:
    here, there = rclone_memory_s3.make_bucket(), rclone_memory_s3.make_bucket()
    ids = snapshots(rclone_memory_s3, here)
    source = open_store(rclone_memory_s3.url(here, "store"))
    destination = open_store(rclone_memory_s3.url(there, "store"))
    with source.read_manifest(ids[0]) as manifest:
        objects = list(manifest.objects())
    with source.read_manifest(ids[-1]) as manifest:
        own = [address for address in manifest.objects() if address not in objects]
    held = {"empty": [], "half full": objects[::2], "the last one's own": own, "published": objects}
    for address in held[before]:
        destination.copy_object(source, address)
    if before == "published":
        destination.publish_all(source, ids[:1])
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    with (
        counting_proxy(rclone_memory_s3) as (source_proxy, at_source),
        counting_proxy(rclone_memory_s3) as (destination_proxy, at_destination),
    ):
        stores = ["--from", source_proxy.url(here, "store"), "--to", destination_proxy.url(there, "store")]
        arguments = [*stores, *(part for snapshot in ids for part in ("--id", snapshot)), "--json"]
        env = dict(rclone_memory_s3.environment)
        planned = forge.run(["plan", *arguments, "--prices", str(prices)], env=env)
        assert planned.code == 0, planned.err
        assert Counter(dict(at_destination)).keys() <= {"HeadBucket", "ListObjectsV2", "HeadObject"}
        at_source.clear()
        at_destination.clear()
        done = forge.run(["sync", *arguments], env=env)

    assert done.code == 0, done.err
    estimate = planned.document["estimate"]
    # Groups that are complete at the same time are checked together.
    assert (estimate["groups"], estimate["exact"]) == (2, False)
    assert estimate["objects"]["to_copy"] == done.document["objects"]["copied"]
    assert estimate["bytes"]["to_copy"] == done.document["bytes"]["copied"]
    # Beside what is foretold, each process makes sure once that a store is there, and another orchestrator process
    # that takes the job up reads the manifests anew.
    again = at_source["GetObject"] - estimate["requests"]["source"]["GetObject"]
    assert again in {0, len(ids)}
    at_source["GetObject"] -= again
    assert without_checks(at_source) == estimate["requests"]["source"]
    received, foretold = without_checks(at_destination), estimate["requests"]["destination"]
    pages = received["ListObjectsV2"] - foretold["ListObjectsV2"]
    assert -2 * estimate["groups"] <= pages <= estimate["batches"]
    assert received | {"ListObjectsV2": 0} == foretold | {"ListObjectsV2": 0}
    requests = Counter(estimate["requests"]["source"]) + Counter(estimate["requests"]["destination"])
    price = {"GetObject": 0.4, "HeadObject": 0.4, "PutObject": 5.0, "ListObjectsV2": 5.0}
    cost = sum(price.get(name, 0) * count for name, count in requests.items()) / 1000
    cost += 0.09 * estimate["bytes"]["to_copy"] / 1e9
    assert estimate["cost"] == pytest.approx(cost, abs=1e-6)
    assert json.loads(planned.out)["estimate"]["currency"] == "USD"


def without_checks(received: Counter[str]) -> dict[str, int]:
    found = dict(received)
    found.pop("HeadBucket", None)
    return found


@pytest.mark.slow
def test_a_dry_run_of_every_other_action_tells_what_it_then_sends(
    forge: Forge, rclone_memory_s3: S3Server, tmp_path: Path
) -> None:
    """Verify and pull exactly; a push at most; a heal exactly at its source."""
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    for path, data in {**random_files(60, size=64), "./large": random.Random(5).randbytes(20 * MIB)}.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(data)
    (tmp_path / "tree" / "again").write_bytes(b"the same bytes")
    (tmp_path / "tree" / "and again").write_bytes(b"the same bytes")
    bucket, other = rclone_memory_s3.make_bucket(), rclone_memory_s3.make_bucket()
    env = dict(rclone_memory_s3.environment)

    with (
        counting_proxy(rclone_memory_s3) as (proxy, sent),
        counting_proxy(rclone_memory_s3) as (further, there),
    ):

        def run(*arguments: str) -> tuple[dict[str, Any], dict[str, int], dict[str, int]]:
            """Run a command dry and then really; return the estimate, and what was sent to both stores."""
            dry = forge.run([*arguments, "--json", "--dryrun"], env)
            assert dry.code == 0, dry.err
            sent.clear()
            there.clear()
            done = forge.run([*arguments, "--json"], env)
            assert done.code == 0, done.err
            found: dict[str, Any] = dry.document["estimate"]
            return found, without_checks(sent), without_checks(there)

        url, healthy = proxy.url(bucket, "store"), further.url(other, "store")
        estimate, received, _ = run("push", str(tmp_path / "tree"), "--to", url)
        foretold = Counter(estimate["requests"]["destination"])
        assert not estimate["exact"]
        assert received.keys() <= foretold.keys()
        assert all(received[name] <= foretold[name] for name in received), (received, foretold)

        estimate, received, _ = run("verify", url, "--all")
        assert estimate["exact"]
        assert received["GetObject"] == estimate["requests"]["source"]["GetObject"]

        estimate, received, _ = run("pull", "--from", url, "--id", "latest", str(tmp_path / "pulled"))
        assert estimate["exact"]
        # Besides, each process that takes the job up anew reads the manifest once.
        assert received["GetObject"] - estimate["requests"]["source"]["GetObject"] in (0, 1)

        copied = forge.run(["sync", "--from", url, "--to", healthy, "--all"], env)
        assert copied.code == 0, copied.err
        backend = open_store(rclone_memory_s3.url(bucket, "store")).objects
        for key in [listed.key for listed in backend.keys(".objects/")][:5]:
            backend.delete(key)
        estimate, _, received = run("heal", url, "--from", healthy, "--all")
        assert estimate["objects"]["to_copy"] == 5
        assert received["GetObject"] == estimate["requests"]["source"]["GetObject"]
