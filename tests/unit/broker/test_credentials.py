"""Passwords from a file or a command: what is read, when, and what is said if that fails."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

from snapferry.workers.broker.connecting import credentials
from snapferry.workers.broker.connecting.credentials import (
    CredentialsRefused,
    CredentialsUnavailable,
    RotatingCredentials,
    rotating,
)
from snapferry.workers.broker.connecting.pool import connection_pool
from snapferry.workers.broker.connection import BrokerUnavailable, BrokerUnfit, check_broker, is_outage
from snapferry.workers.settings.broker_url import parse
from tests.unit.broker.fake_redis import serving


def of_file(path: Path, content: str, user: str = "") -> RotatingCredentials:
    path.write_text(content)
    path.chmod(0o600)
    return RotatingCredentials(parse(f"redis://{user}h?credentials_file={path}"))


def of_command(*arguments: str) -> RotatingCredentials:
    command = shlex.join([sys.executable, "-c", *arguments])
    return RotatingCredentials(parse(f"redis://h?credentials_command={quote_plus(command)}"))


@pytest.mark.parametrize(
    ("content", "user", "expected"),
    [
        ("pass word\n", "", ("pass word",)),
        ("pa:ss\r\n", "me@", ("me", "pa:ss")),
        ('{"password": "{x"}', "", ("{x",)),
        ('{"password": "p", "username": "you", "host": "h", "port": 1}', "me@", ("you", "p")),
    ],
)
def test_a_password_is_one_line_or_a_document(
    tmp_path: Path, content: str, user: str, expected: tuple[str, ...]
) -> None:
    assert of_file(tmp_path / "secret", content, user).of_redis.get_credentials() == expected


def test_sentinels_have_their_own_password_or_none(tmp_path: Path) -> None:
    document = json.dumps({"password": "p", "sentinel_password": "q", "sentinel_username": "w"})

    assert of_file(tmp_path / "secret", document).of_sentinels.get_credentials() == ("w", "q")
    assert of_file(tmp_path / "other", "p").of_sentinels.get_credentials() == ()


def test_a_file_is_read_at_each_connection(tmp_path: Path) -> None:
    found = of_file(tmp_path / "secret", "old")
    assert found.of_redis.get_credentials() == ("old",)

    (tmp_path / "secret").write_text("new")

    assert found.of_redis.get_credentials() == ("new",)


@pytest.mark.parametrize(
    "content",
    ["", "\n", "a\nb", "{", "{}", '{"password": 1}', '{"password": ""}', "a\0b", "x" * 70_000],
)
def test_other_content_is_refused_without_repeating_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(CredentialsUnavailable, match="a password on one line") as raised:
        of_file(tmp_path / "secret", content).of_redis.get_credentials()

    assert "x" * 100 not in str(raised.value)
    assert is_outage(raised.value)


def test_a_file_that_is_missing_or_that_everybody_can_read_is_not_used(tmp_path: Path) -> None:
    missing = RotatingCredentials(parse(f"redis://h?credentials_file={tmp_path}/none"))
    with pytest.raises(CredentialsUnavailable, match=f"{tmp_path}/none: No such file"):
        missing.of_redis.get_credentials()

    found = of_file(tmp_path / "secret", "hunter2")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(CredentialsUnavailable, match="everybody can read it") as raised:
        found.of_redis.get_credentials()
    assert "hunter2" not in str(raised.value)


def test_a_command_is_run_once_for_many_connections_and_again_after_a_refusal(tmp_path: Path) -> None:
    count = tmp_path / "count"
    found = of_command(
        f'import pathlib; p = pathlib.Path("{count}"); p.open("a").write("x"); print(p.read_text())'
    )

    assert [found.of_redis.get_credentials() for _ in range(3)] == [("x",)] * 3
    found.forget()
    assert found.of_redis.get_credentials() == ("xx",)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            'import sys; print("hunter2"); print("hunter2", file=sys.stderr); sys.exit(3)',
            "failed with status 3",
        ),
        ("import os; os.kill(os.getpid(), 9)", "failed with status -9"),
        ("pass", "a password on one line"),
        ('print("hunter2\\nhunter2")', "a password on one line"),
    ],
)
def test_a_command_that_fails_is_named_and_not_quoted(
    program: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CredentialsUnavailable, match=said) as raised:
        of_command(program).of_redis.get_credentials()

    assert "hunter2" not in str(raised.value) + "".join(capfd.readouterr())


def test_a_command_that_hangs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "COMMAND_S", 0.5)
    child = 'import subprocess, sys; subprocess.run([sys.executable, "-c", "import time; time.sleep(100)"])'
    began = time.monotonic()
    found = of_command(child)
    with pytest.raises(CredentialsUnavailable, match="no answer within"):
        found.of_redis.get_credentials()
    assert time.monotonic() - began < 60


def test_a_program_that_is_not_there_is_an_outage() -> None:
    for command in ("/nowhere/program", "'"):
        found = RotatingCredentials(parse(f"redis://h?credentials_command={quote_plus(command)}"))
        with pytest.raises(CredentialsUnavailable, match="cannot be run"):
            found.of_redis.get_credentials()


def server(password: bytes) -> object:
    def answer(words: list[bytes]) -> bytes:
        if words[0].upper() in (b"HELLO", b"AUTH"):
            if password not in words:
                return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
            return b"%1\r\n$5\r\nproto\r\n:3\r\n" if words[0].upper() == b"HELLO" else b"+OK\r\n"
        return b"+OK\r\n"

    return answer


def test_a_refused_password_is_an_outage_if_it_can_change_and_final_if_not(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("hunter2")
    path.chmod(0o600)
    with serving(server(b"new")) as port:  # type: ignore[arg-type]
        with pytest.raises(
            BrokerUnavailable, match=f"refuses the user or password from the file {path}"
        ) as waits:
            check_broker(f"redis://127.0.0.1:{port}?credentials_file={path}")
        assert not isinstance(waits.value, BrokerUnfit)
        with pytest.raises(BrokerUnfit) as final:
            check_broker(f"redis://:hunter2@127.0.0.1:{port}")
        assert "hunter2" not in str(waits.value) + str(final.value)

        pool = connection_pool(
            parse(f"redis://127.0.0.1:{port}?credentials_file={path}"), retry=Retry(NoBackoff(), 0)
        )
        client = redis.Redis.from_pool(pool)
        with pytest.raises(CredentialsRefused) as refused:
            client.execute_command("X")
        assert isinstance(refused.value, ConnectionError)
        assert is_outage(refused.value)
        path.write_text("new")
        assert client.execute_command("X") in (b"OK", "OK", True)
        client.close()


def test_each_process_reads_a_broker_once() -> None:
    url = "redis://h?credentials_file=/a"
    assert rotating(parse(url)) is rotating(parse(url))
    assert rotating(parse("redis://h")) is None
