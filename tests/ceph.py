"""
Ceph's S3 server for tests, from Debian's packages: a monitor, one OSD in memory, and a RADOS gateway.

Nothing of it is installed as a service, and nothing is kept: all is in one folder, on loopback ports.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
from botocore.config import Config

from tests.servers import ACCESS_KEY, S3_ENVIRONMENT, SECRET_KEY, S3Server, free_port, missing, running

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
PACKAGES = "ceph-common ceph-mon ceph-osd radosgw"
COMMAND_TIMEOUT_S = 120

_CONFIG = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon_port}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
osd class load list = *
osd class default list = *
mon data = {folder}/mon
osd data = {folder}/osd
run dir = {folder}
crash dir = {folder}
pid file = {folder}/$name.pid
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
keyring = {folder}/keyring
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable lc threads = false
rgw enable gc threads = false
rgw run sync thread = false
"""


@contextmanager
def ceph_s3_server(folder: Path) -> Iterator[S3Server]:
    """Run the RADOS gateway in *folder*, which holds nothing yet. Takes about 15 s to start."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        missing(
            f"Ceph's {', '.join(absent)} are not installed; on Debian and Ubuntu:"
            f" apt-get install --no-install-recommends {PACKAGES}"
        )
    port, fsid = free_port(), str(uuid.uuid4())
    config, keyring = folder / "ceph.conf", folder / "keyring"
    mon_port = free_port()
    config.write_text(_CONFIG.format(fsid=fsid, folder=folder, port=port, mon_port=mon_port))
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        _make_keys(keyring)
        monitors = str(folder / "monmap")
        _run(
            "monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}/0]", monitors
        )
        with_config = ("-c", str(config))
        _run("ceph-mon", *with_config, "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", str(keyring))
        stack.enter_context(
            running(
                ["ceph-mon", *with_config, "-i", "a", "-f"],
                lambda: _succeeds("ceph", *with_config, "--connect-timeout", "5", "-s"),
            )
        )
        osd = str(uuid.uuid4())
        _run("ceph", *with_config, "osd", "new", osd)
        _run("ceph-osd", *with_config, "-i", "0", "--mkfs", "--osd-uuid", osd)
        stack.enter_context(running(["ceph-osd", *with_config, "-i", "0", "-f"], lambda: True))
        endpoint = f"http://127.0.0.1:{port}"
        stack.enter_context(
            running(["radosgw", *with_config, "-n", "client.rgw", "-f"], lambda: _answers(endpoint))
        )
        _run(
            "radosgw-admin", *with_config, "user", "create", "--uid=tests", "--display-name=tests",
            f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}",
        )  # fmt: skip
        client = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
            "s3",
            endpoint_url=endpoint,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=40),
        )
        stack.callback(client.close)
        yield S3Server(endpoint, client, dict(S3_ENVIRONMENT))


def _make_keys(keyring: Path) -> None:
    _run(
        "ceph-authtool",
        "--create-keyring",
        str(keyring),
        "--gen-key",
        "-n",
        "mon.",
        "--cap",
        "mon",
        "allow *",
    )
    for name in ("client.admin", "client.rgw", "osd.0"):
        caps = [part for kind in ("mon", "osd", "mgr") for part in ("--cap", kind, "allow *")]
        _run("ceph-authtool", str(keyring), "--gen-key", "-n", name, *caps)


def _run(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if found.returncode:
        missing(f"{command[0]} failed: {found.stderr[-1000:]}")


def _succeeds(*command: str) -> bool:
    return not subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False).returncode


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        time.sleep(0.2)
        return False
