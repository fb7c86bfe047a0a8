"""What snapferry.toml may say, and how it is told when it says something else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from celery.schedules import crontab, schedule

from snapferry.workers.app import make_app
from snapferry.workers.queues import Priority
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings

WHOLE = """
[stores]
live = "s3://live/store?region=eu-central-1"
backup = "file:///srv/backup"

[[mirror]]
name = "nightly"
from = "live"
to = "backup"
every = "6h"
delete = true
max-delete = 100
names = true
priority = "low"
queue = "tape"
jobs = 8
patience = "2h"

[[mirror]]
name = "weekly"
from = "backup"
to = "s3://far/store"
every = "30 3 * * 0"
"""


def read(folder: Path, text: str) -> Config:
    path = folder / "snapferry.toml"
    path.write_text(text)
    return read_config(str(path))


def test_everything_that_it_may_say_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    nightly, weekly = config.mirror

    assert (nightly.from_, nightly.to, nightly.interval_s) == ("live", "backup", 6 * 3600)
    assert (nightly.delete, nightly.max_delete, nightly.priority) == (True, 100, Priority.LOW)
    assert (nightly.queue, nightly.jobs) == ("tape", 8)
    assert (nightly.names, weekly.names) == (True, False)
    assert (nightly.patience_s, weekly.patience_s) == (7200, None)
    assert (weekly.interval_s, weekly.delete, weekly.queue) == (None, False, "")
    assert config.url("live") == "s3://live/store?region=eu-central-1"
    assert config.url(weekly.to) == "s3://far/store"


def test_a_mirror_cannot_both_trust_manifests_and_compare_content(tmp_path: Path) -> None:
    table = WHOLE + "checksum = true\n"
    assert read(tmp_path, table).mirror[1].checksum

    with pytest.raises(InvalidSettings, match="exclude each other"):
        read(tmp_path, table + "trust-manifest = true\n")


def test_when_a_mirror_is_due_is_said_as_beat_wants_it(tmp_path: Path) -> None:
    app = make_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    text = WHOLE.replace("30 3 * * 0", "30 3 */5 2 0")

    often, rarely = (mirror.times(app) for mirror in read(tmp_path, text).mirror)

    assert often == schedule(timedelta(hours=6))
    assert rarely == crontab(minute=30, hour=3, day_of_month="*/5", month_of_year=2, day_of_week=0)
    assert (often.app, rarely.app) == (app, app)


MIRROR = '[[mirror]]\nname = "m"\nfrom = "/a"\nto = "/b"\nevery = "1h"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[stores", "is not TOML"),
        ("x = 1", "x: unknown key"),
        ('[stores]\na = "s3://KEY:SECRETKEY@b/c"', "stores.a: "),
        ('[stores]\n"a/b" = "/x"', "stores.a/b"),
        (MIRROR.replace('"/a"', '"live"'), "mirror.1.from: no store is named 'live'"),
        (MIRROR.replace('"/a"', '"x://a"'), "is not a store URL"),
        (MIRROR.replace('"1h"', '"often"'), "mirror.1.every: 'often' is neither an interval"),
        (MIRROR.replace('"1h"', '"1s"'), "mirror.1.every: the shortest interval is 10s"),
        (MIRROR.replace('"1h"', '"0 3 1 * 1"'), "sets both the day of the month and the day of the week"),
        (MIRROR.replace('"1h"', '"0 3 1-7 2 mon,tue"'), '"0 3 * 2 mon,tue"'),
        (MIRROR.replace('"1h"', '"61 * * * *"'), "mirror.1.every: '61 * * * *' is not a cron expression"),
        (MIRROR.replace('"m"', '"M m"'), "mirror.1.name: "),
        (MIRROR + "max-delete = 1", "max-delete needs delete = true"),
        (MIRROR + 'priority = "urgent"', "mirror.1.priority: "),
        (MIRROR + MIRROR, "more than one mirror is named 'm'"),
        (MIRROR.replace("every", "evry"), "mirror.1."),
    ],
)
def test_a_fault_is_named_by_file_and_place_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text)

    message = str(caught.value)
    assert message.startswith((f"{tmp_path}/snapferry.toml: ", f"{tmp_path}/snapferry.toml, line "))
    assert said in message
    assert "\n" not in message
    assert "SECRETKEY" not in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"none\.toml: No such file"):
        read_config(str(tmp_path / "none.toml"))


def test_the_file_of_the_working_directory_is_taken_where_no_other_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment({}).config is None
    Path("snapferry.toml").write_text("")

    assert Settings.from_environment({}).config == "snapferry.toml"
    assert Settings.from_environment({"SNAPFERRY_CONFIG": "/x"}).config == "/x"
    assert Settings.from_environment({"SNAPFERRY_CONFIG": "/x"}, config="/y").config == "/y"


@pytest.mark.parametrize("patience", ["", "2", "h", "-1h", "1.5h", "2 h", "31d", "999999d", "forever"])
def test_a_patience_that_is_no_duration_is_refused(tmp_path: Path, patience: str) -> None:
    with pytest.raises(InvalidSettings, match="is not a duration of up to 30 days"):
        read(tmp_path, WHOLE.replace('"2h"', f'"{patience}"'))


def test_a_store_with_settings_is_a_table(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [stores]
        plain = "s3://b/p"
        [stores.archive]
        url = "s3://archive/store?region=eu-1"
        storage-class = "STANDARD_IA"
        request-payer = "requester"
        unsigned = false
        tags = { team = "backup", stage = "prod" }
        """,
    )

    assert found.url("plain") == "s3://b/p"
    assert found.url("archive") == (
        "s3://archive/store?region=eu-1&request_payer=requester&storage_class=STANDARD_IA"
        "&tags=team%3Dbackup%2Cstage%3Dprod&unsigned=false"
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('region = "eu-1"', "needs a url"),
        ("url = 7", "needs a url"),
        ('url = "s3://b"\nstorage-klass = "X"', "there is no setting 'storage-klass'"),
        ('url = "s3://b"\nsecret-key = "SECRETKEY"', "there is no setting 'secret-key'"),
        ('url = "s3://b"\nregion = 7', "region must be a string"),
        ('url = "/srv/b"\nregion = "x"', "only S3 stores"),
        ('url = "s3://b?region=y"\nregion = "x"', "region is set in the url as well"),
        ('url = "s3://b"\nsse = "none"', "sse must be"),
    ],
)
def test_what_a_table_may_not_say_is_named(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, f"[stores.one]\n{table}\n")

    assert said in str(caught.value)
    assert "stores.one" in str(caught.value)
    assert "SECRETKEY" not in str(caught.value)


SCRUB = '[[scrub]]\nname = "s"\nstore = "/a"\nevery = "1d"\nshare = "1/30"\n'


def test_a_scrub_is_read_with_all_that_it_may_say(tmp_path: Path) -> None:
    text = SCRUB + (
        'jobs = 4\nlimit-rate = "50MB/s"\nmax-bytes = "2TiB"\nmax-time = "4h"\npatience = "2h"\npriority = "low"\n'
        'queue = "tape"\n'
    )
    (scrub,) = read(tmp_path, text).scrub

    assert (scrub.store, scrub.shares, scrub.interval_s, scrub.jobs) == ("/a", 30, 86400, 4)
    assert (scrub.limit_rate, scrub.max_bytes, scrub.max_seconds) == (50 * 10**6, 2 * 1024**4, 4 * 3600)
    assert (scrub.patience_s, scrub.priority, scrub.queue) == (7200, Priority.LOW, "tape")


def test_a_mirror_and_a_scrub_may_have_one_name(tmp_path: Path) -> None:
    config = read(tmp_path, MIRROR.replace('"m"', '"s"') + SCRUB)

    assert [(one.kind, one.name) for one in config.scheduled] == [("mirror", "s"), ("scrub", "s")]


@pytest.mark.parametrize(
    ("every", "seconds"),
    [("6h", 21600), ("30 3 * * *", 86400), ("0 3 * * 0", 7 * 86400), ("0 0,12 * * *", 43200)],
)
def test_the_time_between_two_runs_of_a_scrub(tmp_path: Path, every: str, seconds: float) -> None:
    (scrub,) = read(tmp_path, SCRUB.replace('"1d"', f'"{every}"')).scrub
    app = make_app(Settings(broker_url="redis://127.0.0.1:1/0"))

    assert scrub.mean_interval_s(app) == pytest.approx(seconds, rel=0.02)
    assert scrub.mean_interval_s(app) == scrub.mean_interval_s(app)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SCRUB.replace('"1/30"', '"2/30"'), "scrub.1.share: '2/30' is not a share"),
        (SCRUB.replace('"1/30"', '"1/0"'), "scrub.1.share: '1/0' is not a share"),
        (SCRUB.replace('"1/30"', '"1/10001"'), 'from "1/1" to "1/10000"'),
        (SCRUB.replace('"1d"', '"1s"'), "scrub.1.every: the shortest interval is 10s"),
        (SCRUB.replace('"1d"', '"0 3 1 * 1"'), "Use two scrubs"),
        (SCRUB.replace('"/a"', '"live"'), "scrub.1.store: no store is named 'live'"),
        (SCRUB + 'max-bytes = "much"', "scrub.1.max-bytes: 'much' is not a size"),
        (SCRUB + "max-bytes = 0", "scrub.1.max-bytes: "),
        (SCRUB + 'max-time = "1y"', "scrub.1.max-time: '1y' is not a duration"),
        (SCRUB + 'limit-rate = "0"', "scrub.1.limit-rate: "),
        (SCRUB + SCRUB, "more than one scrub is named 's'"),
        (SCRUB.replace("share", "shares"), "scrub.1."),
    ],
)
def test_a_fault_of_a_scrub_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
