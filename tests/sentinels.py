"""A primary, replicas and sentinels for tests, each a real redis-server, with or without TLS and passwords."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from tests import servers
from tests.integration.processes import PATIENCE_S, until

NAME = "main"

PASSWORD = "hunter2%of/redis"
SENTINEL_PASSWORD = "hunter3-of-sentinels"


@dataclass
class Server:
    """One redis-server. *options* are those of its configuration file, which sentinels write to."""

    folder: Path
    port: int
    options: dict[str, str]
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with the configuration that it has written, or else with its options."""
        path = self.folder / "redis.conf"
        if not path.exists():
            self.folder.mkdir(parents=True)
            path.write_text("".join(f"{name} {value}\n" for name, value in self.options.items()))
        command = [servers.redis_program(), str(path), *(["--sentinel"] if self.sentinel else [])]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(PATIENCE_S)


@dataclass
class SentinelSet:
    """Redis servers, the first of which begins as the primary, and the sentinels that watch them."""

    servers: list[Server]
    sentinels: list[Server]
    certificates: Path | None = None
    passwords: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    user: str = ""
    password: str = PASSWORD

    @property
    def url(self) -> str:
        """The broker's URL."""
        secret = f"{self.user}:{quote(self.password, safe='')}@" if self.passwords else ""
        hosts = ";".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        options = {"master_name": NAME} | self.parameters
        if self.passwords:
            options["sentinel_password"] = SENTINEL_PASSWORD
        if self.certificates:
            options["ssl_ca_certs"] = str(self.certificates / "ca.pem")
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"sentinel{'s' if self.certificates else ''}://{secret}{hosts}/0?{query}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run all servers and sentinels in the block. They are in sync when it begins."""
        try:
            for one in (*self.servers, *self.sentinels):
                one.start()
            until(self.in_sync, "the replicas and sentinels know one another")
            yield
        finally:
            for one in (*self.sentinels, *self.servers):
                one.kill()

    def client(self, server: Server) -> redis.Redis:
        """Return a client for one of the servers or sentinels."""
        secret = (SENTINEL_PASSWORD if server.sentinel else self.password) if self.passwords else None
        tls: dict[str, Any] = {}
        if self.certificates:
            tls = {"ssl": True, "ssl_ca_certs": str(self.certificates / "ca.pem")}
        return redis.Redis(
            host="127.0.0.1",
            port=server.port,
            username=None if server.sentinel else self.user or None,
            password=secret,
            decode_responses=True,
            socket_timeout=5,
            **tls,
        )

    def answers(self, server: Server) -> bool:
        """Return whether *server* runs and answers."""
        with self.client(server) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def info(self, server: Server) -> dict[str, Any]:
        """Return what *server* says of its replication."""
        with self.client(server) as client, suppress(redis.RedisError):
            return dict(client.info("replication"))
        return {}

    def primary(self) -> Server:
        """Return the server that all sentinels name."""

        def named() -> Server | None:
            ports = set()
            for one in self.sentinels:
                with self.client(one) as client, suppress(redis.RedisError):
                    found: Any = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
                    ports.add(found and int(found[1]))
            return next((one for one in self.servers if ports == {one.port}), None)

        found: Server = until(named, "all sentinels name the same primary")
        return found

    def in_sync(self) -> bool:
        """Return whether the primary has all replicas, and the sentinels know them and one another."""
        with self.client(self.sentinels[0]) as client, suppress(redis.RedisError):
            found: Any = client.sentinel_master(NAME)
            others = len(self.sentinels) - 1
            if found["num-other-sentinels"] < others or found["num-slaves"] < len(self.servers) - 1:
                return False
            info = self.info(next(one for one in self.servers if one.port == found["port"]))
            online = [
                info.get(f"slave{n}", {}).get("state") == "online" for n in range(len(self.servers) - 1)
            ]
            return all(online)
        return False

    def failover(self) -> Server:
        """Kill the primary; return the next one, when all sentinels name it."""
        old = self.primary()
        old.kill()
        until(lambda: self.primary() is not old, "another server is the primary")
        return self.primary()


def make_certificates(folder: Path) -> None:
    """Make an authority (ca.pem) and a certificate of it for 127.0.0.1 (server.pem, server.key)."""
    openssl = shutil.which("openssl") or servers.missing("openssl is not installed")
    folder.mkdir(parents=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    authority = [
        openssl,
        "req",
        "-x509",
        *key,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=authority",
    ]
    request = [
        openssl,
        "req",
        "-x509",
        *key,
        "-keyout",
        "server.key",
        "-out",
        "server.pem",
        "-subj",
        "/CN=server",
    ]
    request += ["-CA", "ca.pem", "-CAkey", "ca.key", *names]
    for command in (authority, request):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def sentinel_set(
    folder: Path,
    *,
    replicas: int = 1,
    sentinels: int = 3,
    tls: bool = False,
    passwords: bool = False,
    down_after_ms: int = 1000,
    **more: str,
) -> Iterator[SentinelSet]:
    """Run a set of servers and sentinels; *more* are options of the servers. It is in sync when the block begins."""
    if tls:
        servers.need_redis_with_tls()
    certificates = folder / "certificates" if tls else None
    if certificates:
        make_certificates(certificates)
    common = {"bind": "127.0.0.1", "daemonize": "no", "loglevel": "notice"}
    if certificates:
        common |= {
            "tls-cert-file": str(certificates / "server.pem"),
            "tls-ca-cert-file": str(certificates / "ca.pem"),
        }
        common |= {
            "tls-key-file": str(certificates / "server.key"),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }

    def server(name: str, sentinel: bool, options: dict[str, str]) -> Server:
        port = servers.free_port()
        place = {"tls-port": str(port), "port": "0"} if tls else {"port": str(port)}
        own = folder / name
        return Server(own, port, common | place | {"dir": str(own)} | options, sentinel)

    data = {"appendonly": "yes", "appendfsync": "everysec", "save": '""', "maxmemory-policy": "noeviction"}
    data |= {"repl-diskless-sync-delay": "0", "repl-timeout": "10", **more}
    if passwords:
        data |= {"requirepass": f'"{PASSWORD}"', "masterauth": f'"{PASSWORD}"'}
    primary = server("redis-0", False, data)
    others = [
        server(f"redis-{n}", False, data | {"replicaof": f"127.0.0.1 {primary.port}"})
        for n in range(1, replicas + 1)
    ]
    quorum = sentinels // 2 + 1
    watching = []
    for n in range(sentinels):
        options = {"sentinel monitor": f"{NAME} 127.0.0.1 {primary.port} {quorum}"}
        options |= {f"sentinel down-after-milliseconds {NAME}": str(down_after_ms)}
        options |= {f"sentinel failover-timeout {NAME}": "6000"}
        if passwords:
            options |= {f"sentinel auth-pass {NAME}": f'"{PASSWORD}"'}
            options |= {"requirepass": SENTINEL_PASSWORD, "sentinel sentinel-pass": SENTINEL_PASSWORD}
        watching.append(server(f"sentinel-{n}", True, options))
    found = SentinelSet([primary, *others], watching, certificates, passwords)
    with found.running():
        yield found
