"""A real S3 server that enforces IAM policies, and its users."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from tests.servers import S3Server, free_port, s3_server

Policy = Mapping[str, Any]


@dataclass
class IamServer:
    """The server, its users, and what it was asked for."""

    server: S3Server
    log: Path
    credentials: Path
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Check neither signatures nor policies until the end of the block."""
        self._check(False)
        try:
            yield
        finally:
            self._check(True)

    def _check(self, yes: bool) -> None:
        address = f"{self.server.endpoint}/moto-api/reset-auth"
        request = urllib.request.Request(address, b"0" if yes else b"inf", {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200

    @property
    def _iam(self) -> Any:
        session = boto3.Session("AKIAADMINADMIN", "admin", region_name="us-east-1")
        return session.client("iam", endpoint_url=self.server.endpoint)

    def give(self, user: str, policy: Policy) -> None:
        """Let *policy* be all that *user* may do; make the user, with a profile of the same name, if need be."""
        with self.open():
            self._give(user, policy)

    def _give(self, user: str, policy: Policy) -> None:
        iam = self._iam
        if user not in self.keys:
            iam.create_user(UserName=user)
            key = iam.create_access_key(UserName=user)["AccessKey"]
            self.keys[user] = key["AccessKeyId"], key["SecretAccessKey"]
            self.credentials.write_text(
                "".join(
                    f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
                    for name, (key, secret) in self.keys.items()
                )
            )
        iam.put_user_policy(UserName=user, PolicyName="only", PolicyDocument=json.dumps(policy))

    def url(self, place: str, profile: str, more: str = "") -> str:
        """Return the URL of the store at *place*, for the user *profile*."""
        return f"s3://{place}?endpoint_url={self.server.endpoint}&profile={profile}{more}"

    def checks(self, user: str) -> list[dict[str, Any]]:
        """Return what was asked for by *user*: action, resource, and whether it was allowed."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line["user"] == user]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the profiles."""
        return {
            "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials),
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "SNAPFERRY_ACCESS_ENDPOINTS": "http://*",
            "SNAPFERRY_ACCESS_PROFILES": " ".join(self.keys),
        }


@contextmanager
def iam_server(folder: Path) -> Iterator[IamServer]:
    """Run the server; *folder* holds its log and the credentials of its users."""
    port, log = free_port(), folder / "checks"
    script = Path(__file__).with_name("iam_server.py")
    with s3_server([sys.executable, str(script), str(port), str(log)], port) as server:
        yield IamServer(server, log, folder / "credentials")
