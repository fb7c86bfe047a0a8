"""The forms of the dashboard that change jobs: from where they are accepted, what they do, and what is on record."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.dashboard import access, server
from snapferry.orchestrator.dashboard.control import audit
from snapferry.orchestrator.dashboard.control.acts import WrongInput, limits_of
from snapferry.orchestrator.dashboard.control.handlers import ACTS
from snapferry.orchestrator.dashboard.control.origin import foreign
from snapferry.orchestrator.dashboard.form_tokens import COOKIE, FIELD
from snapferry.orchestrator.dashboard.views.control import said_of
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import Limits
from snapferry.workers.outcome import BatchOutcome, Failure
from tests.integration.dashboards import Answer, basic

from .dashboard import support
from .dashboard.support import sources_of
from .served import Served
from .test_dashboard import copying, request
from .test_progress import running


@pytest.fixture
def sources(redis_url: str) -> Sources:
    return sources_of(redis_url)


@pytest.fixture
def ledger(sources: Sources) -> Ledger:
    return sources.jobs._ledger


def dashboard(sources: Sources, **options: Any) -> AbstractContextManager[Served]:
    return support.dashboard(sources, **{"control": True} | options)


@dataclass
class Visitor:
    """A browser, as far as these pages need one: it keeps the cookie, and sends what browsers send."""

    served: Served
    sends: Mapping[str, str] = field(default_factory=dict)
    cookie: str = ""
    token: str = ""

    def open(self, path: str) -> Answer:
        """Open a page, and keep its cookie and the token of its forms."""
        kept = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        answer = self.served.ask(path, headers={**kept, **self.sends})
        if found := re.search(rf"{COOKIE}=\"?([^;\"]+)", answer.headers.get("set-cookie", "")):
            self.cookie = found[1]
        if found := re.search(rf'name="{FIELD}" value="([^"]+)"', answer.body):
            self.token = found[1]
        return answer

    def send(
        self, path: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form of the page that was opened."""
        own = {
            "Cookie": f"{COOKIE}={self.cookie}",
            "Origin": f"http://{self.served.host}",
            "Sec-Fetch-Site": "same-origin",
        }
        sent = {
            name: value for name, value in (own | dict(self.sends) | dict(headers or {})).items() if value
        }
        return self.served.ask(path, method="POST", headers=sent, form={FIELD: self.token, **(form or {})})


@pytest.fixture
def visitor(sources: Sources, ledger: Ledger) -> Iterator[Visitor]:
    copying(ledger)
    with dashboard(sources) as served:
        found = Visitor(served)
        assert found.open("/jobs/job").status == 200
        assert found.token
        yield found


@pytest.fixture
def said() -> Iterator[list[dict[str, object]]]:
    """The lines of the audit log, by their fields."""
    lines: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, line: logging.LogRecord) -> None:
            lines.append(line.fields)  # type: ignore[attr-defined]

    handler = Keep()
    audit.log.addHandler(handler)
    try:
        yield lines
    finally:
        audit.log.removeHandler(handler)


def test_each_act_does_what_its_command_does_and_leads_to_the_job(visitor: Visitor, ledger: Ledger) -> None:
    answer = visitor.send("/jobs/job/pause")
    assert (answer.status, answer.headers["location"]) == (303, "/jobs/job?did=pause")
    assert ledger.status("job").paused
    page = visitor.open("/jobs/job?did=pause")
    assert "The job is paused." in page.text
    assert 'action="/jobs/job/continue"' in page.body
    assert 'action="/jobs/job/pause"' not in page.body

    assert visitor.send("/jobs/job/continue").status == 303
    assert not ledger.status("job").paused

    assert visitor.send("/jobs/job/priority", {"priority": "high"}).status == 303
    assert ledger.status("job").priority == "high"

    form = {"rate": "1.5M/s", "requests": "20", "jobs": "4"}
    assert visitor.send("/jobs/job/limit", form).status == 303
    assert ledger.status("job").limits == Limits(rate=1_500_000, requests=20, jobs=4)
    assert visitor.send("/jobs/job/limit", {"rate": "", "requests": "none"}).status == 303
    assert ledger.status("job").limits == Limits(jobs=4)

    assert visitor.send("/jobs/job/cancel", {"confirmed": "yes"}).status == 303
    assert ledger.status("job").cancelling
    assert 'method="post"' not in visitor.open("/jobs/job").body


def test_a_cancel_is_confirmed_on_a_page_of_its_own(visitor: Visitor, ledger: Ledger) -> None:
    assert 'href="/jobs/job/confirm-cancel"' in visitor.open("/jobs/job").body
    assert visitor.send("/jobs/job/cancel").status == 400
    assert not ledger.status("job").cancelling

    page = visitor.open("/jobs/job/confirm-cancel")
    assert 'name="confirmed" value="yes"' in page.body
    assert 'data-refresh="0"' in page.body
    assert not ledger.status("job").cancelling


def failed(ledger: Ledger) -> None:
    """Make a job with one failed object, which has ended."""
    batch = copying(ledger, "failed")
    ledger.begin(batch, "one@worker")
    addresses = list(batch.objects())
    failure = Failure(addresses[0], "ObjectMissing", "/a", "gone", transient=False)
    ledger.account(batch, BatchOutcome(copied=len(addresses) - 1, failures=[failure]))
    ledger.advance("failed", State.FAILED, error="1 object failed", snapshots_total=1)


def test_a_failed_job_is_dismissed_with_a_reason_and_that_is_taken_back(
    visitor: Visitor, ledger: Ledger, said: list[dict[str, object]]
) -> None:
    failed(ledger)
    assert 'href="/jobs/failed/confirm-dismiss"' in visitor.open("/jobs/failed").body
    form = visitor.open("/jobs/failed/confirm-dismiss")
    assert 'action="/jobs/failed/dismiss"' in form.body
    assert 'data-refresh="0"' in form.body

    answer = visitor.send("/jobs/failed/dismiss", {"reason": "  gone <for> good "})
    assert (answer.status, answer.headers["location"]) == (303, "/jobs/failed?did=dismiss")
    found = ledger.status("failed").dismissed
    assert found is not None
    assert (found.why, found.by) == ("gone <for> good", "the dashboard")
    page = visitor.open("/jobs/failed?did=dismiss")
    assert "The job does not count as failed any more." in page.text
    assert "gone &lt;for&gt; good" in page.body
    assert re.findall(r'action="/jobs/failed/(\w+)"', page.body) == ["undismiss"]
    assert 'name="reason"' not in visitor.open("/jobs/failed/confirm-dismiss").body
    assert "1 dismissed" in visitor.open("/").text

    assert visitor.send("/jobs/failed/undismiss").status == 303
    assert ledger.status("failed").dismissed is None
    assert visitor.send("/jobs/job/dismiss").status == 409
    assert visitor.send("/jobs/failed/dismiss", {"reason": "x" * 501}).status == 400
    assert [(one["act"], one["detail"], str(one["result"]).partition(":")[0]) for one in said] == [
        ("dismiss", "gone <for> good", "accepted"),
        ("undismiss", "", "accepted"),
        ("dismiss", "", "refused"),
        ("dismiss", "", "refused"),
    ]


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ("change", "priority"),
        ("change", "rate"),
        ("confirm-cancel", "confirmed"),
        ("confirm-dismiss", "reason"),
    ],
)
def test_a_form_that_does_not_apply_to_the_job_is_not_shown_but_the_job_and_the_way_back(
    visitor: Visitor, ledger: Ledger, form: str, field: str
) -> None:
    failed(ledger)
    applies = {"failed": form == "confirm-dismiss", "job": form != "confirm-dismiss"}
    for job_id, shown in applies.items():
        page = visitor.open(f"/jobs/{job_id}/{form}")

        (title,) = re.findall(r"<h1>(.*?)</h1>", page.body)
        assert f"<title>{title} ·" in page.body
        assert job_id in title
        assert f'<code class="whole">{job_id}</code>' in page.body
        assert (f'name="{field}"' in page.body) == shown
        assert ('method="post"' in page.body) == shown
        assert f'<a href="/jobs/{job_id}">Back to the job</a>' in page.body or "Back, do not" in page.body
        assert 'data-refresh="0"' in page.body


@pytest.mark.parametrize(
    ("did", "changed", "says"),
    [
        ("pause", {"state": State.COPYING, "paused": True}, "is paused"),
        ("pause", {"state": State.DONE}, "it is done"),
        ("continue", {"state": State.COPYING}, "The job continues."),
        ("cancel", {"state": State.COPYING, "cancelling": True}, "is being cancelled"),
        ("cancel", {"state": State.CANCELLED, "cancelling": True}, "is cancelled"),
        ("priority", {"priority": "high"}, "The priority is high now."),
        ("limit", {"limits": Limits(jobs=4)}, "4 objects"),
        ("limit", {}, "none"),
        ("retry", {"continues": "0123456789"}, "failed objects of job 01234567"),
        ("<script>", {}, ""),
    ],
)
def test_after_an_act_the_page_says_what_it_came_to(did: str, changed: dict[str, Any], says: str) -> None:
    said = said_of(did, running(**changed))

    assert says in said
    assert bool(said) == bool(says)


def test_a_failed_job_is_retried_once_however_often_the_button_is_pressed(
    visitor: Visitor, sources: Sources, ledger: Ledger
) -> None:
    failed(ledger)
    page = visitor.open("/jobs/failed")
    (act,) = re.findall(r'action="/jobs/failed/(\w+)"', page.body)
    assert act == "retry"

    first, second = visitor.send("/jobs/failed/retry"), visitor.send("/jobs/failed/retry")

    assert first.status == second.status == 303
    assert first.headers["location"] == second.headers["location"]
    new = re.fullmatch(r"/jobs/([0-9a-f-]{36})\?did=retry", first.headers["location"])
    assert new
    assert ledger.status(new[1]).state is State.QUEUED
    assert ledger.status("failed").continued_by == new[1]
    assert set(ledger.job_ids()) == {"job", "failed", new[1]}
    # Another dashboard, or this one later.
    with dashboard(sources) as other:
        late = Visitor(other)
        late.open("/jobs/job")
        refused = late.send("/jobs/failed/resume")
    assert refused.status == 409
    assert f"Job {new[1]} already continues this job." in refused.text
    assert 'method="post"' not in visitor.open("/jobs/failed").body


@pytest.mark.parametrize(
    ("path", "form", "status", "reason"),
    [
        ("/jobs/done/pause", {}, 409, "already ended: it is done"),
        ("/jobs/done/continue", {}, 409, "already ended: it is done"),
        ("/jobs/done/cancel", {"confirmed": "yes"}, 409, "already ended: it is done"),
        ("/jobs/done/priority", {"priority": "low"}, 409, "already ended: it is done"),
        ("/jobs/done/limit", {"jobs": "3"}, 409, "already ended: it is done"),
        ("/jobs/done/retry", {}, 409, "nothing failed in it"),
        ("/jobs/done/resume", {}, 409, "nothing is left to do"),
        ("/jobs/job/retry", {}, 409, "has not ended"),
        ("/jobs/job/priority", {}, 400, "must be high, normal or low"),
        ("/jobs/job/priority", {"priority": "<b>urgent</b>"}, 400, "must be high, normal or low"),
        ("/jobs/job/limit", {}, 400, "o limit is given"),
        ("/jobs/job/limit", {"requests": "many"}, 400, "from 1 to 1,000,000"),
        ("/jobs/none/pause", {}, 404, "is not known"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line_and_changes_nothing(
    visitor: Visitor, ledger: Ledger, path: str, form: dict[str, str], status: int, reason: str
) -> None:
    ledger.create(request("done"))
    ledger.advance("done", State.DONE, snapshots_total=1, published=1)
    before = ledger.status("job"), ledger.status("done"), ledger.job_ids()

    answer = visitor.send(path, form)

    assert answer.status == status
    assert reason in answer.text
    assert "Nothing was changed" in answer.text
    assert 'data-refresh="0"' in answer.body, "a page that a form led to is not loaded again"
    assert "<b>urgent" not in answer.body
    assert (ledger.status("job"), ledger.status("done"), ledger.job_ids()) == before


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none", "Origin": ""},
    {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "", "Origin": "null"},
    {"Sec-Fetch-Site": "", "Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "", "Origin": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-origin, cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing_even_with_a_right_token(
    visitor: Visitor, ledger: Ledger, said: list[dict[str, object]], headers: dict[str, str]
) -> None:
    for act in ACTS:
        form = {"confirmed": "yes", "priority": "low", "jobs": "1"}
        assert visitor.send(f"/jobs/job/{act}", form, headers).status == 403, act

    status = ledger.status("job")
    assert (status.paused, status.cancelling) == (False, False)
    assert (status.priority, status.limits) == ("normal", Limits())
    assert [line["act"] for line in said] == list(ACTS)
    assert all(str(line["result"]).startswith("refused: ") for line in said)


def test_a_form_needs_the_token_of_its_own_browser(
    visitor: Visitor, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Visitor(visitor.served)
    stranger.open("/jobs/job")
    own, right = visitor.token, visitor.cookie
    wrong_tokens = [
        "",
        stranger.token,
        stranger.cookie,
        "x",
        "2|a|b|c",
        "1" * 32,
        own[:-1] + "|",
        own + "0" * 13,
        "é",
    ]
    for token in wrong_tokens:
        visitor.token = token
        assert visitor.send("/jobs/job/pause").status == 403, token
    visitor.token = own
    for cookie in ["", stranger.cookie, "x", "2|zz|zz|0", '"', "2|" * 2000]:
        visitor.cookie = cookie
        assert visitor.send("/jobs/job/pause").status == 403, cookie
    visitor.cookie = right
    # A token in the address would be in logs.
    visitor.token = ""
    assert visitor.send(f"/jobs/job/pause?{FIELD}={own}").status == 403
    assert not ledger.status("job").paused
    visitor.token = own
    assert visitor.send("/jobs/job/pause").status == 303
    assert "Traceback" not in caplog.text


def test_get_and_other_methods_change_nothing(visitor: Visitor, ledger: Ledger) -> None:
    cookie = {"Cookie": f"{COOKIE}={visitor.cookie}", "Sec-Fetch-Site": "same-origin"}
    for act in ACTS:
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
            path = f"/jobs/job/{act}?{FIELD}={visitor.token}&confirmed=yes&priority=low&jobs=1"
            answer = visitor.served.ask(path, method=method, headers=cookie)
            assert (answer.status, answer.headers["allow"]) == (405, "POST"), (act, method)
    for path in ("/jobs/job/change", "/jobs/job/confirm-cancel", "/jobs/job?did=cancel"):
        assert visitor.served.ask(path, headers=cookie).status == 200
        assert visitor.served.ask(path, method="POST", headers=cookie, form={}).status == 405
    status = ledger.status("job")
    assert (status.paused, status.cancelling) == (False, False)
    assert (status.priority, status.limits) == ("normal", Limits())


def test_without_control_there_are_no_forms_and_no_addresses(sources: Sources, ledger: Ledger) -> None:
    copying(ledger)
    failed(ledger)
    with dashboard(sources, control=False) as served:
        visitor = Visitor(served)
        for path in ("/", "/jobs/job", "/jobs/job?did=pause", "/jobs/failed"):
            page = visitor.open(path)
            assert page.status == 200
            assert not re.search(r'method="post"|/confirm-cancel|/change', page.body)
            assert "form-action 'self'" in page.headers["content-security-policy"]
            assert "set-cookie" not in page.headers
            assert page.headers["referrer-policy"] == "no-referrer"
        for act in (*ACTS, "change", "confirm-cancel"):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
                assert served.ask(f"/jobs/job/{act}", method=method, form={}).status == 404, (act, method)
    assert not ledger.status("job").paused


def test_with_a_password_each_act_needs_it_and_names_its_user(
    sources: Sources, ledger: Ledger, said: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "WRONG_PASSWORD_DELAY_S", 0)
    copying(ledger)
    with dashboard(sources, login=("ann", "secret")) as served:
        visitor = Visitor(served, basic("ann:secret"))
        visitor.open("/jobs/job")
        for header in ({"Authorization": ""}, basic("ann:wrong")):
            for act in ACTS:
                assert visitor.send(f"/jobs/job/{act}", {}, header).status == 401
        assert served.ask("/jobs/job/change").status == 401
        assert said == []
        assert not ledger.status("job").paused
        assert visitor.send("/jobs/job/pause", {}, {"X-Forwarded-For": "192.0.2.1 <b>"}).status == 303
    (line,) = said
    assert line == {
        "address": "127.0.0.1", "forwarded_for": "192.0.2.1 <b>", "user": "ann", "act": "pause", "job": "job",
        "detail": "", "result": "accepted", "new_job": "",
    }  # fmt: skip


def test_a_host_name_that_is_not_allowed_changes_nothing(sources: Sources, ledger: Ledger) -> None:
    copying(ledger)
    with dashboard(sources, hosts=frozenset({"127.0.0.1"})) as served:
        visitor = Visitor(served)
        visitor.open("/jobs/job")
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert visitor.send("/jobs/job/pause", {}, evil).status == 421
    assert not ledger.status("job").paused


@pytest.mark.parametrize("header", ["X-Forwarded-For", "forwarded", "X-Real-IP", "Via"])
def test_without_a_password_nothing_that_a_proxy_sends_changes_a_job(
    visitor: Visitor, ledger: Ledger, header: str
) -> None:
    assert visitor.send("/jobs/job/pause", {}, {header: "192.0.2.1"}).status == 403
    assert not ledger.status("job").paused


def test_an_act_without_an_answer_of_redis_is_not_known(
    visitor: Visitor, sources: Sources, said: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(job_id: str) -> None:
        raise BrokerUnavailable("the broker at redis://h does not answer")

    monkeypatch.setattr(sources.jobs, "pause", away)
    answer = visitor.send("/jobs/job/pause")
    assert answer.status == 503
    assert (
        "The broker at redis://h does not answer. Look at the job whether the change was made." in answer.text
    )
    assert 'data-refresh="0"' in answer.body
    assert [line["result"] for line in said] == ["not known: the broker at redis://h does not answer"]


def test_each_request_is_one_line_of_the_log(visitor: Visitor, said: list[dict[str, object]]) -> None:
    visitor.send("/jobs/job/limit", {"rate": "2k", "jobs": ""})
    visitor.send("/jobs/job/priority", {"priority": "high"})
    visitor.send("/jobs/job/retry")
    visitor.send("/jobs/none/pause")
    visitor.send("/jobs/job/limit", {"jobs": "evil\n{}"})

    lines = [(line["act"], line["job"], line["detail"], line["result"]) for line in said]
    assert lines[:2] == [
        ("limit", "job", "rate 2000, jobs none", "accepted"),
        ("priority", "job", "high", "accepted"),
    ]
    assert [str(line[3])[:8] for line in lines[2:]] == ["refused:"] * 3


def test_the_cookie_stays_with_this_site_and_behind_tls_with_tls(visitor: Visitor) -> None:
    plain = visitor.served.ask("/jobs/job").headers["set-cookie"]
    assert {part.strip().lower() for part in plain.split(";")[1:]} == {
        "httponly",
        "path=/",
        "samesite=strict",
    }
    tls = visitor.served.ask("/jobs/job", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    assert "secure" in {part.strip().lower() for part in tls.split(";")[1:]}


def test_pages_with_forms_let_forms_lead_to_this_site_alone(visitor: Visitor) -> None:
    for path in ("/", "/jobs/job", "/jobs/job/change", "/nowhere"):
        headers = visitor.served.ask(path).headers
        assert "form-action 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"Host": "h:1", "Origin": "http://h:1"}, True),
        ({"Host": "H:1", "Origin": "HTTPS://h:1"}, True),
        ({"Host": "h:1", "Origin": "http://h:2"}, False),
        ({"Host": "h", "Origin": "https://h:8443", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Host": "127.0.0.1:5556", "Origin": "https://dash.example"}, True),
        ({"Host": "127.0.0.1:5556", "Origin": "https://dash.example:8443"}, False),
        ({"Host": "127.0.0.1:5556", "Origin": "https://dash.example.evil"}, False),
        ({"Host": "h", "Origin": "http://h@evil"}, False),
        ({"Host": "h", "Origin": "http://evil@h"}, False),
        ({"Host": "h", "Origin": "file://h"}, False),
        ({"Host": "h", "Origin": "http://[h"}, False),
        ({"Host": "", "Origin": "http://"}, False),
        ({"Host": "h", "Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_the_origin_of_a_request_is_this_dashboard(headers: dict[str, str], accepted: bool) -> None:
    assert (foreign(headers, {"dash.example"}) == "") is accepted


def test_limits_are_read_as_the_command_reads_them() -> None:
    assert limits_of({"rate": " 1.5Gi ", "jobs": "7"}) == {"rate": 1610612736, "jobs": 7}
    assert limits_of({"requests": "", "other": "1"}) == {"requests": None}
    wrong = [
        {"rate": "fast"}, {"rate": "0"}, {"rate": "-1"}, {"rate": "9" * 50}, {"rate": "1e3"}, {"jobs": "0"},
        {"jobs": "65537"}, {"jobs": "1.5"}, {"requests": "1000001"}, {"requests": "٣"}, {"requests": "9" * 500},
    ]  # fmt: skip
    for form in wrong:
        with pytest.raises(WrongInput):
            limits_of(form)


def test_control_through_a_proxy_needs_a_password() -> None:
    with pytest.raises(server.InvalidOptions, match=r"--control with --host dash\.example requires a login"):
        server.check_options("127.0.0.1", None, None, control=True, hosts=("localhost", "dash.example"))
    with pytest.raises(server.InvalidOptions, match="requires a login"):
        server.check_options("0.0.0.0", None, None, control=True)
    server.check_options("127.0.0.1", None, None, control=True, hosts=("localhost",))
    server.check_options("127.0.0.1", ("a", "b"), None, control=True, hosts=("dash.example",))
    server.check_options("127.0.0.1", None, None, hosts=("dash.example",))


def test_no_page_has_a_form_without_a_token(visitor: Visitor) -> None:
    for path in ("/jobs/job", "/jobs/job/change", "/jobs/job/confirm-cancel"):
        page = visitor.open(path)
        # Other forms only choose what is shown.
        forms = re.findall(r'<form(?![^>]*method="get").*?</form>', page.body, re.DOTALL)
        assert forms
        assert all(('method="post"' in form) == (f'name="{FIELD}"' in form) for form in forms)


def test_no_file_of_deployment_starts_a_dashboard_with_control() -> None:
    root = Path(__file__).parents[2]
    found = [path for path in (root / "deploy").rglob("*") if path.is_file()]
    assert found
    for path in [*found, root / "docker-compose.yml", root / "Dockerfile"]:
        assert "--control" not in path.read_text(errors="replace"), path
