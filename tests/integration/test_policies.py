"""The policies of the page on clouds are enough, at a server that enforces them."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES
from tests.sample import make_store, tree
from tests.servers import S3Server, moto_s3_server

from .processes import Finished, snapferry

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "clouds.md").read_text()
# The blocks of code that are JSON objects, in this order.
WRITER, READER = map(json.loads, re.findall(r"^ {4}\{\n.+?\n {4}\}$", PAGE, re.MULTILINE | re.DOTALL))

FILES = {"./small": b"small", "./dir/large": bytes(range(256)) * (MIN_PART_BYTES // 128)}


@pytest.fixture(scope="module")
def users() -> Iterator[tuple[S3Server, dict[str, dict[str, str]]]]:
    """A server that enforces policies, with the bucket of the page; and the credentials of a user of each policy."""
    with moto_s3_server() as server:
        server.client.create_bucket(Bucket="backup")
        iam = boto3.client(
            "iam", endpoint_url=server.endpoint, region_name="us-east-1",
            aws_access_key_id="root", aws_secret_access_key="root",
        )  # fmt: skip
        found = {}
        for name, policy in (("writer", WRITER), ("reader", READER)):
            iam.create_user(UserName=name)
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
            key = iam.create_access_key(UserName=name)["AccessKey"]
            found[name] = {
                **server.environment,
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            }
        enforce = urllib.request.Request(
            f"{server.endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(enforce, timeout=240).close()
        yield server, found


def test_one_policy_is_enough_to_write_and_the_other_to_read_and_no_more(
    users: tuple[S3Server, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    server, credentials = users
    snapshot = make_store(tmp_path / "store", FILES)
    url = f"s3://backup/store?endpoint_url={server.endpoint}"

    def run(user: str, *arguments: str) -> Finished:
        return snapferry(*arguments, env=credentials[user])

    refused = run("reader", "sync", str(tmp_path / "store"), url, "--id", snapshot)
    assert (refused.code, "AccessDenied" in refused.err) == (1, True), refused
    copied = run("writer", "sync", str(tmp_path / "store"), url, "--id", snapshot)
    assert copied.code == 0, copied
    verified = run("reader", "verify", url, "--all")
    assert verified.code == 0, verified
    pulled = run("reader", "pull", url, str(tmp_path / "pulled"), "--id", snapshot)
    assert pulled.code == 0, pulled
    assert tree(tmp_path / "pulled") == {name.removeprefix("./"): data for name, data in FILES.items()}
    outside = run(
        "writer", "sync", str(tmp_path / "store"), url.replace("/store?", "/other?"), "--id", snapshot
    )
    assert outside.code == 1, outside
