"""Where every client connects to, what it waits for, and which servers are refused; with real servers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from celery.utils.serialization import jsonify
from kombu.utils.json import dumps

from snapferry.orchestrator.app import make_fleet_app
from snapferry.workers.broker.connecting.pool import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, connection_pool
from snapferry.workers.broker.connection import BrokerUnfit, check_broker, client
from snapferry.workers.settings.broker_url import parse
from snapferry.workers.settings.environment import Settings, parse_broker_url
from tests import servers
from tests.integration.processes import until
from tests.sentinels import make_certificates

from .fake_redis import bulk, sentinel, serving

URLS = [
    "redis://user:hunter2@h1:6380/3",
    "rediss://h1/3?ssl_ca_certs=/ca.pem",
    "valkey://:hunter2@h1/3",
    "redis://user@h1/3?credentials_file=/secret",
    "unix:///run/redis.sock?db=3",
    "sentinel://user:hunter2@h1;h2/3?master_name=m&sentinel_password=hunter3",
    "sentinels://h1;h2;h3/3?master_name=m",
]


@contextmanager
def server(folder: Path, *options: str) -> Iterator[int]:
    """Run a Redis with *options*, in which ``{port}`` is its port, which is yielded."""
    port = servers.free_port()
    command = [servers.redis_program(), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen([*command, *(one.format(port=port) for one in options)], stdout=nowhere) as process:
        try:
            until(lambda: process.poll() is not None or _listens(port), "Redis listens")
            assert process.poll() is None
            yield port
        finally:
            process.kill()


def _listens(port: int) -> bool:
    import socket

    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_commands_of_a_channel_share_a_client_for_as_long_as_its_pool_lives() -> None:
    """Kombu drops the pools of a channel after an error, and in a forked process."""
    app = make_fleet_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    transport = app.connection_for_write().transport
    channel = transport.Channel.__new__(transport.Channel)
    channel.snapferry_broker = parse("redis://127.0.0.1:1/0")
    channel.max_connections, channel.client_name = 10, None
    channel._sentinel_manager = channel._async_sentinel_manager = None
    channel.Client = channel._get_client()

    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
        assert channel.client is not first
    channel._disconnect_pools()
    with channel.conn_or_acquire() as third:
        assert third.connection_pool is channel.pool
        assert third.connection_pool is not first.connection_pool


@pytest.mark.parametrize("url", URLS)
def test_each_client_of_the_fleet_has_the_same_place_and_waits_no_longer(url: str) -> None:
    """Our own client, kombu's two, and that of Celery's results."""
    broker = parse(parse_broker_url(url))
    app = make_fleet_app(Settings(broker_url=broker.text))
    transport = app.connection_for_write().transport
    channel_class = transport.Channel
    channel = channel_class.__new__(channel_class)
    channel.snapferry_broker, channel.max_connections, channel.client_name = broker, 10, None
    pools = [
        client(broker.text).connection_pool,
        channel._get_pool(),
        channel._get_pool(asynchronous=True),
        app.backend.client.connection_pool,
    ]

    for pool in pools:
        options = pool.connection_kwargs
        assert options["db"] == 3
        assert 0 < options["socket_timeout"] <= ANSWER_TIMEOUT_S
        assert 0 < options["socket_connect_timeout"] <= CONNECT_TIMEOUT_S
        assert (options.get("host"), options.get("port"), options.get("path")) == (
            pools[0].connection_kwargs.get("host"),
            pools[0].connection_kwargs.get("port"),
            pools[0].connection_kwargs.get("path"),
        )
        assert issubclass(pool.connection_class, redis.SSLConnection) is bool(broker.tls)
        assert ("credential_provider" in options) is broker.rotates
        assert type(pool) is type(pools[0])
    assert channel.keyprefix_fanout.count("3")
    for shown in (repr(app.conf.broker_transport_options), app.conf.broker_url, app.conf.result_backend):
        assert "hunter" not in shown
    assert "hunter" not in app.connection_for_write().as_uri(include_password=True)
    # Workers answer `inspect stats` and `inspect conf` with these; Flower asks for both.
    answers = dumps(app.connection_for_write().info()) + dumps(
        jsonify(dict(app.conf), unknown_type_filter=repr)
    )
    assert broker.shown in answers
    assert "hunter" not in answers
    app.close()


def test_a_cluster_is_refused_with_the_reason(tmp_path: Path) -> None:
    # By default its second port is the first and 10,000, where something else may listen.
    cluster = ["--port", "{port}", "--cluster-port", str(servers.free_port()), "--cluster-enabled", "yes"]
    with server(tmp_path, *cluster) as port, redis.Redis(port=port) as admin:
        with pytest.raises(BrokerUnfit, match="part of a Redis Cluster"):
            check_broker(f"redis://127.0.0.1:{port}/0")

        admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        until(lambda: admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "it serves all slots")
        admin.execute_command("ACL SETUSER", "plain", "on", ">pw", "~*", "+@all", "-info")
        with pytest.raises(BrokerUnfit, match="part of a Redis Cluster"):
            check_broker(f"redis://plain:pw@127.0.0.1:{port}/0")


def test_a_certificate_for_another_name_than_the_sentinel_gave_is_refused_before_the_password(
    tmp_path: Path,
) -> None:
    """The sentinel names a host by a name; the server has a certificate of the right authority for its address."""
    servers.need_redis_with_tls()
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    tls = ["--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no", "--requirepass", "hunter2"]
    tls += ["--tls-cert-file", f"{certificates}/server.pem", "--tls-key-file", f"{certificates}/server.key"]
    tls += ["--tls-ca-cert-file", f"{certificates}/ca.pem", "--maxmemory-policy", "noeviction"]

    def url(named: int, **parameters: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        ca = f"{certificates}/ca.pem"
        return (
            f"sentinels://:hunter2@127.0.0.1:{named}?master_name=m&sentinel_ssl=false&ssl_ca_certs={ca}{more}"
        )

    with (
        server(tmp_path, *tls) as port,
        serving(sentinel(bulk("127.0.0.1", str(port)))) as right,
        serving(sentinel(bulk("localhost", str(port)))) as wrong,
    ):
        check_broker(url(right))
        check_broker(url(wrong, ssl_check_hostname="false"))
        admin = redis.Redis(
            port=port, host="127.0.0.1", password="hunter2", ssl=True, ssl_ca_certs=f"{certificates}/ca.pem"
        )
        before = admin.info("commandstats")["cmdstat_hello"]["calls"]
        with pytest.raises(BrokerUnfit, match="certificate verify failed"):
            check_broker(url(wrong))
        with pytest.raises(BrokerUnfit, match="certificate verify failed"):
            check_broker(url(right).partition("&ssl_ca_certs")[0])
        assert admin.info("commandstats")["cmdstat_hello"]["calls"] == before
        admin.close()


def test_a_managed_redis_by_tls_with_a_user_who_may_not_ask_much(tmp_path: Path) -> None:
    servers.need_redis_with_tls()
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    tls = [
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        "no",
        "--maxmemory-policy",
        "noeviction",
    ]
    tls += ["--tls-cert-file", f"{certificates}/server.pem", "--tls-key-file", f"{certificates}/server.key"]
    tls += ["--tls-ca-cert-file", f"{certificates}/ca.pem"]
    tls += [
        *[
            "--user",
            "default",
            "off",
            "--user",
            "app",
            "on",
            ">hunter2",
            "~snapferry*",
            "-@all",
            "+@read",
            "+@connection",
        ]
    ]
    secret = tmp_path / "secret"
    secret.write_text('{"username": "app", "password": "hunter2", "engine": "redis"}')
    secret.chmod(0o600)
    with server(tmp_path, *tls) as port:
        parameters = f"ssl_ca_certs={certificates}/ca.pem"
        check_broker(parse_broker_url(f"valkeys://app:hunter2@127.0.0.1:{port}/0?{parameters}"))
        check_broker(parse_broker_url(f"rediss://127.0.0.1:{port}/0?{parameters}&credentials_file={secret}"))
        with pytest.raises(BrokerUnfit) as refused:
            check_broker(parse_broker_url(f"rediss://app:hunter3@127.0.0.1:{port}/0?{parameters}"))
    assert "hunter3" not in str(refused.value)


def test_nothing_is_connected_to_when_a_pool_is_made() -> None:
    pool = connection_pool(parse("sentinels://nowhere.invalid?master_name=m"))
    assert pool.connection_kwargs["socket_timeout"] == ANSWER_TIMEOUT_S
