"""A failover by hand: a replica takes over the address of the Redis that is killed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import redis

from tests import servers
from tests.integration.own_redis import OwnRedis
from tests.integration.processes import until


def fail_over(server: OwnRedis, folder: Path) -> None:
    """
    Make a replica of *server*, kill the server while clients write, and give its port to the replica.

    Replication is asynchronous, as with Sentinel: the replica may lack the last writes. If the replica cannot be made,
    the server runs on.
    """
    port, spare = server.command[server.command.index("--port") + 1], str(servers.free_port())
    own = tempfile.mkdtemp(prefix="replica-", dir=folder)
    command = list(server.command)
    command[command.index("--dir") + 1] = own
    at_spare = [spare if part == port else part for part in command]
    replica = OwnRedis(server.url.replace(f":{port}/", f":{spare}/"), at_spare)
    replica.start()
    client = redis.Redis.from_url(replica.url, decode_responses=True, socket_timeout=30)
    try:
        with redis.Redis.from_url(server.url, socket_timeout=30) as master:
            # By default a master waits 5 s for more replicas.
            master.config_set("repl-diskless-sync-delay", 0)
        client.replicaof("127.0.0.1", port)
        until(lambda: client.info("replication")["master_link_status"] == "up", "the replica is in step")
        until(lambda: _on_disk(client), "the replica's append-only file is complete")
    except BaseException:
        client.close()
        replica.kill()
        raise
    server.kill()
    client.replicaof("NO", "ONE")
    client.config_set("port", port)
    client.close()
    server.process, server.command = replica.process, command


def _on_disk(client: redis.Redis) -> bool:
    """Return whether a replica has written what it got from its master: until then a kill loses it."""
    found = client.info("persistence")
    return not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"] or found["loading"])
