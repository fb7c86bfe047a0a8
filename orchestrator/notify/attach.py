"""Look after schedules, and send notifications, in an orchestrator or a scheduler."""

from __future__ import annotations

from celery import Celery

from snapferry.orchestrator.periodic import Periodic
from snapferry.orchestrator.schedules.watcher import Watcher, configuration
from snapferry.workers.ledger import Ledger
from snapferry.workers.settings.environment import Settings

from .notifier import Notifier, notifier_of


class Rounds:
    """The further work of a watcher: notifications, if the configuration of this process names receivers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._notifier: Notifier | None = None
        self._made = False

    def __call__(self, ledger: Ledger) -> None:
        """Send what is to be sent. The receivers are read when the role works, so that its log can tell of errors."""
        if not self._made:
            self._made = True
            self._notifier = notifier_of(configuration(self._settings).notify)
        if self._notifier is not None:
            self._notifier.round(ledger)


def watcher_of(settings: Settings) -> Periodic:
    """Return the thread of the watcher of a process with these *settings*. Connects to nothing."""
    return Watcher(settings, Rounds(settings)).thread()


def attach_watcher(app: Celery, settings: Settings) -> None:
    """Let a watcher run for as long as a worker of *app* runs."""
    watcher_of(settings).attach(app)
