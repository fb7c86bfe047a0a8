"""Notifications of a real fleet, to a real HTTP server, a real mail server, and a listener that never answers."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.orchestrator.notify.send import send
from snapferry.orchestrator.notify.texts import Text
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files
from tests.servers import free_port

from .forge import Forge
from .processes import PATIENCE_S, Fleet, until

TOKEN = "hook-token-9f8e7d6c5b"
SOONER = "import snapferry.orchestrator.schedules.watcher as watcher\nwatcher.ROUND_S = 0.5\n"
PASSWORD = "mail-password-1a2b3c"


class Web:
    """An HTTP server that keeps what it is sent."""

    def __init__(self, status: int = 204) -> None:
        self.got: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = status
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                web.got.append(json.loads(self.rfile.read(length)))
                web.paths.append(self.path)
                self.send_response(web.status)
                self.send_header("Location", f"http://127.0.0.1:{web.port}/elsewhere")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Mail:
    """A mail server that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port())
        self.port = self.controller.port
        self.controller.start()

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        self.got.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=default)))
        return "250 OK"

    def close(self) -> None:
        self.controller.stop()


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(Web()) as found:
        yield found


@pytest.fixture
def mail() -> Iterator[Mail]:
    with closing(Mail()) as found:
        yield found


@pytest.fixture
def hung() -> Iterator[int]:
    """Return the port of a listener that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def addresses(folder: Path, web: Web, mail: Mail, *others: str) -> Path:
    """Write the file of addresses."""
    path = folder / "notify.urls"
    path.touch(mode=0o600)
    query = "from=snapferry%40example.org&to=ops%40example.org&mode=insecure"
    lines = [*others, f"json://127.0.0.1:{web.port}/{TOKEN}", f"mailto://127.0.0.1:{mail.port}/?{query}"]
    path.write_text("# who is told\n" + "\n".join(lines) + "\n")
    return path


def configuration(folder: Path, urls: Path) -> dict[str, str]:
    path = folder / "snapferry.toml"
    path.write_text(f'[notify]\nurls-file = "{urls}"\nwait = "0s"\ninterval = "0s"\nfleet = "test"\n')
    return {"SNAPFERRY_CONFIG": str(path)}


def receivers_left(forge: Forge, env: dict[str, str], redis_url: str) -> set[str]:
    shown = forge.run(["notify", "--json"], env={**env, "SNAPFERRY_BROKER_URL": redis_url})
    return {one["receiver"] for waiting in shown.document["waiting"] for one in waiting["left"]}


def test_a_failed_job_and_its_recovery_reach_web_and_mail_and_a_listener_that_hangs_delays_no_job(
    forge: Forge, redis_url: str, tmp_path: Path, web: Web, mail: Mail, hung: int
) -> None:
    files = random_files(20)
    make_store(tmp_path / "a", files)
    lost = tmp_path / "a" / object_key(digest(files["./dir 1/file-00001"]))
    kept = lost.read_bytes()
    lost.unlink()
    urls = addresses(tmp_path, web, mail, f"json://127.0.0.1:{hung}/{TOKEN}?rto=1&cto=1")
    env = configuration(tmp_path, urls)
    fleet = Fleet(redis_url, tmp_path, env)
    jobs = Jobs(Settings(broker_url=redis_url))
    stores = store_pair(f"file://{tmp_path}/a", f"file://{tmp_path}/b")
    with fleet.orchestrator(before=SOONER) as orchestrator, fleet.worker():
        first = jobs.submit(JobSpec.of(*stores, None))
        assert jobs.wait(first, timeout_s=PATIENCE_S).state is State.FAILED
        until(lambda: web.got and mail.got, "both are told of the failure")
        (command,) = [line.split() for line in web.got[0]["message"].splitlines() if line.startswith("    ")]
        lost.write_bytes(kept)
        retried = forge.run([*command[1:], "--broker", redis_url])
        assert retried.code == 0, retried
        until(lambda: len(web.got) > 1 and len(mail.got) > 1, "both are told of the recovery")
        second = jobs.list(limit=1)[0]
        # A receiver has a message before its sender has noted that.
        until(
            lambda: "notification not sent" in orchestrator.logged(), "the log names the listener that hangs"
        )
        until(
            lambda: receivers_left(forge, env, redis_url) == {"1 json"},
            "nobody waits but the listener that hangs",
        )
        shown = forge.run(["notify", "--json"], env={**env, "SNAPFERRY_BROKER_URL": redis_url})
        logs = orchestrator.logged()

    assert command[0] == "snapferry"
    assert (second.state, second.continues) == (State.DONE, first)
    assert [told["title"] for told in web.got] == [
        f"test: job {first[:8]} failed",
        f"test: job {first[:8]} has recovered",
    ]
    assert web.got[0]["type"] == "failure"
    assert "could not be copied" in web.got[0]["message"]
    assert web.paths == [f"/{TOKEN}"] * 2
    assert [(to, text["Subject"]) for to, text in mail.got] == [
        (["ops@example.org"], told["title"]) for told in web.got
    ]
    body = mail.got[0][1].get_body(("plain",)).get_content()
    assert " ".join(command) in body
    # Nobody waits for the listener that hangs but the process that sends to it.
    assert shown.document["receivers"] == ["1 json", "2 json", "3 mailto"]
    assert shown.document["problems"] == []
    assert TOKEN not in logs + shown.out + shown.err


def test_a_test_message_goes_to_each_receiver_and_the_command_says_who_did_not_get_it(
    forge: Forge, tmp_path: Path, web: Web, mail: Mail
) -> None:
    urls = addresses(tmp_path, web, mail)
    env = configuration(tmp_path, urls)
    more = {"SNAPFERRY_NOTIFY_URLS": f"json://user:{PASSWORD}@127.0.0.1:{free_port()}/{TOKEN}"}
    partly = forge.run(["notify", "--test"], env=env | more)
    os.chmod(urls, 0o644)
    open_to_all = forge.run(["notify", "--test"], env=env)

    assert partly.code == 1
    *fine, refused = partly.out.splitlines()
    assert fine == ["receiver 1 json: sent", "receiver 2 mailto: sent"]
    assert refused.startswith("receiver 3 json: not sent: ")
    assert web.got[0]["title"] == mail.got[0][1]["Subject"] == "test: test message"
    assert (open_to_all.code, len(web.got), len(mail.got)) == (2, 1, 1)
    assert "everybody can read it" in open_to_all.err
    for ended in (partly, open_to_all):
        assert TOKEN not in ended.out + ended.err
        assert PASSWORD not in ended.out + ended.err


HOSTILE = Text("1", "title \r\nBcc: x@example", "<b>bold</b> &amp; <script>x</script>\n.\nQUIT\n", "warning")


def test_a_receiver_that_hangs_refuses_or_redirects_is_a_failure_in_bounded_time(
    mail: Mail, hung: int
) -> None:
    query = "from=snapferry%40example.org&to=ops%40example.org&mode=insecure"
    with closing(Web(status=302)) as redirecting, closing(Web(status=500)) as broken:
        hangs = send(f"json://127.0.0.1:{hung}/{TOKEN}", HOSTILE, seconds=1)
        redirected = send(f"json://127.0.0.1:{redirecting.port}/{TOKEN}", HOSTILE)
        refused = send(f"json://127.0.0.1:{broken.port}/{TOKEN}", HOSTILE)
        unknown = send(f"nosuch://{TOKEN}/", HOSTILE)
        mailed = send(f"mailto://127.0.0.1:{mail.port}/?{query}", HOSTILE)

    assert (hangs.ok, hangs.reason) == (False, "no answer within 1 s")
    assert not redirected.ok
    assert redirecting.paths == [f"/{TOKEN}"]
    assert not refused.ok
    assert not unknown.ok
    assert all(TOKEN not in one.reason and one.reason for one in (hangs, redirected, refused, unknown))
    assert mailed.ok
    ((to, message),) = mail.got
    assert to == ["ops@example.org"]
    assert message["Bcc"] is None
    html = message.get_body(("html",))
    assert html is None or "<script>" not in html.get_content()


def test_a_run_on_one_machine_tells_what_failed_and_that_it_is_over(
    forge: Forge, web: Web, tmp_path: Path
) -> None:
    """Without Redis: what the receiver did not take is sent by the next run."""
    files = random_files(5)
    make_store(tmp_path / "a", files)
    path = tmp_path / "a" / object_key(digest(files["./dir 0/file-00000"]))
    content = path.read_bytes()
    config = tmp_path / "snapferry.toml"
    config.write_text(
        f'[[mirror]]\nname = "nightly"\nfrom = "file://{tmp_path}/a"\nto = "file://{tmp_path}/b"\nevery = "1d"\n'
    )
    env = {"SNAPFERRY_CONFIG": str(config), "SNAPFERRY_NOTIFY_URLS": f"json://127.0.0.1:{web.port}/{TOKEN}"}
    state = tmp_path / "state"

    def run() -> list[str]:
        web.got.clear()
        ended = forge.run(["run", "nightly", "-q", "--state-dir", str(state)], env=env)
        assert TOKEN not in ended.out + ended.err + (state / "mirror-nightly.json").read_text()
        assert ended.code == (0 if path.exists() else 1), ended.err
        return [str(one["title"]) for one in web.got]

    path.unlink()
    web.status = 500
    failed = run()
    web.status = 204
    path.write_bytes(content)
    over, quiet = run(), run()

    assert len(failed) == 1
    assert len(over) == 2
    assert over[0] == failed[0]
    assert quiet == []
