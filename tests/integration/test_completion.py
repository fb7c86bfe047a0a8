"""TAB in real shells: bash and zsh on a terminal, and fish, each with the script that `snapferry completion` prints."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import redis

from snapferry.workers.ledger import Ledger, State
from tests.completing import listed_store
from tests.sample import make_store
from tests.terminal import PATIENCE_S
from tests.unit.ledger.support import request

SNAPSHOT: Final = "3" + 63 * "c"

# Of a snapshot in the store "files".
FILES: Final = [
    "src/main.c",
    "src/my notes.txt",
    "src/it's $HOME.txt",
    "12:30/a=b",
    "bell\x07",
    "two words/x",
    "star*",
]

CONFIG: Final = """
[stores]
one = "{root}/one"
other = "{root}/other"
files = "{root}/files"
[[mirror]]
name = "nightly"
from = "one"
to = "other"
every = "1d"
[[scrub]]
name = "weekly"
store = "one"
every = "1d"
share = "1/2"
queue = "slow-disks"
"""

# What a key writes into the file "lines": the command line as it is.
BASH: Final = """
eval "$(snapferry completion bash)"
PS1='> '; HISTFILE=
bind 'set bell-style none'
bind -x '"\\C-t": printf "%s\\n" "$READLINE_LINE" >>lines'
"""
ZSH: Final = """
mkdir functions && snapferry completion zsh >functions/_snapferry
fpath=($PWD/functions $fpath)
autoload -U compinit; compinit -u -d $PWD/zcompdump
PROMPT='> '; unset HISTFILE; setopt no_beep
write-line() { print -r -- "$BUFFER" >>lines }
zle -N write-line; bindkey '^T' write-line; bindkey '^U' kill-whole-line
"""


class Terminal:
    """A shell on a terminal; *said* is all that was shown."""

    def __init__(self, descriptor: int, lines: Path) -> None:
        self._descriptor, self._lines = descriptor, lines
        self.said = ""

    def complete(self, typed: str, tabs: int = 1) -> str:
        """Type a command line and TAB; return what the command line is then without spaces at its end, and clear it."""
        return self.completed(typed, tabs).rstrip()

    def completed(self, typed: str, tabs: int = 1) -> str:
        """Type a command line and TAB; return what the command line is then, and clear it."""
        before = self._written()
        os.write(self._descriptor, typed.encode() + tabs * b"\t" + b"\x14")
        end = time.monotonic() + PATIENCE_S
        while len(self._written()) == len(before):
            assert time.monotonic() < end, self.said
            self._read()
        os.write(self._descriptor, b"\x15")
        return self._written()[-1]

    def lists(self, typed: str, tabs: int, *wanted: str) -> None:
        """Type a command line and TAB, and wait until the shell shows what is *wanted*; nothing may be inserted."""
        os.write(self._descriptor, typed.encode() + tabs * b"\t")
        end = time.monotonic() + PATIENCE_S
        while not all(text in self.said for text in wanted):
            assert time.monotonic() < end, self.said
            self._read()
        assert self.complete("", 0) == typed.rstrip()

    def _written(self) -> list[str]:
        return self._lines.read_text().splitlines() if self._lines.exists() else []

    def _read(self) -> None:
        if select.select([self._descriptor], [], [], 0.1)[0]:
            with suppress(OSError):
                said = os.read(self._descriptor, 65536).decode(errors="replace")
                self.said += re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", said)


@contextmanager
def shell(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a shell in *folder*."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, environment)
    try:
        yield Terminal(descriptor, folder / "lines")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(descriptor)


@pytest.fixture
def environment(tmp_path: Path, redis_url: str) -> dict[str, str]:
    """The environment of a shell in a folder with a snapferry.toml, a store, and a Redis with jobs."""
    listed_store(tmp_path / "one", [SNAPSHOT], {"week-1": SNAPSHOT})
    make_store(tmp_path / "files", {f"./{path}": b"" for path in FILES})
    (tmp_path / "snapferry.toml").write_text(CONFIG.format(root=tmp_path))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ledger = Ledger(client, expires_s=3600)
        for job_id, state in (("copying-1", State.COPYING), ("failed-1", State.FAILED)):
            ledger.create(request(job_id))
            ledger.advance(job_id, state)
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ZDOTDIR": str(tmp_path),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "SNAPFERRY_BROKER_URL": redis_url,
        "SNAPFERRY_COMPLETION_TIMEOUT": "240",
    }


def program(name: str) -> str:
    """Return the path of a shell; skip the test where there is none."""
    found = shutil.which(name)
    if found is None:
        # CI accepts no skipped test, so there it is never missing.
        pytest.skip(f"there is no {name}; on Debian and Ubuntu: apt-get install {name}")
    return found


WORDS: Final = {
    "snapferry stat": "snapferry status",
    "snapferry sync --from=on": "snapferry sync --from=one",
    "snapferry sync --from=o": "snapferry sync --from=o",
    "snapferry run mirror:n": "snapferry run mirror:nightly",
    "snapferry show one 3": f"snapferry show one {SNAPSHOT[:12]}",
    "snapferry show 'one' we": "snapferry show 'one' week-1@",
    "snapferry diff one@3": f"snapferry diff one@{SNAPSHOT[:12]}",
    "snapferry show file://ROOT/one 3": f"snapferry show file://ROOT/one {SNAPSHOT[:12]}",
    "snapferry ls ROOT/on": "snapferry ls ROOT/one/",
    "snapferry watch ": "snapferry watch copying-1",
    "snapferry resume f": "snapferry resume failed-1",
    "snapferry nonsense x": "snapferry nonsense x",
    "snapferry sync --receipt=snapf": "snapferry sync --receipt=snapferry.toml",
}

# A directory in a snapshot goes on, so the cursor stays behind its slash.
PATHS: Final = {
    "snapferry cat files latest sr": "snapferry cat files latest src/",
    "snapferry cat files latest src/ma": "snapferry cat files latest src/main.c ",
    "snapferry cat files latest src/my": r"snapferry cat files latest src/my\ notes.txt ",
    r"snapferry cat files latest src/my\ no": r"snapferry cat files latest src/my\ notes.txt ",
    "snapferry cat files latest 'src/my no": "snapferry cat files latest 'src/my notes.txt' ",
    "snapferry cat files latest src/it": r"snapferry cat files latest src/it\'s\ \$HOME.txt ",
    'snapferry cat files latest "src/it': 'snapferry cat files latest "src/it\'s \\$HOME.txt" ',
    "snapferry show files latest 12": "snapferry show files latest 12:30/",
    "snapferry show files latest 12:30/": "snapferry show files latest 12:30/a=b ",
    r"snapferry show files latest 12\:30/": "snapferry show files latest 12:30/a=b ",
    "snapferry show files latest ./tw": r"snapferry show files latest ./two\ words/",
    "snapferry show files latest st": r"snapferry show files latest star\* ",
    "snapferry show files latest be": "snapferry show files latest be",
    "snapferry cat files none src/ma": "snapferry cat files none src/ma",
    "snapferry submit --queue sl": "snapferry submit --queue slow-disks ",
}

# Left out in zsh, to save time.
AS_IN_BASH: Final = {
    "snapferry sync --from=o",
    "snapferry watch ",
    "snapferry resume f",
}

ERRORS: Final = "Traceback|[Ee]rror:|not found|Usage|usage"


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_tab_completes_the_command_line(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bashrc").write_text(BASH)
    (tmp_path / ".zshrc").write_text(ZSH)
    options = {"bash": ["--noprofile", "--rcfile", "bashrc", "-i"], "zsh": ["-i"]}[name]
    with shell([program(name), *options], tmp_path, environment) as terminal:
        for typed, becomes in WORDS.items():
            if name == "bash" or typed not in AS_IN_BASH:
                text = typed.replace("ROOT", str(tmp_path))
                assert terminal.complete(text) == becomes.replace("ROOT", str(tmp_path))

        # The values begin differently, so nothing is inserted. zsh lists them at the first TAB.
        tabs = {"bash": 2, "zsh": 1}[name]
        terminal.lists("snapferry run ", tabs, "mirror of one to other", "scrub of one")
        terminal.lists("snapferry status ", tabs, "copying /a to /b", "failed /a to /b")
        assert not re.search(ERRORS, terminal.said)


def shown_words(line: str, folder: Path) -> list[str]:
    """Return the words that bash makes of a command *line*."""
    ended = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return ended.stdout.split("\0")[:-1]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_tab_completes_paths_in_a_snapshot_with_quotes(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bashrc").write_text(BASH)
    (tmp_path / ".zshrc").write_text(ZSH)
    options = {"bash": ["--noprofile", "--rcfile", "bashrc", "-i"], "zsh": ["-i"]}[name]
    with shell([program(name), *options], tmp_path, environment) as terminal:
        for typed, becomes in PATHS.items():
            found = terminal.completed(typed)
            if name == "bash":
                assert found == becomes
            elif found.rstrip() != typed or becomes != typed:
                # Each shell quotes in its own way; the words are the same.
                assert shown_words(found, tmp_path) == shown_words(becomes, tmp_path)
                assert found.endswith(" ") == becomes.endswith(" ")
        assert not re.search(ERRORS, terminal.said)


def test_fish_completes_the_command_line(environment: dict[str, str], tmp_path: Path) -> None:
    expected = {
        "snapferry run ": "nightly\tmirror of one to other\nweekly\tscrub of one\n",
        "snapferry sync --from=on": f"--from=one\t{tmp_path}/one\n",
        "snapferry status c": "copying-1\tcopying /a to /b\n",
        "snapferry nonsense x": "",
        f"snapferry show {tmp_path}/one 3": f"{SNAPSHOT[:12]}\tweek-1\n",
        "snapferry cat files latest src/m": "src/main.c\nsrc/my notes.txt\n",
        "snapferry show files latest 12:30/": "12:30/a=b\n",
        "snapferry show files latest tw": "two words/\n",
        f"snapferry push {tmp_path}/on": f"{tmp_path}/one/\n",
    }
    script = "source (snapferry completion fish | psub)\n"
    script += "".join(f"complete -C '{line}'; echo END\n" for line in expected)
    ended = subprocess.run(
        [program("fish"), "--no-config", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert ended.stderr == ""
    assert ended.stdout.split("END\n")[:-1] == list(expected.values())


def test_a_shell_waits_no_longer_than_the_time_for_a_redis_that_hangs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """It is stopped: the system accepts connections, and nobody answers."""
    (tmp_path / "bashrc").write_text(BASH)
    port = environment["SNAPFERRY_BROKER_URL"].rpartition(":")[2].partition("/")[0]
    with redis.Redis(port=int(port)) as client:
        server = int(client.info("server")["process_id"])
    hasty = {**environment, "SNAPFERRY_COMPLETION_TIMEOUT": "1"}
    os.kill(server, signal.SIGSTOP)
    try:
        with shell(["bash", "--noprofile", "--rcfile", "bashrc", "-i"], tmp_path, hasty) as terminal:
            assert terminal.complete("snapferry status c", tabs=2) == "snapferry status c"
            assert not re.search(ERRORS, terminal.said)
    finally:
        os.kill(server, signal.SIGCONT)
