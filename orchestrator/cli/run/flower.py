"""Run Flower with settings that suit a fleet."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import Final

from celery.utils.imports import symbol_by_name
from flower.command import apply_env_options
from flower.utils.authentication import validate_auth_option
from tornado.netutil import bind_sockets

from snapferry.orchestrator import flower_config, flower_views
from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.fleet_access import await_broker
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.workers.settings.environment import FlowerSettings, InvalidSettings, flower_settings
from snapferry.workers.telemetry import logs

# Endings that Python's kinds of databases add to a file name; Flower writes a temporary file first.
_ENDINGS: Final = [
    f"{temporary}{kind}" for temporary in ("", ".tmp") for kind in ("", ".db", ".dat", ".dir", ".bak")
]

_PREFIX = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


def flower(
    broker: str | None,
    address: str,
    port: int,
    url_prefix: str,
    db: str | None,
    max_tasks: int,
    control: bool,
) -> None:
    settings = read_settings(broker)
    try:
        app = make_fleet_app(settings)
        access = flower_settings()
    except InvalidSettings as error:
        usage(str(error))
    _check_access(access, address, port, control=control)
    url_prefix = url_prefix.strip("/")
    if url_prefix and not _PREFIX.fullmatch(url_prefix):
        usage(f"--url-prefix {url_prefix}: must be letters, digits and . _ ~ - between slashes")
    database = _database(db or access.database)
    # Passed within this process, so that no list of processes shows the passwords. Arguments override FLOWER_…
    # variables.
    arguments = [
        f"--conf={flower_config.__file__}",
        f"--address={address}",
        f"--port={port}",
        f"--db={database}",
        f"--max_tasks={max_tasks}",
        f"--read_only={not control}",
        f"--auth={access.oauth}",
        f"--auth_provider={access.provider}",
        "--unix_socket=",
        "--debug=false",
        # Logs are configured below.
        "--logging=none",
        *([f"--basic_auth={','.join(access.users)}"] if access.users else []),
        *([f"--url_prefix={url_prefix}"] if url_prefix else []),
    ]
    _check_variables()
    _check_port(address, port)
    await_broker(settings)
    # Flower rewrites its file each time, through a temporary one; both are for this user only.
    os.umask(0o077)
    logs.configure(settings)
    flower_views.install(settings)
    try:
        app.start(["flower", *arguments])
    except OSError as error:
        usage(f"Flower cannot run: {error}")


def _check_access(access: FlowerSettings, address: str, port: int, *, control: bool) -> None:
    if access.oauth:
        if not validate_auth_option(access.oauth):
            usage("FLOWER_AUTH must be an email address, several with | between, or .*@ and a domain")
        try:
            symbol_by_name(access.provider)
        except (ImportError, AttributeError, ValueError):
            usage(
                f"FLOWER_AUTH_PROVIDER: no class {access.provider}. The module flower.views.auth has those of Flower."
            )
    if access.guarded:
        return
    if control:
        usage("--control requires a login. Set SNAPFERRY_FLOWER_BASIC_AUTH to user:password.")
    if not _is_loopback(address, port):
        usage(
            f"--address {address or '(all addresses)'} requires a login, because other machines can reach it. Set"
            " SNAPFERRY_FLOWER_BASIC_AUTH to user:password, set the FLOWER_ variables of OAuth, or use 127.0.0.1."
        )


def _is_loopback(address: str, port: int) -> bool:
    """Return whether only this machine can reach *address*: a name must resolve to loopback addresses alone."""
    try:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        usage(f"--address {address}: no such address")
    # A zone, as in fe80::1%eth0, is not part of the address.
    hosts = {str(where[0]).partition("%")[0] for *_, where in found}
    return all(ipaddress.ip_address(host).is_loopback for host in hosts)


def _database(path: str) -> str:
    """Return the absolute path of Flower's file; its directory is made, and must not be writable by others."""
    file = Path(path).absolute()
    folder = file.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (os.getuid(), 0):
            # The file is a pickle: anyone who can write to it can run code here.
            usage(
                f"--db: other users can write to {folder}, and so run code through Flower's file. Use another one."
            )
        if not os.access(folder, os.W_OK) or file.is_dir():
            usage(f"--db: cannot write {file}. Use another file.")
        for one in (Path(f"{file}{ending}") for ending in _ENDINGS):
            if one.is_symlink() or (one.exists() and one.stat().st_uid != os.getuid()):
                usage(f"--db: {one} is a link, or belongs to another user. Remove it, or use another file.")
            if one.exists():
                one.chmod(0o600)
    except OSError as error:
        usage(f"--db: cannot use {file}: {error.strerror}. Use another file.")
    return str(file)


def _check_variables() -> None:
    """End the command if a variable ``FLOWER_…`` has a value that would crash Flower."""
    try:
        apply_env_options()
    except Exception as error:  # noqa: BLE001 - its parsers raise anything
        usage(f"a variable FLOWER_… has a value that Flower cannot use: {type(error).__name__}")


def _check_port(address: str, port: int) -> None:
    try:
        sockets = bind_sockets(port, address=address)
    except OSError as error:
        usage(f"cannot listen on {address}, port {port}: {error.strerror}")
    for one in sockets:
        one.close()
