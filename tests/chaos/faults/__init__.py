"""
The faults, one file for each family.

    processes  pool children, workers, orchestrators and hosts are killed, stopped and told to end
    redis      Redis is killed, frozen, cut off, read-only, full, flushed, failed over
    s3         a bucket is slow, cut off, wrong, away
    objects    objects are deleted, corrupted, and replaced by what is not a file
    messages   messages are lost, duplicated, revoked, malformed
    operators  jobs are cancelled, paused, continued, retried, resumed, limited, moved
    machine    disks, inodes, mounts, descriptors, memory, names and clocks
"""

from . import machine, messages, objects, operators, processes, redis, s3
from .registry import FAULTS, Fault, NeverPossible, NotPossible

__all__ = [
    "FAULTS",
    "Fault",
    "NeverPossible",
    "NotPossible",
    "machine",
    "messages",
    "objects",
    "operators",
    "processes",
    "redis",
    "s3",
]
