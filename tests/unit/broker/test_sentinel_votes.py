"""Which primary is believed: by votes of sentinels, some of which are away, mistaken, or lie."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from snapferry.workers.broker.connecting.pool import connection_pool, sentinel_clients
from snapferry.workers.broker.connecting.sentinels import PrimaryNotFound, VotingSentinels, is_allowed
from snapferry.workers.broker.connection import BrokerUnavailable, BrokerUnfit, check_broker
from snapferry.workers.settings.broker_url import parse
from tests.servers import free_port

from .fake_redis import bulk, sentinel, serving

TRUE, FALSE = bulk("10.0.0.1", "6379"), bulk("10.6.6.6", "6379")
AWAY = b""
UNKNOWN = b"_\r\n"


def discovered(*replies: bytes, parameters: str = "") -> tuple[str, int]:
    """Return the primary that sentinels with these replies name; AWAY is one that does not listen."""
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(sentinel(one))) if one else free_port() for one in replies]
        hosts = ";".join(f"127.0.0.1:{port}" for port in ports)
        broker = parse(f"sentinel://{hosts}?master_name=m{parameters}")
        found = VotingSentinels(sentinel_clients(broker), broker.allowed_hosts)
        try:
            return found.discover_master("m")
        finally:
            found.close()


@pytest.mark.parametrize(
    "replies",
    [
        (TRUE,),
        (TRUE, TRUE, FALSE),
        (FALSE, TRUE, TRUE),
        (AWAY, AWAY, TRUE),
        (AWAY, TRUE),
        (UNKNOWN, TRUE, AWAY),
        (FALSE, TRUE, AWAY, TRUE, UNKNOWN),
        (b"-ERR it is loading\r\n", TRUE),
    ],
)
def test_the_primary_is_the_one_that_more_sentinels_name_than_any_other(replies: tuple[bytes, ...]) -> None:
    assert discovered(*replies) == ("10.0.0.1", 6379)


@pytest.mark.parametrize("replies", [(TRUE, FALSE), (FALSE, TRUE, AWAY), (FALSE, AWAY, TRUE, UNKNOWN)])
def test_without_more_votes_for_one_none_is_believed(replies: tuple[bytes, ...]) -> None:
    with pytest.raises(
        PrimaryNotFound, match=r"disagree on the primary of m: 10\.0\.0\.1:6379 and 10\.6\.6\.6"
    ):
        discovered(*replies)


@pytest.mark.parametrize(
    "reply",
    [
        UNKNOWN,
        b"+OK\r\n",
        b":7\r\n",
        b"*0\r\n",
        b"*1\r\n$1\r\na\r\n",
        b"*-1\r\n",
        bulk("10.0.0.1", "port"),
        bulk("10.0.0.1", "0"),
        bulk("10.0.0.1", "65536"),
        bulk("10.0.0.1", "-1"),
        bulk("", "6379"),
        bulk("a b", "6379"),
        bulk("\x1b[31mred", "6379"),
        bulk("x" * 300, "6379"),
        bulk("10.0.0.1\r\n", "6379"),
        b"*2\r\n$2\r\n\xff\xfe\r\n$4\r\n6379\r\n",
        b"?\r\n",
        b"-NOPERM no\r\n",
        # Where clouds serve credentials.
        bulk("169.254.169.254", "80"),
        bulk("::ffff:169.254.169.254", "80"),
        bulk("fe80::1", "80"),
        bulk("0.0.0.0", "6379"),
        bulk("224.0.0.1", "6379"),
    ],
)
def test_an_answer_that_must_not_be_used_is_an_outage_in_one_line(reply: bytes) -> None:
    with pytest.raises(ConnectionError) as raised:
        discovered(reply)

    said = str(raised.value)
    assert said.startswith("no sentinel names a primary of m: 127.0.0.1:")
    assert said.isprintable()
    assert len(said) <= 600


@pytest.mark.parametrize(
    ("host", "allowed", "is_right"),
    [
        ("10.0.0.5", ("10.0.0.0/24",), True),
        ("10.0.1.5", ("10.0.0.0/24",), False),
        ("10.0.0.5", ("10.0.0.5",), True),
        ("::ffff:10.0.0.5", ("10.0.0.0/24",), True),
        ("10.0.0.5", ("redis.internal",), False),
        ("redis.internal", ("10.0.0.0/8",), False),
        ("Redis.Internal.", ("redis.internal",), True),
        ("a.redis.internal", ("*.redis.internal",), True),
        ("redis.internal", ("*.redis.internal",), False),
        ("evilredis.internal", ("*.redis.internal",), False),
        ("169.254.1.1", ("169.254.0.0/16",), True),
        ("redis.internal", (), True),
        ("169.254.1.1", (), False),
    ],
)
def test_what_a_sentinel_may_name_is_limited(host: str, allowed: tuple[str, ...], is_right: bool) -> None:
    assert is_allowed(host, allowed) is is_right


def test_a_host_that_is_excluded_has_no_vote() -> None:
    assert discovered(FALSE, FALSE, TRUE, parameters="&allowed_hosts=10.0.0.0/24") == ("10.0.0.1", 6379)
    with pytest.raises(PrimaryNotFound, match=r"names 10\.6\.6\.6, which allowed_hosts"):
        discovered(FALSE, parameters="&allowed_hosts=10.0.0.0/24")


def test_a_sentinel_that_did_not_answer_is_passed_over_for_a_while() -> None:
    asked = []

    def slow(words: list[bytes]) -> bytes:
        asked.append(words[0])
        return b""

    with serving(slow) as silent, serving(sentinel(TRUE)) as good:
        broker = parse(
            f"sentinel://127.0.0.1:{silent};127.0.0.1:{good};127.0.0.1:{free_port()}?master_name=m"
        )
        clients = sentinel_clients(broker)
        for _, client in clients:
            client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        found = VotingSentinels(clients, ())
        assert [found.discover_master("m") for _ in range(3)] == [("10.0.0.1", 6379)] * 3
        found.close()
    assert 0 < len(asked) <= 4


def test_sentinels_that_refuse_the_password_are_final_and_others_are_waited_for() -> None:
    refuses = b"-NOAUTH Authentication required.\r\n"
    with serving(lambda _: refuses) as port:
        with pytest.raises(BrokerUnfit, match="set sentinel_password") as raised:
            check_broker(f"sentinel://:hunter2@127.0.0.1:{port}?master_name=m&sentinel_password=hunter3")
        assert "hunter" not in str(raised.value)
        with pytest.raises(BrokerUnavailable) as waited:
            check_broker(f"sentinel://127.0.0.1:{port};127.0.0.1:{free_port()}?master_name=m")
    assert not isinstance(waited.value, BrokerUnfit)


def test_a_client_that_is_closed_has_no_connection_to_sentinels_left() -> None:
    with serving(sentinel(TRUE)) as one, serving(sentinel(TRUE)) as other:
        url = f"sentinel://127.0.0.1:{one};127.0.0.1:{other}?master_name=m"
        pool: Any = connection_pool(parse(url))
        assert pool.get_master_address() == ("10.0.0.1", 6379)
        made = [c for s in pool.sentinel_manager.sentinels for c in s.connection_pool._available_connections]
        assert [one.is_connected for one in made] == [True, True]
        pool.disconnect(inuse_connections=False)
        assert [one.is_connected for one in made] == [True, True]
        pool.disconnect()
        assert [one.is_connected for one in made] == [False, False]


def test_a_password_is_sent_to_no_host_that_is_excluded() -> None:
    received = []

    def primary(words: list[bytes]) -> bytes:
        received.append(b" ".join(words))
        return b"-ERR no\r\n"

    with serving(primary) as port, serving(sentinel(bulk("127.0.0.1", str(port)))) as one:
        url = f"sentinel://:hunter2@127.0.0.1:{one}?master_name=m&allowed_hosts=10.0.0.0/8"
        with pytest.raises(BrokerUnavailable):
            check_broker(url)
        pool = connection_pool(parse(url))
        with pytest.raises(PrimaryNotFound):
            pool.get_connection()
    assert received == []
