"""Options, arguments and commands whose help pages have one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from snapferry.orchestrator.cli.chosen import remember, typed
from snapferry.orchestrator.cli.exit_codes import interrupt_on_sigterm, usage
from snapferry.orchestrator.cli.lazy import installed_version, load
from snapferry.workers.extras import NotInstalled, explained, require

_Function = TypeVar("_Function", bound=Callable[..., Any])

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Options that name no section, --help among them, come last on a help page.
ARGUMENTS: Final = "Arguments"
OTHER: Final = "Options"

# A page of fewer options has no sections.
MANY: Final = 10

# Characters of a command's line in a list of commands.
MOST_SUMMARY: Final = 100

LOGS: Final = "Logs and metrics"
LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class _Completed(click.Parameter):
    """
    A parameter whose values TAB completes.

    *completes* is the kind of the values (`completion.parameters`), by default that of the metavar.
    """

    completes = ""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the values that begin with *incomplete*."""
        found = super().shell_complete(ctx, incomplete)
        return found or load("completion.parameters:values_of")(self, ctx, incomplete)


class Option(_Completed, click.Option):
    """
    An option of a *section* of the help page.

    The page shows facts about its value in one bracket after its text: whether it is required, its default, its range
    and its environment variable. *default_text* is for a default that is known only when the command runs. *alias* is a
    further name, which the page does not show.
    """

    def __init__(
        self,
        declarations: Sequence[str],
        *arguments: Any,
        section: str = OTHER,
        default_text: str = "",
        alias: str = "",
        completes: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__([*declarations, alias] if alias else declarations, *arguments, **attributes)
        self.section, self.alias, self.completes = section, alias, completes
        default = attributes.get("default")
        default_text = default_text or ("" if default in (None, "") else str(default))
        facts = (
            "required" if self.required else "",
            f"default: {default_text}" if default_text else "",
            getattr(self.type, "range_text", ""),
            f"env: {self.envvar}" if self.envvar else "",
        )
        self._facts = "; ".join(filter(None, facts))

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return *value* as the command gets it. An error about a value of the environment names the variable."""
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as error:
            if ctx.get_parameter_source(str(self.name)) is ParameterSource.ENVIRONMENT:
                error.param_hint = str(self.envvar)
            raise

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the names of the option, and its text with the facts."""
        found = super().get_help_record(ctx)
        if found is None:
            return None
        names = found[0].replace(f", {self.alias}", "") if self.alias else found[0]
        return names, f"{self.help or ''}  [{self._facts}]" if self._facts else self.help or ""


class Argument(_Completed, click.Argument):
    """An argument that the help page explains by its *text*."""

    section = ARGUMENTS

    def __init__(self, *arguments: Any, text: str, completes: str = "", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._text, self.completes = text, completes

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the name of the argument, and its text."""
        return self.make_metavar(ctx), self._text


class Command(click.Command):
    """
    A command whose help page lists its arguments, then its options, by section if there are many.

    *run* is the function in the package `run` that runs the command, such as ``copy:sync``. It is imported when the
    command runs, so help pages, completion and errors about options import none of its libraries. SIGTERM interrupts
    an *interruptible* command as Ctrl-C does, from before this import.

    *places* changes the values of the options before the command runs: see `places`.

    *extra* is the extra of the distribution that the command needs. If a package of it is missing, or another one that
    an extra installs, the command ends with one line that names the extra, and exit code 2.

    *surplus* follows an error about too many arguments. By default, it names the option --id, if the command has it.

    Every command has --config, --log-level and --version. Unless a command declares them itself, its function does not
    get their values; `snapferry.orchestrator.cli.chosen` has them.
    """

    def __init__(
        self,
        *arguments: Any,
        run: str = "",
        interruptible: bool = False,
        places: Callable[[MutableMapping[str, Any]], None] = lambda _: None,
        extra: str = "",
        surplus: str = "",
        **attributes: Any,
    ) -> None:
        attributes["context_settings"] = SETTINGS | attributes.get("context_settings", {})
        if run:
            attributes["callback"] = self._run
        super().__init__(*arguments, **attributes)
        self.run, self._interruptible, self._places, self._extra = run, interruptible, places, extra
        if not surplus and any("--id" in parameter.opts for parameter in self.params):
            surplus = "To choose a snapshot, use --id ID."
        self._surplus = surplus
        declared = {parameter.name for parameter in self.params}
        self._added = {name: add for name, add in _EVERYWHERE.items() if name not in declared}
        self.params += [add() for add in self._added.values()]

    def _run(self, **given: Any) -> Any:
        added = {name: given.pop(name) for name in self._added if name in given}
        remember(added)
        if added.get("config") and typed("--config"):
            # Also if the command needs nothing of the file, or fails before it reads the file.
            load("settings:check_config")(added["config"])
        self._places(given)
        if self._interruptible:
            interrupt_on_sigterm()
        needs = f"snapferry {self.name}"
        try:
            if self._extra:
                require(self._extra, needs)
            return load(f"run.{self.run}", quickly=True)(**given)
        except NotInstalled as error:
            usage(str(error))
        except ModuleNotFoundError as error:
            missing = explained(error, needs)
            if missing is None:
                raise
            usage(str(missing))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse *args*; of a command line that is completed, without a last option whose value is to come."""
        if ctx.resilient_parsing and args:
            waits = [each for each in self.params if isinstance(each, click.Option) and not each.is_flag]
            args = args[:-1] if any(args[-1] in each.opts for each in waits) else args
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            # click leaves it out where an option has no value, and the help page that is named would be another one.
            error.ctx = error.ctx or ctx
            # Its other errors are of classes of their own.
            if type(error) is click.UsageError and self._surplus:
                raise click.UsageError(f"{error.message}. {self._surplus}", ctx) from None
            raise

    def get_short_help_str(self, limit: int = MOST_SUMMARY) -> str:
        """Return the first sentence of the help, which a list of commands wraps and does not cut."""
        return super().get_short_help_str(max(limit, MOST_SUMMARY))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the options that begin with *incomplete*, without aliases."""
        aliases = {getattr(parameter, "alias", "") for parameter in self.params}
        return [item for item in super().shell_complete(ctx, incomplete) if item.value not in aliases]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options into *formatter*."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters = self.get_params(ctx)
        few = sum(isinstance(parameter, click.Option) for parameter in parameters) < MANY
        for parameter in parameters:
            record = parameter.get_help_record(ctx)
            title = getattr(parameter, "section", OTHER)
            if record is not None:
                sections.setdefault(OTHER if few and title != ARGUMENTS else title, []).append(record)
        width = max(len(name) for records in sections.values() for name, _ in records)
        for title in sorted(sections, key=lambda title: (title != ARGUMENTS, title == OTHER)):
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in sections[title]])


class Suggesting(click.Group):
    """A group that names the command that is meant where one does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return name, command and the arguments after it. Raises `click.UsageError` where there is no such command."""
        name = args[0]
        # click parses an option again.
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            raise load("options.misspelt:no_such_command")(ctx, name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class Group(Command, Suggesting):
    """A command that runs by itself, and has further commands. They come last on its help page."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(
            *arguments, invoke_without_command=True, subcommand_metavar="[COMMAND]", **attributes
        )

    def _run(self, **given: Any) -> Any:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            return super()._run(**given)
        odd = [
            name for name in given if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        ]
        if odd:
            raise click.UsageError(f"the options of {ctx.invoked_subcommand} must come after it")
        return None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write options and commands into *formatter*."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"snapferry {installed_version()}")
        ctx.exit()


def _config() -> Option:
    return Option(
        ["--config"],
        metavar="FILE",
        envvar="SNAPFERRY_CONFIG",
        default_text="snapferry.toml in this directory",
        help="File that names stores, mirrors and scrubs.",
    )


def _log_level() -> Option:
    return Option(
        ["--log-level"],
        alias="--loglevel",
        type=click.Choice(LEVELS, case_sensitive=False),
        metavar="LEVEL",
        help="Show the log of this command from LEVEL on: debug, info, warning, error or critical.",
    )


def _version() -> Option:
    return Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version and exit.",
    )


_EVERYWHERE: Final[Mapping[str, Callable[[], Option]]] = {
    "config": _config,
    "log_level": _log_level,
    "version": _version,
}


def examples(*given: tuple[str, str], codes: Mapping[int, str] | None = None) -> str:
    """Return the end of a help page: for each example what it is for and its command lines, then the exit codes."""
    blocks = ["Examples:"]
    for text, lines in given:
        indented = [f"    {line}" for line in lines.splitlines()]
        blocks.append("\n".join(["\b", f"  {text}:", *indented]))
    if codes:
        blocks.append(
            "\n".join(["\b", "Exit codes:", *(f"  {code:<4} {means}" for code, means in codes.items())])
        )
    return "\n\n".join(blocks)


def option(*names: str, **attributes: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a command an `Option`; *attributes* are those of `Option` and `click.option`."""
    return click.option(*names, cls=Option, **attributes)


def argument(*names: str, **attributes: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a command an `Argument`; *attributes* as for `option`."""
    return click.argument(*names, cls=Argument, **attributes)


def command(**attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """
    Return a decorator that makes a function a `Command`; *attributes* are those of `Command` and `click.command`.

    With *run* among them, the function gives the command its name, its options and its help, and is never called.
    """
    return click.command(cls=Command, **attributes)


def group(**attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """Return a decorator that makes a function a `Group`; *attributes* as for `command`."""
    return click.group(cls=Group, **attributes)
