"""The tutorial, as it is written: a newcomer runs every command of its three pages, one page after the other."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.servers import S3Server, free_port, redis_program

from .processes import PATIENCE_S, started

FOLDER = Path(__file__).parents[2] / "docs/tutorial"
PAGES = ("first-copy", "every-night", "fleet")

# What a reader replaces by values of his own: the commands that set a value, and what that value is here.
VALUES = ("export AWS_ACCESS_KEY_ID=", "export AWS_SECRET_ACCESS_KEY=", "bucket=")


def commands(page: str) -> str:
    """Return the indented blocks of a page, without its installation: here snapferry is installed."""
    text = (FOLDER / f"{page}.md").read_text()
    text = re.sub(r"^## Install\n.*?(?=^## )", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^ {4}.*\n|(?<=\n)\n(?= {4}))+", text, re.MULTILINE)
    return "\n".join(re.sub("^ {4}", "", block, flags=re.MULTILINE) for block in blocks)


def with_values(script: str, values: dict[str, str]) -> str:
    """Return *script* with the reader's own values, each of which it must set once."""
    for begin, value in values.items():
        script, changed = re.subn(rf"^{begin}.*$", begin + value, script, flags=re.MULTILINE)
        assert changed == 1, begin
    return script


@pytest.fixture
def script(rclone_memory_s3: S3Server) -> str:
    keys = rclone_memory_s3.environment
    url = rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "photos")
    found = "\n".join(f": page {page}\n{commands(page)}" for page in PAGES)
    values = dict(
        zip(VALUES, [keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], f"'{url}'"], strict=True)
    )
    # Other tests use the ports that the pages name.
    redis, web = str(free_port()), str(free_port())
    assert found.count("6390") == 2
    return (
        with_values(found, values)
        .replace("6390", redis)
        .replace("snapferry dashboard", f"snapferry dashboard --port {web}")
    )


@pytest.mark.slow
def test_every_command_of_the_tutorial_does_what_the_page_says(
    script: str, rclone_memory_s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(redis_program())
    home = tmp_path / "home"
    home.mkdir()
    for name in rclone_memory_s3.environment:
        monkeypatch.delenv(name)
    own = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}",
    }
    log = tmp_path / "output"
    with started("bash", "-euo", "pipefail", "-x", "-c", f"cd\n{script}", env=own, log=log) as running:
        code = running.process.wait(2 * PATIENCE_S)
    output = log.read_text()

    assert code == 0, output[-4000:]
    # The exit codes that two pages show, and the comparisons.
    assert re.findall(r"^exit code (\d+)$", output, re.MULTILINE) == ["1", "1", "1"], output
    # What the page writes into the file is what the error says.
    page = (FOLDER / "fleet.md").read_text().replace("$HOME", str(home))
    told = re.search(r"; set `(read = .*?)` and `(write = .*?)` under \[access\] of (\S+),", output)
    assert told is not None, output
    assert f"    {told[1]}\n    {told[2]}\n" in page
    assert told[3] == str(home / "ferry/snapferry.toml")
    assert output.count("\nThey are the same.\n") == 2, output
    assert (home / "ferry/second-copy/.manifests").is_dir()
    assert list((home / "ferry/copy/.quarantine").rglob("*"))


@pytest.mark.parametrize("page", PAGES)
def test_each_page_of_the_tutorial_has_commands_and_leads_to_the_next(page: str) -> None:
    text = (FOLDER / f"{page}.md").read_text()

    assert commands(page).count("snapferry ") > 5
    for after in PAGES[PAGES.index(page) + 1 :][:1]:
        assert f"({after}.md)" in text.partition("\nNext: ")[2]
