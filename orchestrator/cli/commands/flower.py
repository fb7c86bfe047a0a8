"""The command that runs Flower, with settings that suit a fleet."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snapferry.orchestrator.cli.exit_codes import await_broker, read_settings, usage
from snapferry.orchestrator.cli.options import broker_option

if TYPE_CHECKING:
    from snapferry.workers.settings.environment import FlowerSettings

# What the kinds of databases that Python has make of a name; Flower writes a temporary one first.
_ENDINGS = [
    f"{temporary}{kind}" for temporary in ("", ".tmp") for kind in ("", ".db", ".dat", ".dir", ".bak")
]

_PREFIX = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


@click.command()
@broker_option
@click.option("--address", default="127.0.0.1", show_default=True, help="Listen here.")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Listen here.")
@click.option("--url-prefix", default="", metavar="PATH", help="Serve below /PATH, behind a proxy.")
@click.option(
    "--db",
    metavar="FILE",
    help="Keep what is remembered here. [default: snapferry/flower.db in the user's state directory]",
)
@click.option(
    "--max-tasks",
    type=click.IntRange(100, 1_000_000),
    default=20_000,
    show_default=True,
    metavar="N",
    help="Remember the last N tasks, about 8 KB of memory each.",
)
@click.option("--control", is_flag=True, help="Let those who may look also revoke, limit and shut down.")
def flower(
    broker: str | None,
    address: str,
    port: int,
    url_prefix: str,
    db: str | None,
    max_tasks: int,
    control: bool,
) -> None:
    """
    Run Flower: a web page that shows every task of every job.

    It can change nothing, unless --control is given. Who may look is said in
    the environment alone: SNAPFERRY_FLOWER_BASIC_AUTH is user:password, or
    several with commas between; for OAuth, FLOWER_AUTH, FLOWER_AUTH_PROVIDER,
    FLOWER_OAUTH2_KEY, FLOWER_OAUTH2_SECRET and FLOWER_OAUTH2_REDIRECT_URI. One
    of the two is needed unless it listens to this machine alone. The pages
    /metrics and /healthcheck ask for no password.

    \b
      snapferry flower                               at http://127.0.0.1:5555
      SNAPFERRY_FLOWER_BASIC_AUTH=me:… snapferry flower --address 0.0.0.0 --control
    """
    from snapferry.orchestrator.app import make_fleet_app
    from snapferry.workers.settings.environment import InvalidSettings, flower_settings
    from snapferry.workers.telemetry import logs

    settings = read_settings(broker)
    try:
        app = make_fleet_app(settings)
        access = flower_settings()
    except InvalidSettings as error:
        usage(str(error))
    _check_access(access, address, port, control=control)
    url_prefix = url_prefix.strip("/")
    if url_prefix and not _PREFIX.fullmatch(url_prefix):
        usage(f"--url-prefix {url_prefix}: only letters, digits, and . _ ~ - between slashes")
    database = _database(db or access.database)

    from snapferry.orchestrator import flower_config

    # Within this process, so that no list of processes shows them. What is said here wins over FLOWER_… variables.
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
        # The log is ours.
        "--logging=none",
        *([f"--basic_auth={','.join(access.users)}"] if access.users else []),
        *([f"--url_prefix={url_prefix}"] if url_prefix else []),
    ]
    _check_variables()
    _check_port(address, port)
    await_broker(settings)
    # The file is written anew each time, with a temporary one beside it.
    os.umask(0o077)
    logs.configure(settings)
    try:
        app.start(["flower", *arguments])
    except OSError as error:
        usage(f"Flower cannot run: {error}")


def _check_access(access: FlowerSettings, address: str, port: int, *, control: bool) -> None:
    if access.oauth:
        from celery.utils.imports import symbol_by_name
        from flower.utils.authentication import validate_auth_option

        if not validate_auth_option(access.oauth):
            usage("FLOWER_AUTH must be an address, several with | between, or .*@ and a domain")
        try:
            symbol_by_name(access.provider)
        except (ImportError, AttributeError, ValueError):
            usage(f"FLOWER_AUTH_PROVIDER: there is no {access.provider}; see flower.views.auth")
    if access.guarded:
        return
    if control:
        usage("--control needs a password: set SNAPFERRY_FLOWER_BASIC_AUTH to user:password")
    if not _is_loopback(address, port):
        usage(
            f"Flower at {address or 'every address'} would be open to whoever reaches it: set"
            " SNAPFERRY_FLOWER_BASIC_AUTH to user:password, or FLOWER_AUTH and what OAuth needs,"
            " or listen at 127.0.0.1"
        )


def _is_loopback(address: str, port: int) -> bool:
    """Say whether only this machine can reach *address*; a name must mean no other address."""
    try:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        usage(f"--address {address}: there is no such address")
    # A zone, as in fe80::1%eth0, is no part of the address.
    hosts = {str(where[0]).partition("%")[0] for *_, where in found}
    return all(ipaddress.ip_address(host).is_loopback for host in hosts)


def _database(path: str) -> str:
    """Return the absolute path of Flower's file, in a directory that exists and that nobody else can write to."""
    file = Path(path).absolute()
    folder = file.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (os.getuid(), 0):
            # The file is a pickle: reading one that somebody else wrote runs what he likes.
            usage(
                f"the directory of Flower's file, {folder}, can be written by others, who could run programs by it;"
                " choose another by --db"
            )
        if not os.access(folder, os.W_OK) or file.is_dir():
            usage(f"Flower's file {file} cannot be written; choose another by --db")
        for one in (Path(f"{file}{ending}") for ending in _ENDINGS):
            if one.is_symlink() or (one.exists() and one.stat().st_uid != os.getuid()):
                usage(
                    f"Flower's file {one} is a link, or somebody else's; remove it, or choose another by --db"
                )
            if one.exists():
                one.chmod(0o600)
    except OSError as error:
        usage(f"Flower's file {file} cannot be used: {error.strerror}; choose another by --db")
    return str(file)


def _check_variables() -> None:
    """Refuse values of ``FLOWER_…`` that Flower would fall over."""
    from flower.command import apply_env_options

    try:
        apply_env_options()
    except Exception as error:  # noqa: BLE001 - whatever its parsers raise
        usage(f"a FLOWER_… variable has a value that Flower cannot use: {type(error).__name__}")


def _check_port(address: str, port: int) -> None:
    from tornado.netutil import bind_sockets

    try:
        sockets = bind_sockets(port, address=address)
    except OSError as error:
        usage(f"Flower cannot listen at {address}:{port}: {error.strerror}")
    for one in sockets:
        one.close()
