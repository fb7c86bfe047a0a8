"""The stores that arguments and options mean: by URL, or by name in `snapferry.toml`; as argument or as option."""

from __future__ import annotations

from typing import NoReturn

import click
from click.core import ParameterSource

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.stores.text.similar import suggestion
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings


def store_url(settings: Settings, text: str) -> str:
    """Return the URL of the store named *text*, or *text* itself if it cannot be a name; an error ends the command."""
    if "/" in text or not text:
        return text
    if settings.config is None:
        usage(
            f"{text}: is not a store URL; use file://, s3:// or an absolute path. No snapferry.toml is here that could"
            " name a store."
        )
    try:
        stores = read_config(settings.config).stores
    except InvalidSettings as error:
        usage(str(error))
    if text not in stores:
        usage(f"{text!r} is neither a store URL nor a name in {settings.config}{suggestion(text, stores)}")
    return stores[text]


def objects_url(settings: Settings, text: str | None) -> str | None:
    """Return the URL of the store of objects that *text* means, None for None; an error ends the command."""
    return None if text is None else store_url(settings, text)


def one_place(option: str, argument: str | None, value: str | None) -> str:
    """
    Return the store that is given as *argument* or as the *value* of an *option*, such as ``--from``.

    An argument is stronger than the option's environment variable. None of both, or both, end the command.
    """
    if argument is not None:
        if value is not None and _typed(option):
            usage(f"the store is given twice: as the argument {argument} and as {option} {value}")
        return argument
    if value is None:
        _missing(option)
    return value


def two_places(
    first: str | None, second: str | None, source: str | None, destination: str | None
) -> tuple[str, str]:
    """
    Return the source and the destination of a copy, from its arguments FROM and TO, and from ``--from`` and ``--to``.

    A single argument is the store that no option gives. Any contradiction ends the command.
    """
    if (
        first is not None
        and second is None
        and not _typed("--to")
        and (_typed("--from") or source is not None)
    ):
        first, second = None, first
    return one_place("--from", first, source), one_place("--to", second, destination)


def _typed(option: str) -> bool:
    """Return whether *option* is on the command line, and not only in the environment."""
    ctx = click.get_current_context()
    names = [parameter.name or "" for parameter in ctx.command.params if option in parameter.opts]
    return any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names)


def _missing(option: str) -> NoReturn:
    ctx = click.get_current_context()
    arguments = " ".join(
        parameter.make_metavar(ctx) for parameter in ctx.command.params if _is_argument(parameter)
    )
    name = "destination" if option == "--to" else "source"
    # An optional argument is in brackets.
    command = f"{ctx.command_path} {arguments}".translate({ord("["): None, ord("]"): None})
    usage(f"no {name} is given. Use {option} STORE, or: {command}")


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)
