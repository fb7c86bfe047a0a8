"""The script that lists circles of imports: which imports count, and how a circle is written."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT: dict[str, Any] = runpy.run_path(str(Path(__file__).resolve().parents[2] / ".ci" / "circles.py"))


def found(root: Path, files: dict[str, str]) -> list[list[str]]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    circles = SCRIPT["circles"](SCRIPT["graph"](root, "installed"))
    return [[path.as_posix() for path in circle] for circle in circles]


@pytest.mark.parametrize(
    "back",
    [
        "from .a import x",
        "from . import a",
        "import p.a",
        "from p import a",
        "import installed.p.a",
        "from installed.p.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import x",
        "def late():\n    from .a import x",
        "try:\n    from .a import x\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_counts_in_any_form_and_anywhere_in_a_file(tmp_path: Path, back: str) -> None:
    files = {"p/__init__.py": "", "p/a.py": "from .b import y", "p/b.py": back}

    assert found(tmp_path, files) == [["p/a.py", "p/b.py"]]


def test_importing_a_file_of_a_package_is_not_importing_the_package(tmp_path: Path) -> None:
    files = {"p/__init__.py": "from .a import x", "p/a.py": "from . import b", "p/b.py": ""}

    assert found(tmp_path, files) == []
    assert found(tmp_path, {"p/b.py": "from . import x"}) == [["p/__init__.py", "p/a.py", "p/b.py"]]


def test_every_import_of_a_circle_is_in_one_of_those_listed(tmp_path: Path) -> None:
    files = {
        "a.py": "import b",
        "b.py": "import c, a",
        "c.py": "import d",
        "d.py": "import a",
        "e.py": "import a",
        "f.py": "import f",
    }

    assert found(tmp_path, files) == [["a.py", "b.py"], ["a.py", "b.py", "c.py", "d.py"]]


def test_hidden_folders_are_left_out_but_not_the_scripts_of_ci(tmp_path: Path) -> None:
    files = {
        ".venv/a.py": "import b",
        ".venv/b.py": "import a",
        ".ci/c.py": "import d",
        ".ci/d.py": "import c",
    }

    assert found(tmp_path, files) == [[".ci/c.py", ".ci/d.py"]]
