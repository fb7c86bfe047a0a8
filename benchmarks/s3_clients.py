"""
CPU time of clients for S3, one kind of request at a time: boto3, the direct path, and obstore where it is installed.

    pip install obstore
    python -m benchmarks.s3_clients [--rounds N] [--requests N] [--threads N]

Each client runs in a process of its own, by turns, against one `rclone serve s3` in memory. What counts is the CPU time
of the client's process, which other work on the machine changes little. docs/adr/0061-obstore-again.md has results.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from snapferry.stores.backends.s3.client.clients import client_for
from snapferry.stores.backends.s3.direct_path import DirectPath
from snapferry.stores.backends.s3.objects.small import sha256_base64

from .servers import KEY, SECRET, S3Server

BUCKET: Final = "bench"
KEYS: Final = 2000
OPERATIONS: Final = ("PUT", "GET", "HEAD", "LIST")
OBJECT: Final = bytes(4096)


class Calls(NamedTuple):
    """What a client does: put and get an object, get its size, and list all keys. Each takes the object's number."""

    put: Callable[[int], object]
    get: Callable[[int], object]
    head: Callable[[int], object]
    list: Callable[[int], object]


def key_of(number: int) -> str:
    """Return the key of an object, as long as that of an object in a store."""
    return f"objects/{number % KEYS:064}"


def boto3_calls(endpoint: str) -> Calls:
    """Return the calls of boto3, in a client with the product's settings."""
    client = client_for(None, None, endpoint).boto

    def put(number: int) -> object:
        return client.put_object(
            Bucket=BUCKET, Key=key_of(number), Body=OBJECT, ChecksumSHA256=sha256_base64(OBJECT)
        )

    def all_keys(_: int) -> int:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="objects/")
        return sum(len(page["Contents"]) for page in pages)

    return Calls(
        put,
        lambda number: client.get_object(Bucket=BUCKET, Key=key_of(number))["Body"].read(),
        lambda number: client.head_object(Bucket=BUCKET, Key=key_of(number)),
        all_keys,
    )


def direct_calls(endpoint: str) -> Calls:
    """Return the calls of the direct path."""
    found = client_for(None, None, endpoint).paths.path_to(BUCKET, "")
    assert found is not None
    path: DirectPath = found

    def all_keys(_: int) -> int:
        parameters, count = {"Prefix": "objects/"}, 0
        while True:
            page = path.page(parameters)
            count += len(page.found)
            if not page.truncated:
                return count
            parameters["ContinuationToken"] = page.token or ""

    return Calls(
        lambda number: path.put(key_of(number), OBJECT, checksum=True),
        lambda number: path.get(key_of(number))[0].read(len(OBJECT)),
        lambda number: path.size(key_of(number)),
        all_keys,
    )


def obstore_calls(endpoint: str) -> Calls:
    """Return the calls of obstore. Its retries are off, as those of the direct path."""
    # No dependency of this project.
    store: Any = importlib.import_module("obstore.store").S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        virtual_hosted_style_request=False,
        checksum_algorithm="SHA256",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )

    def get(number: int) -> object:
        answer = store.get(key_of(number))
        return answer.meta["e_tag"], answer.bytes()

    def all_keys(_: int) -> int:
        chunks = store.list("objects", chunk_size=1000)
        return sum(
            len([(found["path"], found["size"], found["last_modified"].timestamp()) for found in chunk])
            for chunk in chunks
        )

    return Calls(
        lambda number: store.put(key_of(number), OBJECT, use_multipart=False),
        get,
        lambda number: store.head(key_of(number)),
        all_keys,
    )


CLIENTS: Final = {"boto3": boto3_calls, "direct": direct_calls, "obstore": obstore_calls}


def measure(client: str, endpoint: str, operation: str, requests: int, threads: int) -> float:
    """Return the CPU time of a call in ms, after calls that open the connections."""
    call: Callable[[int], object] = getattr(CLIENTS[client](endpoint), operation.lower())
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(call, range(4 * threads)))
        started = time.process_time()
        # Each thread takes a share, so that handing out the calls costs next to nothing.
        shares = [range(first, requests, threads) for first in range(threads)]
        list(executor.map(lambda share: [call(number) for number in share] and None, shares))
        return (time.process_time() - started) * 1000 / requests


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3_clients")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--one", nargs=3, metavar=("CLIENT", "ENDPOINT", "OPERATION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        client, endpoint, operation = options.one
        print(measure(client, endpoint, operation, options.requests, options.threads))
        return
    clients = [name for name in CLIENTS if name != "obstore" or importlib.util.find_spec("obstore")]
    with tempfile.TemporaryDirectory() as folder, S3Server(":memory:", Path(folder, "log")) as server:
        os.environ |= server.environment | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        client_for(None, None, server.endpoint).boto.create_bucket(Bucket=BUCKET)
        put = direct_calls(server.endpoint).put
        for number in range(KEYS):
            put(number)
        print(f"ms of CPU time, median of {options.rounds} rounds, {options.threads} threads")
        print("| |", " | ".join(clients), "|")
        for operation in OPERATIONS:
            found: dict[str, list[float]] = {name: [] for name in clients}
            for _ in range(options.rounds):
                for name in random.sample(clients, len(clients)):
                    # A listing costs as much as a hundred other requests.
                    requests = max(1, options.requests // 100) if operation == "LIST" else options.requests
                    found[name].append(_run(name, server.endpoint, operation, requests, options.threads))
            cells = " | ".join(f"{median(found[name]):.3f}" for name in clients)
            print(f"| {operation} | {cells} |", flush=True)


def _run(client: str, endpoint: str, operation: str, requests: int, threads: int) -> float:
    counts = ["--requests", str(requests), "--threads", str(threads)]
    arguments = [sys.executable, "-m", "benchmarks.s3_clients", "--one", client, endpoint, operation, *counts]
    return float(subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
