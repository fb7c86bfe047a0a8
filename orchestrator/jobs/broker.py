"""The broker of the jobs: the ledger in it, and what its errors mean for the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.workers.broker.connection import BrokerUnavailable, client, refusal
from snapferry.workers.ledger import Ledger
from snapferry.workers.ledger.damage import is_wrong_type, shared_damage
from snapferry.workers.settings.broker_url import shown
from snapferry.workers.settings.environment import Settings

_LONGEST_REASON = 400

# Damaged keys that a message names.
_MOST_NAMED = 3


class BrokerDamaged(BrokerUnavailable):
    """Another program changed the type of a key in Redis. The message names the key if it can."""


class JobRefused(Exception):
    """A job cannot do what was asked; the message gives the reason and the alternative, in one line."""


class JobBroker:
    """The ledger of a fleet. *settings* must name a broker; *answer_s* is how long an answer may take, in seconds."""

    def __init__(self, settings: Settings, *, answer_s: float) -> None:
        assert settings.broker_url is not None  # make_job_app refuses settings without a broker
        self._url = settings.broker_url
        self.ledger = Ledger(client(self._url, retries=1, answer_s=answer_s), expires_s=settings.job_expires)

    @property
    def shown(self) -> str:
        """The broker's URL without its password."""
        return shown(self._url)

    @contextmanager
    def answering(self, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Raise `BrokerUnavailable` in place of the broker's errors, except for those of the classes in *but*."""
        try:
            yield
        except but:
            raise
        except (RedisError, OperationalError) as error:
            if is_wrong_type(error):
                raise BrokerDamaged(self._damage()) from error
            raise BrokerUnavailable(
                f"the broker at {self.shown} did not accept the request: {_reason(error)}"
            ) from error

    def _damage(self) -> str:
        """Return what another program damaged, and what to do."""
        try:
            found = shared_damage(self.ledger.client)
        except RedisError:
            found = []
        said = "; ".join(map(str, found[:_MOST_NAMED])) or "a key of snapferry has the wrong type"
        return (
            f"another program changed the broker at {self.shown}: {said}. A running orchestrator sets such keys aside"
            " within seconds; then try again"
        )


def _reason(error: Exception) -> str:
    # The text of a refusal explains itself.
    text = str(error)[:_LONGEST_REASON]
    return text if refusal(error) else f"{type(error).__name__}: {text}"
