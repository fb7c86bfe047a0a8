"""Settings: defaults, what each variable does, and what is said of a wrong one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from workers.settings import InvalidSettings, Settings, parse_broker_url, store_options


def test_without_any_variable_the_defaults_are_valid() -> None:
    settings = Settings.from_environment({})

    assert settings.broker_url is None
    assert (settings.batch_objects, settings.batch_bytes) == (1000, 64 * 1024**2)
    assert (settings.visibility_timeout, settings.job_expires) == (1800, 30 * 86400)


def test_every_field_has_a_variable() -> None:
    environ = {
        "SNAPFERRY_BROKER_URL": "redis://host:6379/1",
        "SNAPFERRY_BATCH_OBJECTS": "7",
        "SNAPFERRY_BATCH_BYTES": "70",
        "SNAPFERRY_VISIBILITY_TIMEOUT": "61",
        "SNAPFERRY_JOB_EXPIRES": "3601",
    }

    found = Settings.from_environment(environ).model_dump()

    assert (
        found.keys()
        == {name.removeprefix("SNAPFERRY_").lower() for name in environ}
        == set(Settings.model_fields)
    )
    assert {str(value) for value in found.values()} == set(environ.values())


WRONG = [
    ("SNAPFERRY_BATCH_OBJECTS", "0"),
    ("SNAPFERRY_BATCH_OBJECTS", "-3"),
    ("SNAPFERRY_BATCH_OBJECTS", "many"),
    ("SNAPFERRY_BATCH_OBJECTS", "1.5"),
    ("SNAPFERRY_BATCH_OBJECTS", "10001"),
    ("SNAPFERRY_BATCH_BYTES", "0"),
    ("SNAPFERRY_BATCH_BYTES", "64MiB"),
    ("SNAPFERRY_VISIBILITY_TIMEOUT", "0"),
    ("SNAPFERRY_JOB_EXPIRES", "1"),
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


@pytest.mark.parametrize("url", ["redis://host", "rediss://user:pw@host:6380/2", "unix:///run/redis.sock"])
def test_the_broker_is_a_redis_server(url: str) -> None:
    parse_broker_url(url)
    assert Settings.from_environment({"SNAPFERRY_BROKER_URL": url}).broker_url == url


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
    with pytest.raises(InvalidSettings, match="must begin with redis://, rediss:// or unix://") as raised:
        Settings.from_environment({"SNAPFERRY_BROKER_URL": url})

    assert "hunter2" not in str(raised.value)


def test_settings_do_not_change_and_have_no_unknown_fields() -> None:
    settings = Settings.from_environment({})

    with pytest.raises(ValidationError):
        settings.batch_objects = 5
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
