"""What all commands have in common: options, names of stores, exit codes, and what they do with an ended job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import pytest
import redis

from snapferry.orchestrator.cli.group import COMMANDS, cli
from snapferry.orchestrator.cli.options.misspelt import OTHER_WORDS
from snapferry.workers.ledger import Ledger, State
from tests.unit.ledger.support import request

ABSENT: Final = "a" * 64

# A valid command line of each command. STORE and OTHER are stores, JOB is a job, FREE is a directory.
LINES: Final = {
    "sync": "STORE OTHER --all",
    "plan": "STORE OTHER --all",
    "submit": "STORE OTHER --all",
    "push": "FREE STORE",
    "pull": f"STORE FREE --id {ABSENT}",
    "ls": "STORE",
    "size": "STORE",
    "diff": "STORE OTHER",
    "show": f"STORE {ABSENT}",
    "cat": f"STORE {ABSENT} path",
    "orphans": "STORE",
    "tag": "STORE",
    "untag": "STORE name",
    "verify": "STORE --all",
    "heal": "STORE --from OTHER --all",
    "cancel": "JOB",
    "pause": "JOB",
    "continue": "JOB",
    "resume": "JOB",
    "retry": "JOB",
    "dismiss": "JOB",
    "priority": "JOB high",
    "limit": "JOB --max-requests 7",
    "jobs": "",
    "jobs export": "FILE",
    "jobs import": "EXPORT",
    "jobs recover": "EXPORT",
    "status": "JOB",
    "watch": "JOB",
    "failures": "JOB",
    "receipt": "JOB",
    "mirrors": "",
    "run": "mirror:m --state-dir FREE",
    "scrubs": "",
    "notify": "",
    "doctor": "STORE OTHER",
    "worker": "",
    "orchestrator": "",
    "scheduler": "",
    "dashboard": "",
    "flower": "",
    "completion": "bash",
    "version": "",
}

# They run until they are stopped.
ROLES: Final = {"worker", "orchestrator", "scheduler", "dashboard", "flower"}
# Their result is not a document.
NOT_JSON: Final = ROLES | {"cat", "completion"}
# They work on jobs of a fleet alone.
ON_A_FLEET: Final = [
    *sorted(name for name, line in LINES.items() if "JOB" in line.split() or name.startswith("jobs")),
    "submit",
]
WITH_STORES: Final = sorted(name for name, line in LINES.items() if "STORE" in line)
# What they do to a job that has ended changes nothing.
CONTROL: Final = ["cancel", "pause", "continue", "priority", "limit"]

EVERY = pytest.mark.parametrize("name", LINES)


def command(name: str) -> click.Command:
    found: click.Command | None = cli
    for word in name.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert found is not None
    return found


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command line in this process: exit code, output, errors."""
    for name in ("SNAPFERRY_BROKER_URL", "SNAPFERRY_CONFIG", "SNAPDIR_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EXPORT").write_text('{"schema": "snapferry.jobs/1", "exported_at": 1}')
    for store in ("one", "other"):
        (tmp_path / store / ".manifests").mkdir(parents=True)
    (tmp_path / "snapferry.toml").write_text(
        f'[stores]\none = "{tmp_path}/one"\nother = "{tmp_path}/other"\n'
        '[[mirror]]\nname = "m"\nfrom = "one"\nto = "other"\nevery = "1d"\n'
        '[[scrub]]\nname = "s"\nstore = "one"\nevery = "1d"\nshare = "1/2"\n'
    )

    def running(*arguments: str) -> tuple[int, str, str]:
        code: int | str | None = 0
        try:
            code = cli.main(list(arguments), prog_name="snapferry", standalone_mode=False)
        except SystemExit as ended:
            code = ended.code
        except click.ClickException as error:
            code = 2
            click.echo(error.format_message(), err=True)
        said = capsys.readouterr()
        assert isinstance(code or 0, int)
        return int(code or 0), said.out, said.err

    return running


@pytest.fixture
def broker(redis_url: str) -> Iterator[tuple[str, Ledger]]:
    """A Redis server with one job, which was submitted."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        ledger = Ledger(client, expires_s=3600)
        ledger.create(request())
        yield redis_url, ledger


def line(name: str, **places: str) -> list[str]:
    return [*name.split(), *(places.get(word, word) for word in LINES[name].split())]


def test_the_table_has_every_command() -> None:
    further = [
        f"{name} {word}"
        for name in COMMANDS
        if isinstance(found := command(name), click.Group)
        for word in found.commands
    ]
    assert sorted(LINES) == sorted([*COMMANDS, *further])


@EVERY
def test_every_command_has_the_options_of_all(name: str) -> None:
    options = {option for parameter in command(name).params for option in parameter.opts}

    assert {"--config", "--log-level", "--loglevel", "--version"} <= options
    assert ("--json" in options) == (name not in NOT_JSON)
    assert not (name in ON_A_FLEET and "--broker" not in options)


@EVERY
def test_every_option_that_takes_a_store_takes_its_name(name: str) -> None:
    for parameter in command(name).params:
        if parameter.metavar == "URL":
            assert parameter.opts[0] in ("--broker", "--flower"), f"{parameter.opts} takes names as well"


@EVERY
def test_every_command_prints_the_version(name: str, run: Run) -> None:
    assert run(*name.split(), "--version") == run("--version")


@EVERY
def test_every_command_refuses_what_it_does_not_know_as_bad_usage(name: str, run: Run) -> None:
    code, out, err = run(*name.split(), "--log-level", "loud")

    assert (code, out) == (2, "")
    assert "loud" in err


@EVERY
def test_a_misspelt_command_is_bad_usage_with_a_suggestion(name: str, run: Run) -> None:
    *group, word = name.split()
    misspelt = word + word[-1]

    assert run(*group, misspelt) == (2, "", f"No such command {misspelt!r}. Did you mean {word!r}?\n")


def test_words_of_other_programs_are_bad_usage_that_names_a_command_which_exists(run: Run) -> None:
    for word, meant in OTHER_WORDS.items():
        assert run(word) == (2, "", f"No such command {word!r}. Did you mean {meant!r}?\n")
        assert word not in COMMANDS
        assert meant in LINES or meant == "--help"
    # Nothing is guessed.
    assert run("xyzzy") == (2, "", "No such command 'xyzzy'.\n")
    # They are no words of a group within.
    assert run("jobs", "restore") == (2, "", "No such command 'restore'.\n")


@EVERY
def test_a_misspelt_option_is_bad_usage_with_a_suggestion(name: str, run: Run) -> None:
    if name in ("worker", "orchestrator"):
        # Celery reads what these do not know; see `tests.integration.test_bad_input`.
        return
    code, out, err = run(*name.split(), "--confgi", "x")

    assert (code, out) == (2, "")
    assert "'--confgi'" in err
    assert "'--config'" in err


@pytest.mark.parametrize("name", ON_A_FLEET)
def test_an_unreachable_broker_is_a_failure_and_none_at_all_is_bad_usage(name: str, run: Run) -> None:
    arguments = line(name, JOB="1234", STORE="one", OTHER="other")

    code, out, err = run(*arguments, "--broker", "redis://127.0.0.1:1/0")
    assert (code, out) == (1, "")
    assert err.startswith("snapferry: the broker at redis://127.0.0.1:1/0 ")
    assert err.count("\n") == 1

    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "no broker is configured" in err


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name, words in LINES.items() for place in ("STORE", "OTHER") if place in words],
)
def test_a_misspelt_store_is_bad_usage_with_a_suggestion(name: str, place: str, run: Run) -> None:
    places = {"STORE": "one", "OTHER": "other", "FREE": "free"} | {place: "ohter"}
    Path("free").mkdir()

    code, out, err = run(*line(name, **places))

    assert (code, out) == (2, "")
    assert "'ohter'" in err
    assert "did you mean 'other'?" in err


@pytest.mark.parametrize("name", WITH_STORES)
def test_a_fault_in_the_configuration_is_named_with_its_line(name: str, run: Run) -> None:
    with Path("snapferry.toml").open("a") as file:
        file.write("[acces]\n")
    Path("free").mkdir()

    code, out, err = run(*line(name, STORE="one", OTHER="other", FREE="free"))

    assert (code, out) == (2, "")
    assert "snapferry.toml, line 14: acces: unknown key; did you mean 'access'?" in err


@pytest.mark.parametrize(
    ("arguments", "missing", "example"),
    [
        ([], "A and B are", "/srv/store@8b1f92 @latest"),
        (["one"], "B is", "one s3://backup/store"),
        (["s3://b/x@y/z"], "B is", "s3://b/x@y/z s3://backup/store"),
        (["one@latest"], "B is", "one@latest @latest"),
        (["--from", "a b@tag@"], "B is", "'a b@tag@' @latest"),
        (["--to", "one"], "A is", "one s3://backup/store"),
    ],
)
def test_diff_names_what_is_missing_with_an_example(
    arguments: list[str], missing: str, example: str, run: Run
) -> None:
    code, out, err = run("diff", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith(f"snapferry: {missing} missing: ")
    assert err.endswith(f": snapferry diff {example}\n")
    assert err.count("\n") == 1


@EVERY
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "elsewhere.toml: No such file or directory"),
        ("[acces]\n", "elsewhere.toml, line 1: acces: unknown key; did you mean 'access'?"),
        (
            "[broker]\nurl = 'redis://x'\n",
            "elsewhere.toml, line 1: broker: is not a key of this file. Set the ",
        ),
    ],
    ids=["missing", "misspelt", "broker"],
)
def test_every_command_checks_the_file_of_the_option(
    name: str, text: str | None, fault: str, run: Run, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "elsewhere.toml").write_text(text)
    Path("free").mkdir()

    arguments = line(name, STORE="one", OTHER="other", FREE="free", JOB="job")
    code, out, err = run(*arguments, "--config", "elsewhere.toml")

    assert (code, out) == (2, "")
    assert err.startswith(f"snapferry: {fault}")
    assert err.count("\n") == 1


def test_a_file_that_a_variable_names_is_read_where_it_is_needed(
    run: Run, broker: tuple[str, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job can be cancelled while the file of the machine is damaged."""
    monkeypatch.setenv("SNAPFERRY_CONFIG", "elsewhere.toml")

    assert run("cancel", "job", "--broker", broker[0])[0] == 0
    assert run("mirrors", "--broker", broker[0])[0] == 2


def test_the_file_of_the_option_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text(f'[stores]\nfar = "{tmp_path}/one"\n')

    assert run("ls", "far")[0] == 2
    assert run("ls", "far", "--config", "elsewhere.toml")[0] == 0


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("name", CONTROL)
def test_a_job_that_has_ended_stays_as_it_is_and_says_so(
    name: str, state: State, run: Run, broker: tuple[str, Ledger]
) -> None:
    url, ledger = broker
    ledger.advance("job", state)
    before = ledger.status("job")

    code, out, _ = run(*line(name, JOB="job"), "--broker", url)

    assert (code, out) == (0, f"job job has already ended: it is {state}\n")
    assert ledger.status("job") == before
    assert run(*line(name, JOB="job"), "--json", "--broker", url)[0] == 0


@pytest.mark.parametrize("name", ["retry", "resume"])
def test_nothing_is_left_to_do_of_a_job_that_is_done(name: str, run: Run, broker: tuple[str, Ledger]) -> None:
    url, ledger = broker
    ledger.advance("job", State.DONE)

    code, out, _ = run(name, "job", "--broker", url)
    assert code == 0
    assert out.startswith("job job is done: ")
    assert json.loads(run(name, "job", "--json", "--broker", url)[1])["state"] == "done"
    assert ledger.job_ids() == ["job"]


@pytest.mark.parametrize("name", [name for name in ON_A_FLEET if "JOB" in LINES[name]])
def test_a_job_that_does_not_exist_is_bad_usage(name: str, run: Run, broker: tuple[str, Ledger]) -> None:
    code, out, err = run(*line(name, JOB="nope"), "--broker", broker[0])

    assert (code, out) == (2, "")
    assert err.startswith("snapferry: job nope not found at ")
    assert err.endswith("snapferry jobs\n")


@pytest.mark.parametrize("name", [name for name in ON_A_FLEET if "JOB" in LINES[name]])
def test_an_empty_id_of_a_job_means_no_job(name: str, run: Run, broker: tuple[str, Ledger]) -> None:
    code, out, err = run(*line(name, JOB=""), "--broker", broker[0])

    assert (code, out) == (2, "")
    assert "is empty" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["diff", "one", "other"], 0),
        (["diff", "--from", "one", "--to", "other"], 0),
        (["diff", "--from", "one", "other"], 0),
        (["diff", "one", "--to", "other"], 0),
        (["diff", "one"], 2),
        (["diff", "one", "other", "--to", "other"], 2),
        (["diff", "one", "other", "other"], 2),
        (["sync", "one", "--all"], 2),
        (["sync", "--all"], 2),
        (["sync", "one", "other", "--from", "one", "--all"], 2),
        (["push", "free"], 2),
        (["push", "free", "one", "--to", "one"], 2),
        (["pull", "free", "--id", ABSENT], 2),
        (["pull", "--id", ABSENT], 2),
    ],
)
def test_two_stores_are_arguments_or_options_and_each_is_given_once(
    arguments: list[str], code: int, run: Run
) -> None:
    assert run(*arguments)[0] == code


def test_an_argument_is_stronger_than_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("free").mkdir()
    monkeypatch.setenv("SNAPDIR_STORE", "nowhere")

    assert "'nowhere'" in run("push", "free")[2]
    assert "'nowhere'" not in run("push", "free", "other", "--exclude", "(")[2]
    # The environment has the source, so a single argument is the destination.
    assert "'nowhere'" in run("sync", "other", "--all")[2]


def test_more_ids_than_a_job_may_have_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.orchestrator.cli.inputs.snapshot_ids.MOST_SNAPSHOTS", 2)
    Path("ids").write_text("".join(f"{number:064x}\n" for number in range(3)))

    for command in (["sync", "one", "other"], ["verify", "one"], ["heal", "one", "--from", "other"]):
        code, out, err = run(*command, "--ids-from", "ids")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "--ids-from ids, line 3: " in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", ""],
        ["sync", "", "other", "--all"],
        ["sync", "one", "", "--all"],
        ["pull", "", "free", "--id", ABSENT],
        ["pull", "one", "free", "--id", ""],
        ["show", "one", ""],
        ["tag", "one", ABSENT, ""],
        ["untag", "one", ""],
        ["push", "free", "one", "--tag", ""],
        ["push", "free", "one", "--receipt", ""],
        ["sync", "one", "other", "--ids-from", ""],
        ["sync", "one", "other", "--all", "--prices", ""],
        ["limit", "--store", "", "--limit-rate", "5"],
    ],
)
def test_a_message_about_no_text_at_all_has_it_in_quotes(arguments: list[str], run: Run) -> None:
    Path("free").mkdir()

    code, out, err = run(*arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'': " in err, err


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_directory_whose_name_has_two_lines_is_named_in_one(command: str, run: Run) -> None:
    Path("two\nlines").touch()

    code, out, err = run(
        command, *(["two\nlines", "one"] if command == "push" else ["one", "two\nlines", "--id", ABSENT])
    )

    assert (code, out, err) == (2, "", "snapferry: two\\nlines: is not a directory\n")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("pull one free --id", "snapferry pull"),
        ("ls one --log-level", "snapferry ls"),
        ("jobs recover x --broker", "snapferry jobs recover"),
    ],
)
def test_an_option_without_its_value_names_the_help_page_of_its_command(line: str, command: str) -> None:
    with pytest.raises(click.UsageError, match="requires an argument") as caught:
        cli.main(line.split(), prog_name="snapferry", standalone_mode=False)

    assert caught.value.ctx is not None
    assert caught.value.ctx.command_path == command


def test_a_diff_of_a_store_and_two_ids_names_the_right_form() -> None:
    with pytest.raises(
        click.UsageError, match=r"\(ce11\)\. For two snapshots of a store, write STORE@ID @ID\."
    ):
        cli.main(["diff", "one", "3c7f", "ce11"], prog_name="snapferry", standalone_mode=False)
    with pytest.raises(click.NoSuchOption) as caught:
        cli.main(["diff", "one", "--id", "3c7f"], prog_name="snapferry", standalone_mode=False)
    assert "STORE@ID" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["sync one other latest", "verify one latest", "pull --id latest one latest x"]
)
def test_a_snapshot_as_an_argument_names_its_option(line: str) -> None:
    with pytest.raises(click.UsageError, match=r"\. To choose a snapshot, use --id ID\."):
        cli.main(line.split(), prog_name="snapferry", standalone_mode=False)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ([""], "--exclude must not be empty"),
        (["x" * 5000], "--exclude must have at most 4,096 characters"),
        (["x"] * 1001, "--exclude must have at most 1,000 entries"),
        (["["], "--exclude [: is not a pattern: missing ]: ["),
        ([r"\bword"], r"--exclude \bword: has \b, which patterns do not support"),
    ],
)
def test_patterns_that_cannot_be_used_are_one_line_with_the_option(
    patterns: list[str], said: str, run: Run
) -> None:
    Path("free").mkdir()

    code, out, err = run("push", "free", "other", *[f"--exclude={pattern}" for pattern in patterns])

    assert (code, out, err) == (2, "", f"snapferry: {said}\n")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SNAPDIR_JOBS", "abc"), ("SNAPDIR_LIMIT_RATE", "fast"), ("SNAPDIR_NO_PROGRESS", "?")],
)
def test_a_bad_value_of_a_variable_names_the_variable(
    variable: str, value: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    code, out, err = run("sync", "one", "other", "--all")

    assert (code, out) == (2, "")
    assert err.startswith(f"Invalid value for {variable}: ")


@pytest.mark.parametrize("store", ["/srv/store", "s3://bucket", "./store"])
def test_a_store_in_the_place_of_a_job_is_limited_by_an_option(store: str, run: Run) -> None:
    code, out, err = run("limit", store, "--max-requests", "3")

    assert (code, out) == (2, "")
    assert err == f"snapferry: {store}: is not the id of a job. To limit a store, use --store {store}\n"


def test_a_directory_without_its_path_is_named_with_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my store").mkdir()

    code, out, err = run("ls", "my store")

    assert (code, out) == (2, "")
    assert "write './my store'" in err


@pytest.mark.parametrize("name", LINES)
def test_a_limit_of_bytes_says_which_bytes_it_counts(name: str) -> None:
    for parameter in command(name).params:
        if "--limit-rate" in parameter.opts:
            text = str(getattr(parameter, "help", "")).lower()
            wanted = {"bytes per second", "job", "source", "heal", "writ"}
            assert {word for word in wanted if word in text} == wanted
