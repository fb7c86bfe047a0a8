"""A program on a pseudo-terminal, and what its user sees: a small emulator of a terminal that reflows its lines."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

_CONTROL: Final = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")

PATIENCE_S: Final = 240.0


class Screen:
    """The rows of a terminal that is *columns* wide and as high as needed. Sequences that it does not know fail."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._rows: list[list[str]] = [[]]
        # Whether each row goes on in the next one, because the text was wider than the terminal.
        self._wrapped = [False]
        self._row = self._column = 0
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self.styled = False

    @property
    def lines(self) -> list[str]:
        """The rows without trailing spaces, up to the last one that is not empty."""
        rows = ["".join(row).rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def feed(self, data: bytes) -> None:
        """Show *data* that a program wrote."""
        text = self._rest + self._decode(data)
        self._rest = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = _CONTROL.match(text, at)
                if found is None:
                    self._rest = text[at:]
                    assert len(self._rest) < 20, f"unknown sequence {self._rest[:20]!r}"
                    return
                self._control(found[1], found[2])
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def resize(self, columns: int) -> None:
        """Make the terminal *columns* wide. Lines that it broke are broken anew, and the cursor stays in its text."""
        logical: list[list[str]] = [[]]
        cursor = (0, 0)
        for number, row in enumerate(self._rows):
            if number == self._row:
                cursor = (len(logical) - 1, len(logical[-1]) + self._column)
            logical[-1] += row
            if not self._wrapped[number]:
                logical.append([])
        logical.pop()
        self.columns, self._rows, self._wrapped = columns, [], []
        for number, line in enumerate(logical):
            pieces = [line[at : at + columns] for at in range(0, max(1, len(line)), columns)]
            if number == cursor[0]:
                inside = min(cursor[1] // columns, len(pieces) - 1)
                self._row, self._column = len(self._rows) + inside, cursor[1] - inside * columns
            self._rows += pieces
            self._wrapped += [*[True] * (len(pieces) - 1), False]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._down()
        elif character == "\b":
            self._column = max(0, self._column - 1)
        elif character >= " ":
            if self._column >= self.columns:
                self._wrapped[self._row] = True
                self._down()
                self._column = 0
            row = self._rows[self._row]
            row += " " * (self._column + 1 - len(row))
            row[self._column] = character
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append([])
            self._wrapped.append(False)

    def _control(self, numbers: str, name: str) -> None:
        count = int(numbers) if numbers.isdigit() else 1
        if name == "A":
            self._row = max(0, self._row - count)
        elif name == "K":
            assert numbers == "2", numbers
            self._rows[self._row] = []
            self._wrapped[self._row] = False
        elif name == "m":
            self.styled = self.styled or bool(re.search(r"(^|;)(3|4|9)[0-9]", numbers))
        else:
            assert (numbers, name) in {("?25", "l"), ("?25", "h")}, (numbers, name)


class OnTerminal:
    """A program that runs on a pseudo-terminal."""

    def __init__(self, pid: int, descriptor: int, columns: int) -> None:
        self._pid, self._descriptor = pid, descriptor
        self.screen = Screen(columns)
        self.raw = b""

    def until(self, seen: Callable[[], bool], what: str) -> None:
        """Show what the program writes until *seen*, which is *what* the test waits for."""
        end = time.monotonic() + PATIENCE_S
        while not seen():
            assert time.monotonic() < end, f"not seen: {what}\n" + "\n".join(self.screen.lines)
            if not self._read():
                assert seen(), f"ended before: {what}\n" + "\n".join(self.screen.lines)
                return

    def press(self, keys: bytes) -> None:
        """Type *keys*."""
        os.write(self._descriptor, keys)

    def resize(self, columns: int) -> None:
        """Make the terminal *columns* wide, after all that the program has written so far."""
        while select.select([self._descriptor], [], [], 0)[0] and self._read():
            pass
        self.screen.resize(columns)
        _set_size(self._descriptor, columns)

    def wait(self) -> int:
        """Show what the program writes until it ends; return its exit code."""
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self._descriptor], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            return False
        self.raw += data
        self.screen.feed(data)
        return bool(data)


@contextmanager
def on_terminal(
    command: Sequence[str], *, columns: int = 80, env: Mapping[str, str | None] | None = None
) -> Iterator[OnTerminal]:
    """Run *command* on a terminal that is *columns* wide. *env* changes the environment; None removes a variable."""
    environ = {**os.environ, "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM"):
        environ.pop(name, None)
    for name, value in (env or {}).items():
        environ.pop(name, None)
        if value is not None:
            environ[name] = value
    primary, secondary = pty.openpty()
    _set_size(secondary, columns)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(primary)
            os.login_tty(secondary)
            os.execvpe(command[0], list(command), environ)
        finally:
            os._exit(127)
    os.close(secondary)
    running = OnTerminal(pid, primary, columns)
    try:
        yield running
    finally:
        os.close(primary)
        try:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _set_size(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
