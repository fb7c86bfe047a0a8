"""The URL of the broker: sentinels, Valkey's names, credentials from elsewhere, and what is refused."""

from __future__ import annotations

import traceback

import pytest

from snapferry.workers.settings.broker_url import MOST_SENTINELS, TLS, InvalidBrokerURL, parse, shown
from snapferry.workers.settings.environment import Settings, secrets

SENTINELS = (("h1", 26379), ("h2", 26380), ("::1", 26379))


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://user:p%40ss@h1;h2:26380;[::1]/3?master_name=main",
        # As Celery and kombu write it.
        "sentinel://user:p%40ss@h1;sentinel://user:p%40ss@h2:26380;sentinel://user:p%40ss@[::1]:26379/3?master_name=main",
        "sentinel://h1:26379/3;sentinel://user:p%40ss@h2:26380/3;[::1]/3?master_name=main",
        # A host that is named twice has one vote.
        "sentinel://user:p%40ss@h1;h2:26380;[::1];h1:26379/3?master_name=main",
    ],
)
def test_sentinels_are_read_in_our_spelling_and_in_celerys(url: str) -> None:
    broker = parse(url)

    assert broker.hosts == SENTINELS
    assert (broker.username, broker.password, broker.database, broker.master_name) == (
        "user",
        "p@ss",
        3,
        "main",
    )
    assert broker.tls is None
    assert parse(broker.text) == broker
    assert "p%40ss" not in shown(url)
    assert "p%40ss" not in repr(broker)
    assert "p@ss" not in repr(broker)


def test_sentinels_by_tls_have_options_of_their_own() -> None:
    broker = parse(
        "sentinels://h1/0?master_name=m.y-_1&ssl_ca_certs=/etc/ca.pem&sentinel_username=watch&sentinel_password=hush+hush"
        "&allowed_hosts=10.0.0.0/24,redis-1.internal,*.example.com,fd00::/8"
    )

    assert broker.tls == broker.sentinel_tls == TLS(ca_certs="/etc/ca.pem")
    assert (broker.sentinel_username, broker.sentinel_password) == ("watch", "hush hush")
    assert broker.allowed_hosts == ("10.0.0.0/24", "redis-1.internal", "*.example.com", "fd00::/8")
    assert parse(broker.text) == broker
    assert "hush" not in repr(broker) + broker.shown
    assert "hush hush" in secrets(Settings(broker_url=broker.text), {})


def test_sentinels_may_be_plain_while_redis_is_not() -> None:
    broker = parse("sentinels://h1?master_name=main&sentinel_ssl=false")

    assert (broker.tls, broker.sentinel_tls) == (TLS(), None)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("valkey://user:pw@host:6380/2", "redis://user:pw@host:6380/2"),
        ("valkeys://user:pw@host", "rediss://user:pw@host?ssl_cert_reqs=required"),
        (
            "valkeys://h?ssl_check_hostname=false",
            "rediss://h?ssl_check_hostname=false&ssl_cert_reqs=required",
        ),
    ],
)
def test_valkeys_names_are_those_of_redis(url: str, read: str) -> None:
    assert parse(url).text == read
    assert parse(url) == parse(read)


def test_what_celery_and_logs_are_shown_has_no_secret() -> None:
    url = "sentinel://u:hunter2@h1;sentinel://u:hunter2@h2/1?master_name=m&sentinel_password=hunter3"

    assert parse(url).shown == "sentinel://h1;h2/1"
    assert "hunter" not in shown(url)


@pytest.mark.parametrize(
    "given", ["credentials_file=/run/secrets/redis", "credentials_command=token+--for+redis"]
)
@pytest.mark.parametrize("place", ["redis://user@h", "rediss://h", "sentinel://h", "unix:///s"])
def test_credentials_may_be_elsewhere(place: str, given: str) -> None:
    broker = parse(f"{place}?{given}{'&master_name=m' if place.startswith('sentinel') else ''}")

    assert broker.rotates
    assert broker.password is None
    assert (broker.credentials_file or broker.credentials_command) in {
        "/run/secrets/redis",
        "token --for redis",
    }
    assert parse(broker.text) == broker


REFUSED = [
    "sentinel://h1;h2",
    "sentinel://h1?master_name=",
    "sentinel://h1?master_name=a%20b",
    # Everything after the first host would be a part of the name.
    "sentinel://h1?master_name=a;sentinel://:hunter2@h2",
    "sentinel://?master_name=m",
    "sentinel://h1;;h2?master_name=m",
    "sentinel://h1;redis://h2?master_name=m",
    "sentinels://h1;sentinel://h2?master_name=m",
    "sentinel://a:hunter2@h1;b:hunter2@h2?master_name=m",
    "sentinel://:hunter2@h1;:hunter3@h2?master_name=m",
    "sentinel://h1/0;h2/1?master_name=m",
    "sentinel://:hunter2;x@h1?master_name=m",
    "sentinel://:hunter2/x@h1?master_name=m",
    "sentinel://h1:0?master_name=m",
    "sentinel://h1:99999?master_name=m",
    "sentinel://h1?master_name=m&password=hunter2",
    "sentinel://h1?master_name=m&master_name=hunter2",
    "sentinel://h1?master_name=m&ssl_ca_certs=/hunter2",
    "sentinel://h1?master_name=m&allowed_hosts=10.0.0.0/99",
    "sentinel://h1?master_name=m&allowed_hosts=999.1.1.1",
    "sentinel://h1?master_name=m&allowed_hosts=a%20b",
    "sentinels://h1?master_name=m&sentinel_ssl=hunter2",
    "sentinel://" + ";".join(f"h{n}" for n in range(MOST_SENTINELS + 1)) + "?master_name=m",
    "redis://h1;h2",
    "redis://h1,h2",
    "redis://ho%20st",
    "redis://h?master_name=m",
    "redis://h?credentials_file=relative",
    "redis://h?credentials_file=",
    "redis://h?credentials_command=+",
    "redis://h?credentials_file=/a&credentials_command=b",
    "redis://:hunter2@h?credentials_file=/a",
    "rediss://h?ssl_check_hostname=maybe",
    "redis+cluster://h",
    "redis-cluster://h1",
    "sentinel+srv://h",
]


@pytest.mark.parametrize("url", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_and_no_password_repeated(url: str) -> None:
    with pytest.raises(InvalidBrokerURL) as raised:
        parse(url)

    said = "".join(traceback.format_exception(raised.value, limit=0))
    assert "broker URL" in said or "in the broker" in said
    assert "\n" not in str(raised.value)
    assert "hunter" not in said
