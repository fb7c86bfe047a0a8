"""Settings: defaults, what each variable does, and what is said of a wrong one."""

from __future__ import annotations

import ssl
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from snapferry.workers.app import make_app
from snapferry.workers.broker.connection import client
from snapferry.workers.settings.broker_url import shown
from snapferry.workers.settings.environment import (
    InvalidSettings,
    Settings,
    flower_settings,
    misspelt_variables,
    parse_broker_url,
    secrets,
    store_options,
)
from tests.variables import READ


def test_without_any_variable_the_defaults_are_valid() -> None:
    settings = Settings.from_environment({})

    assert settings.broker_url is None
    assert (settings.batch_objects, settings.batch_bytes) == (2500, 64 * 1024**2)
    assert (settings.window_batches, settings.prices) == (256, None)
    assert (settings.visibility_timeout, settings.job_expires) == (1800, 30 * 86400)
    assert (settings.metrics_port, settings.metrics_address) == (None, "127.0.0.1")


def test_requests_to_s3_are_limited_only_if_it_says_so() -> None:
    assert Settings.from_environment({}).s3_max_requests is None
    assert Settings.from_environment({"SNAPFERRY_S3_MAX_REQUESTS": ""}).s3_max_requests is None
    assert Settings.from_environment({"SNAPFERRY_S3_MAX_REQUESTS": "25"}).s3_max_requests == 25
    assert Settings.from_environment({"SNAPFERRY_S3_MAX_REQUESTS": "None"}).s3_max_requests is None


def in_words(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (" ".join(value) or "none") if isinstance(value, tuple) else str(value)


def test_every_field_has_a_variable() -> None:
    environ = {
        "SNAPFERRY_BROKER_URL": "redis://host:6379/1",
        "SNAPFERRY_BATCH_OBJECTS": "7",
        "SNAPFERRY_BATCH_BYTES": "70",
        "SNAPFERRY_WINDOW_BATCHES": "77",
        "SNAPFERRY_VISIBILITY_TIMEOUT": "61",
        "SNAPFERRY_JOB_EXPIRES": "3601",
        "SNAPFERRY_MAX_MANIFEST_BYTES": "1048577",
        "SNAPFERRY_MAX_PLAN_OBJECTS": "1001",
        "SNAPFERRY_MAX_SNAPSHOTS": "11",
        "SNAPFERRY_CONFIG": "/etc/snapferry.toml",
        "SNAPFERRY_S3_MAX_REQUESTS": "4321",
        "SNAPFERRY_PRICES": "/etc/prices.toml",
        "SNAPFERRY_METRICS_PORT": "9464",
        "SNAPFERRY_METRICS_ADDRESS": "0.0.0.0",
        "SNAPFERRY_PATIENCE": "90.0",
        "SNAPFERRY_LOG_FORMAT": "json",
        "SNAPFERRY_LOG_LEVEL": "warning",
        "SNAPFERRY_FOLLOW_LINKS": "/mnt/one:/mnt/two",
        "SNAPFERRY_GROUP_WRITE": "true",
        "SNAPFERRY_GRACE": "2.5",
        "SNAPFERRY_ACCESS_READ": "live s3://archive",
        "SNAPFERRY_ACCESS_WRITE": "none",
        "SNAPFERRY_ACCESS_DELETE": "backup",
        "SNAPFERRY_ACCESS_ENDPOINTS": "https://s3.example",
        "SNAPFERRY_ACCESS_PROFILES": "archive",
        "SNAPFERRY_ACCESS_LINK_LOCAL": "false",
    }

    found = Settings.from_environment(environ).model_dump()

    assert (
        found.keys()
        == {name.removeprefix("SNAPFERRY_").lower() for name in environ}
        == set(Settings.model_fields)
    )
    found["follow_links"] = ":".join(found["follow_links"])
    assert {in_words(value) for value in found.values()} == set(environ.values())


WRONG = [
    ("SNAPFERRY_BATCH_OBJECTS", "0"),
    ("SNAPFERRY_BATCH_OBJECTS", "-3"),
    ("SNAPFERRY_FOLLOW_LINKS", "mnt/one"),
    ("SNAPFERRY_FOLLOW_LINKS", "/mnt/one:/"),
    ("SNAPFERRY_GROUP_WRITE", "perhaps"),
    ("SNAPFERRY_BATCH_OBJECTS", "many"),
    ("SNAPFERRY_BATCH_OBJECTS", "1.5"),
    ("SNAPFERRY_BATCH_OBJECTS", "10001"),
    ("SNAPFERRY_BATCH_BYTES", "0"),
    ("SNAPFERRY_BATCH_BYTES", "64MiB"),
    ("SNAPFERRY_WINDOW_BATCHES", "0"),
    ("SNAPFERRY_WINDOW_BATCHES", "100001"),
    ("SNAPFERRY_VISIBILITY_TIMEOUT", "0"),
    ("SNAPFERRY_JOB_EXPIRES", "1"),
    ("SNAPFERRY_S3_MAX_REQUESTS", "0"),
    ("SNAPFERRY_S3_MAX_REQUESTS", "any"),
    ("SNAPFERRY_METRICS_PORT", "0"),
    ("SNAPFERRY_METRICS_PORT", "65536"),
    ("SNAPFERRY_METRICS_PORT", "http"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_that_cannot_be_used_is_an_error_that_names_the_variable_and_the_value(
    name: str, value: str
) -> None:
    with pytest.raises(InvalidSettings) as raised:
        Settings.from_environment({name: value})

    assert str(raised.value).startswith(f"{name}: ")
    assert repr(value) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["SNAPFERRY_BROKER_URL", "SNAPFERRY_BATCH_OBJECTS"])
def test_an_empty_variable_is_as_good_as_none(name: str) -> None:
    assert Settings.from_environment({name: ""}) == Settings.from_environment({})


def test_what_is_given_wins_over_the_environment_and_none_is_not_given() -> None:
    environ = {"SNAPFERRY_BROKER_URL": "redis://one", "SNAPFERRY_BATCH_OBJECTS": "5"}

    settings = Settings.from_environment(environ, broker_url="redis://two", batch_objects=None)

    assert (settings.broker_url, settings.batch_objects) == ("redis://two", 5)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://host", None),
        ("redis://:pw@host:6379/0", None),
        ("redis://user:p%40%2F%3F%23w@[::1]:6380/15", None),
        ("unix:///run/redis.sock", None),
        ("unix:///run/redis.sock?db=3", None),
        ("rediss://user:pw@host:6380/2", "rediss://user:pw@host:6380/2?ssl_cert_reqs=required"),
        ("rediss://host?ssl_cert_reqs=CERT_REQUIRED", "rediss://host?ssl_cert_reqs=required"),
        ("rediss://host?ssl_cert_reqs=CERT_NONE", "rediss://host?ssl_cert_reqs=none"),
        ("rediss://host?ssl_cert_reqs=optional", "rediss://host?ssl_cert_reqs=optional"),
        (
            "rediss://host/1?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/c&ssl_keyfile=/k",
            "rediss://host/1?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_certfile=%2Fc&ssl_keyfile=%2Fk&ssl_cert_reqs=required",
        ),
    ],
)
def test_the_broker_is_a_redis_server_in_the_one_spelling_that_all_understand(
    url: str, read: str | None
) -> None:
    expected = read or url

    assert parse_broker_url(url) == expected
    assert parse_broker_url(expected) == expected
    assert Settings.from_environment({"SNAPFERRY_BROKER_URL": url}).broker_url == expected
    assert Settings.from_environment({}, broker_url=url).broker_url == expected


@pytest.mark.parametrize("checks", ["required", "none", "CERT_REQUIRED"])
def test_a_broker_by_tls_is_understood_by_redis_and_by_celery(checks: str) -> None:
    """Each has spellings of its own that the other refuses; nothing is connected to here."""
    settings = Settings.from_environment({}, broker_url=f"rediss://host?ssl_cert_reqs={checks}")
    assert settings.broker_url is not None

    app = make_app(settings)
    ours, backend = client(settings.broker_url), app.backend.client

    verified = ssl.CERT_NONE if checks == "none" else ssl.CERT_REQUIRED
    for pool in (ours.connection_pool, backend.connection_pool):
        assert pool.connection_class(**pool.connection_kwargs).cert_reqs == verified
    app.close()


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:hunter2@host",
        "hunter2",
        "redis:hunter2@host",
        "user:hunter2@host",
        "hunter2/x://host",
        "://hunter2",
    ],
)
def test_another_broker_is_refused_and_no_password_repeated(url: str) -> None:
    with pytest.raises(
        InvalidSettings, match=r"must begin with redis://, rediss://, .* or unix://"
    ) as raised:
        Settings.from_environment({"SNAPFERRY_BROKER_URL": url})

    assert "hunter2" not in str(raised.value)


# What a person's password may hold when it was not percent-encoded, and where else one may stand.
UNREADABLE = [
    "redis://:hun/ter2@host",
    "redis://:hun?ter2@host",
    "redis://:hun#ter2@host",
    "redis://:hun:ter2/@host",
    "redis://user:123/ter2@host",
    "redis://:123?ter2@host",
    "redis://:123#ter2@host",
    "rediss://:hun/ter2@host",
    "rediss://:123/ter2@host",
    "rediss://:123?ter2@host",
    "rediss://:123?hun=ter2@host",
    "redis://host?password=hunter2",
    "redis://host?hunter2",
    "redis://host?username=u&password=hunter2",
    "rediss://host?ssl_password=hunter2",
    "rediss://host?ssl_cert_reqs=hunter2",
    "redis://host?ssl_cert_reqs=none&x=hunter2",
    "redis://[hunter2",
    "redis://:hunter2@[::1",
    "redis://:hunter2@host:port",
    "redis://:hunter2@host:70000",
    "redis://:hunter2@host:0",
    "redis://:hunter2@host:-1",
    "redis://:hunter2@host#fragment",
    "unix://user:hunter2@/run/redis.sock",
    "unix://:hunter2@host/run/redis.sock",
    "unix://hunter2/run/redis.sock",
    "unix:///run/redis.sock?password=hunter2",
    "unix:///run/redis.sock#hunter2",
    "unix://?db=1&x=hunter2",
]


@pytest.mark.parametrize("url", UNREADABLE)
def test_a_broker_url_that_two_libraries_might_read_in_two_ways_is_refused_and_no_password_repeated(
    url: str,
) -> None:
    with pytest.raises(InvalidSettings) as raised:
        Settings.from_environment({"SNAPFERRY_BROKER_URL": url})

    said = "".join(traceback.format_exception(raised.value, limit=0))
    assert "broker URL" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not any(piece in said for piece in ("hun", "ter2", "123"))


@pytest.mark.parametrize("url", ["unix://", "unix://?db=1"])
def test_a_socket_needs_a_path(url: str) -> None:
    with pytest.raises(InvalidSettings, match="unix:///path/of/socket"):
        parse_broker_url(url)


@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user:hunter2@host:6379/0", "redis://host:6379/0"),
        ("rediss://:hunter2@host?ssl_cert_reqs=required", "rediss://host"),
        ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock"),
        ("redis://:hun/ter2@host", "redis://host"),
        ("redis://:hun?ter2@host/1?x=y", "redis://host/1"),
        ("redis://:hun@ter2@host", "redis://host"),
        ("redis://host?password=hunter2", "redis://host"),
    ],
)
def test_a_broker_is_shown_without_user_password_and_parameters(url: str, as_shown: str) -> None:
    assert shown(url) == as_shown


def test_settings_do_not_change_and_have_no_unknown_fields() -> None:
    settings = Settings.from_environment({})

    with pytest.raises(ValidationError):
        settings.batch_objects = 5  # type: ignore[misc]  # it is read-only: that is what is tested
    with pytest.raises(InvalidSettings, match="COLOUR"):
        Settings.from_environment({}, colour="red")


def test_each_side_of_a_copy_has_its_own_s3_options() -> None:
    environ = {
        "SNAPFERRY_FROM_ENDPOINT_URL": "http://one",
        "SNAPFERRY_FROM_PROFILE": "first",
        "SNAPFERRY_TO_REGION": "eu",
        "SNAPDIR_S3_STORE_ENDPOINT_URL": "http://both",
    }

    assert store_options("from", environ) == {
        "endpoint_url": "http://one",
        "region": None,
        "profile": "first",
    }
    assert store_options("to", environ) == {"endpoint_url": "http://both", "region": "eu", "profile": None}
    assert store_options("to", {}) == {"endpoint_url": None, "region": None, "profile": None}


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud"), ("GRACE", "-1"), ("GRACE", "soon"), ("GRACE", "inf")],
)
def test_what_a_log_or_a_shutdown_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^SNAPFERRY_{name}: ") as raised:
        Settings.from_environment({f"SNAPFERRY_{name}": value})
    assert "\n" not in str(raised.value)


def test_a_level_may_be_written_in_capitals() -> None:
    assert Settings.from_environment({"SNAPFERRY_LOG_LEVEL": "WARNING"}).log_level == "warning"


def test_what_must_not_be_seen_is_known() -> None:
    settings = Settings(broker_url="redis://user:p%2Fss-word@host/0")
    environ = {
        "AWS_SECRET_ACCESS_KEY": "one",
        "FLOWER_BASIC_AUTH": "two",
        "AWS_REGION": "three",
        "X_TOKEN": "",
    }

    assert secrets(settings, environ) == ["p%2Fss-word", "p/ss-word", "one", "two"]


@pytest.mark.parametrize("name", ["SNAPFERRY_FLOWER_BASIC_AUTH", "FLOWER_BASIC_AUTH"])
def test_who_may_look_at_flower_is_said_in_either_variable(name: str) -> None:
    found = flower_settings({name: "me:a:b,you:c", "XDG_STATE_HOME": "/var/state"})

    assert found.users == ("me:a:b", "you:c")
    assert found.guarded
    assert found.database == "/var/state/snapferry/flower.db"
    assert "a:b" not in repr(found)


def test_nobody_is_asked_for_by_flower_if_nobody_was_named() -> None:
    found = flower_settings({"SNAPFERRY_FLOWER_BASIC_AUTH": ""})

    assert not found.guarded
    assert found.database == str(Path("~/.local/state/snapferry/flower.db").expanduser())


@pytest.mark.parametrize("value", ["me", "me:", ":secret", "me:x,", "me:x,you"])
def test_a_user_of_flower_without_a_password_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(InvalidSettings, match="must be user:password") as raised:
        flower_settings({"FLOWER_BASIC_AUTH": value})
    assert "secret" not in str(raised.value)


def test_oauth_for_flower_is_all_or_nothing() -> None:
    complete = {
        f"FLOWER_{name}": "x"
        for name in ("AUTH", "AUTH_PROVIDER", "OAUTH2_KEY", "OAUTH2_SECRET", "OAUTH2_REDIRECT_URI")
    }
    assert flower_settings(complete).guarded
    for name in complete:
        with pytest.raises(InvalidSettings, match=f"OAuth for Flower also needs {name}$"):
            flower_settings({other: value for other, value in complete.items() if other != name})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SNAPFERRY_S3_MAX_REQUEST", "SNAPFERRY_S3_MAX_REQUESTS"),
        ("SNAPFERRY_BROKER", "SNAPFERRY_BROKER_URL"),
        ("SNAPFERRY_FROM_ENDPOINT", "SNAPFERRY_FROM_ENDPOINT_URL"),
        ("SNAPFERRY_LOGLEVEL", "SNAPFERRY_LOG_LEVEL"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert list(misspelt_variables({name: "1"})) == [(name, meant)]


def test_variables_that_are_read_and_those_of_other_programs_are_not_misspelt() -> None:
    read = {
        *READ,
        "SNAPFERRY_TO_PROFILE",
        "SNAPFERRY_USER",
        "SNAPFERRY_ZZZ",
        "SNAPDIR_STORE",
        "snapferry_broker",
    }
    assert list(misspelt_variables(dict.fromkeys(read, "1"))) == []
