"""Every regular expression of the product takes linear time, counted in steps and not in seconds."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.regex_steps import TooManySteps, steps

ROOT = Path(__file__).parents[2]

# What the worst inputs are made of: the literals of the patterns, and what they repeat.
UNITS = (
    "://:", "://", "a://", "://@", ":", "@", "a@", "a", "0", "af", " ", "\n", "'", "\\", "=", "token", "token ",
    "token=", "token: ", "token-", "secret_", "bearer ", "token: bearer ", "AKIA", "AKIAAKIAAKIAAKIA ", "Signature=",
    "Signature", "X-Amz-Signature", "A", "a/", "/", "000/", "F 0 ", "F 0 " + 64 * "a" + " 1 p\n",
    "F 0 " + 64 * "a" + " 1", "a(", "a)", ",)", "()", "1.", "1 ", "bytes 1-", "-1", "\\777", "é", "\0",
)  # fmt: skip
TAILS = ("", "!", "\n")

# Steps for each character that no pattern may exceed, and by how much twice the text may cost more than twice.
MOST_A_CHARACTER = 400
GROWTH = 2.2
LENGTH = 64

# Methods that look at the whole of a text and not at each place in it.
WHOLE = {"fullmatch", "match"}


def _patterns_in(name: str) -> Iterator[tuple[str, re.Pattern[Any], bool]]:
    module = importlib.import_module(name)
    seen = set()
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    for attribute, value in vars(module).items():
        methods = set(re.findall(rf"\b{attribute}\.(\w+)\(", source))
        for number, found in enumerate(value if isinstance(value, tuple) else (value,)):
            one = found[0] if isinstance(found, tuple) and found else found
            pattern = getattr(one, "__self__", one)
            if isinstance(pattern, re.Pattern) and pattern not in seen:
                seen.add(pattern)
                used = methods or {getattr(one, "__name__", "")}
                yield f"{name}.{attribute}[{number}]", pattern, used <= WHOLE


def _modules() -> list[tuple[str, int]]:
    """Return the modules that compile patterns, and how many they compile when they are imported."""
    found = []
    for package in ("stores", "workers", "orchestrator"):
        for path in sorted((ROOT / "snapferry" / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if "re.compile" not in source:
                # Each process of a test run parses the others, whichever tests it runs.
                continue
            tree = ast.parse(source)
            functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            inner = {id(node) for function in functions for node in ast.walk(function)}
            compiled = [node for node in ast.walk(tree) if _is_compile(node) and id(node) not in inner]
            if compiled:
                found.append((".".join(path.relative_to(ROOT).with_suffix("").parts), len(compiled)))
    return found


def _is_compile(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile"


MODULES = _modules()
PATTERNS = {name: (pattern, whole) for module, _ in MODULES for name, pattern, whole in _patterns_in(module)}


def test_every_pattern_that_is_compiled_is_known_here() -> None:
    for module, count in MODULES:
        known = [name for name in PATTERNS if name.rpartition(".")[0] == module]
        assert len(known) >= count, (
            f"a pattern of {module} is hidden from this test; keep it in a name of the module"
        )


@pytest.mark.parametrize("name", PATTERNS)
def test_twice_the_text_takes_about_twice_the_steps(name: str) -> None:
    pattern, whole = PATTERNS[name]
    _check_linear(pattern, whole=whole)


def _check_linear(pattern: re.Pattern[Any], *, whole: bool) -> None:
    for unit in UNITS:
        for tail in TAILS:
            counts = []
            count = max(1, LENGTH // len(unit))
            for repeated in (count, 2 * count):
                text: Any = unit * repeated + tail
                text = text.encode() if isinstance(pattern.pattern, bytes) else text
                try:
                    counts.append(steps(pattern, text, whole=whole, most=MOST_A_CHARACTER * (len(text) + 1)))
                except TooManySteps:
                    pytest.fail(f"more than {MOST_A_CHARACTER} steps a character for {unit!r} * n + {tail!r}")
            assert counts[1] <= GROWTH * counts[0] + 40, f"{unit!r} * n + {tail!r}: {counts}"


@pytest.mark.parametrize(
    ("pattern", "whole"),
    [
        (r"(?<=://)(?:[^\s/?#@'\"]+|[^\s'\"]*:[^\s'\"]*)@", False),
        (r"(a+)+b", False),
        (r"a+b", False),
        (r"(a|a)*b", True),
        (r"\s+$", False),
    ],
)
def test_a_pattern_that_is_not_linear_is_noticed(pattern: str, whole: bool) -> None:
    recursion = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            _check_linear(re.compile(pattern), whole=whole)
    finally:
        sys.setrecursionlimit(recursion)
