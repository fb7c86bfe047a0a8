"""What is measured, and the goals."""

from __future__ import annotations

from typing import Final

from ..report import FLUSHED, Goal
from . import distance, files, first, huge, many, requests, s3, server_side, shared, split, trees, verify
from .case import QUICK, Case, Setting, TooLittleRoom

__all__ = ["CASES", "QUICK", "Case", "Setting", "TooLittleRoom"]

CASES: Final = (
    Case(
        "file-20k",
        "20,000 files of 4 KiB, directory to directory",
        files.in_memory(
            20_000,
            4096,
            "4 KiB",
            rounds=5,
            goal=Goal(ratio=1.5),
            job_goal=Goal(ratio=1.0),
            beside_rclone=True,
        ),
    ),
    Case(
        "file-200k",
        "200,000 files of 4 KiB, directory to directory",
        files.in_memory(200_000, 4096, "4 KiB", rounds=3, goal=Goal(ratio=1.2)),
    ),
    Case(
        "file-2mb",
        "400 files of 2 MB, directory to directory",
        files.in_memory(400, 2_000_000, "2 MB", rounds=5, goal=Goal(ratio=1.0), beside_rclone=True),
    ),
    Case(
        "disk-20k",
        "20,000 files of 4 KiB, directory to directory on a disk",
        files.on_disk(20_000, 4096, "4 KiB", rounds=5, ext4_job_goal=Goal(ratio=1.1, to=FLUSHED)),
    ),
    Case(
        "disk-2mb",
        "400 files of 2 MB, directory to directory on a disk",
        files.on_disk(400, 2_000_000, "2 MB", rounds=5, ext4_job_goal=Goal(ratio=0.6, to=FLUSHED)),
    ),
    Case(
        "disk-16mb",
        "100 files of 16 MB, directory to directory on a disk",
        files.on_disk(100, 16_000_000, "16 MB", rounds=5, goal=Goal(ratio=1.0)),
    ),
    Case("startup", "what a command costs before it copies anything", files.startup),
    Case("s3-20k", "20,000 files of 4 KiB, S3 to S3 on servers without latency", s3.between_buckets),
    Case("s3-up", "20,000 files of 4 KiB, directory to S3 on a server without latency", s3.upload),
    Case(
        "server-side", "1 GB between two buckets of a server that copies the bytes", server_side.server_side
    ),
    Case("requests", "how many requests a sync sends", requests.requests),
    Case("latency", "20,000 files of 4 KiB, S3 to S3, with 25 ms added to each request", distance.latency),
    Case("scale", "1, 2, 4 and 8 worker processes of a fleet, with that latency", distance.scale),
    Case("overhead", "what Celery, Redis and orchestrator cost, with that latency", distance.overhead),
    Case("huge", "one object of up to 20 GB, to S3, between buckets, and back: time and memory", huge.huge),
    Case(
        "split",
        "one object of 20 GB in 1, 2 and 4 worker processes, with 100 MB/s for each connection",
        split.split,
    ),
    Case("many", "1 and 10 million objects in a fleet, between simulated stores", many.case(many.run)),
    Case("push-20k", "20,000 files of 4 KiB, pushed to a directory and to S3", trees.push_small),
    Case("push-1gb", "4 files of 1 GB, pushed to a directory and to S3: time and memory", trees.push_large),
    Case("pull-20k", "20,000 files of 4 KiB, pulled from a directory and from S3", trees.pull_small),
    Case(
        "pull-1gb", "4 files of 1 GB, pulled from a directory and from S3: time and memory", trees.pull_large
    ),
    Case(
        "verify-20k",
        "20,000 objects of 4 KiB, verified in a directory and in S3: time and memory",
        verify.small,
    ),
    Case("verify-1gb", "4 objects of 1 GB, verified in a directory and in S3: time and memory", verify.large),
    Case(
        "verify-scale",
        "verify with 1, 2, 4 and 8 worker processes of a fleet, with 25 ms added to each request",
        verify.scale,
    ),
    Case("first", "200 snapshots of 20,000 objects in a fleet: the first object", first.first),
    Case("shared", "1,000 snapshots that share 99 % of 20,000 objects, directory to directory", shared.many),
    Case("shared-s3", "50 snapshots that share 99 % of 2,000 objects, S3 to S3", shared.in_buckets),
)
