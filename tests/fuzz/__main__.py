"""
Fuzz what comes in: `python -m tests.fuzz [--seconds N] [TARGET ...]`, or `make fuzz`.

Every target runs in a process of its own, guided by which branches of our code an input reaches (atheris, which is
libFuzzer for Python), a process for each core at a time. What breaks a promise is kept in tests/fuzz/found, and the
default suite runs it from then on. The exit code is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .seeds import FOUND, SEEDS, dictionary, inputs

# What one input may take. It is small, so more is a denial of service.
TIMEOUT_S = 10
MEMORY_MB = 2048
LARGEST_BYTES = 8192


class Result(NamedTuple):
    """How the fuzzing of a target ended: *runs* inputs were tried, *edges* of our code reached."""

    target: str
    runs: int
    edges: int
    broken: list[Path]
    said: str


def fuzz(target: str, seconds: int) -> Result:
    """Fuzz *target* for so long, or until it breaks."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for data in inputs(target):
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        words = Path(folder, "words")
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in dictionary(target)))
        broken = Path(folder, "broken")
        broken.mkdir()
        command = [
            sys.executable, "-m", "tests.fuzz.child", target, f"-max_total_time={seconds}", f"-max_len={LARGEST_BYTES}",
            f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={broken}/", f"-dict={words}",
            str(corpus),
        ]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        kept = [_keep(target, path) for path in sorted(broken.iterdir())]
    said = ended.stdout + ended.stderr
    done = re.search(r"Done (\d+) runs", said)
    counted = re.findall(r"#(\d+)\s.*?cov: (\d+)", said)
    runs = int(done[1]) if done else int(counted[-1][0]) if counted else 0
    if ended.returncode and not kept:
        raise SystemExit(f"fuzzing {target} failed:\n{said[-4000:]}")
    return Result(target, runs, int(counted[-1][1]) if counted else 0, kept, said)


def _quoted(word: bytes) -> str:
    return "".join(chr(c) if 32 <= c < 127 and chr(c) not in '"\\' else f"\\x{c:02x}" for c in word)


def _keep(target: str, path: Path) -> Path:
    kept = FOUND / target / path.name[:24]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(path.read_bytes())
    return kept


def main() -> int:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what comes in.")
    options.add_argument("targets", nargs="*", choices=[*SEEDS, []], metavar="TARGET", help=", ".join(SEEDS))
    options.add_argument("--seconds", type=int, default=600, help="in all (default: 600)")
    given = options.parse_args()
    targets = given.targets or list(SEEDS)
    at_once = min(os.cpu_count() or 1, len(targets))
    each = max(5, given.seconds * at_once // len(targets))
    broken = False
    with ThreadPoolExecutor(at_once) as pool:
        for result in pool.map(lambda target: fuzz(target, each), targets):
            verdict = "BROKEN" if result.broken else "clean"
            print(
                f"{result.target:16} {verdict:7} {result.runs:>10,} inputs {result.edges:>6,} edges",
                flush=True,
            )
            for path in result.broken:
                broken = True
                print(result.said[-3000:], f"kept as {path}", sep="\n", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
