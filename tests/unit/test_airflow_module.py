"""The operators for Airflow, without Airflow: it is installed for `make test-examples` alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

from snapferry import Client

FILE = Path(__file__).parents[2] / "snapferry/airflow.py"
CLASSES = {found.name: found for found in ast.parse(FILE.read_text()).body if isinstance(found, ast.ClassDef)}


def constants(found: ast.ClassDef) -> dict[str, object]:
    """Return the attributes of a class that are literals: name -> value."""
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in found.body
        if isinstance(line, ast.Assign)
        and isinstance(line.targets[0], ast.Name)
        and line.targets[0].id in ("action", "arguments")
    }


OPERATORS = {name: constants(found) for name, found in CLASSES.items() if "action" in constants(found)}


def test_without_airflow_the_import_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow", None)
    monkeypatch.delitem(sys.modules, "snapferry.airflow", raising=False)
    with pytest.raises(ImportError, match=r"needs Airflow 3\.3"):
        importlib.import_module("snapferry.airflow")


def test_there_is_an_operator_for_each_action() -> None:
    assert {found["action"] for found in OPERATORS.values()} == {"sync", "push", "pull", "verify", "heal"}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_the_arguments_of_its_method(name: str) -> None:
    action, arguments = OPERATORS[name]["action"], OPERATORS[name]["arguments"]
    method = inspect.signature(getattr(Client, str(action))).parameters
    (init,) = [found for found in CLASSES[name].body if isinstance(found, ast.FunctionDef)]
    given = [argument.arg for argument in init.args.kwonlyargs]

    assert isinstance(arguments, tuple)
    assert list(arguments) == given
    assert set(given) <= method.keys()
    required = {
        key
        for key, parameter in method.items()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and key != "self"
    }
    assert required == {
        argument.arg
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        if default is None
    }
