"""The keys of an environment file about telling people: whom, of what, and when it can wait."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from handlers.environment.references import LaterSecret
from handlers.environment.section import Seconds, Section

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


class Severity(StrEnum):
    """How urgent a message is."""

    PAGE = "page"
    """A person is needed now. It goes out at any hour."""
    WARNING = "warning"
    INFO = "info"


def _is_a_time(text: str) -> str:
    if not _CLOCK.fullmatch(text):
        raise ValueError(f"{text!r} is no time of day: write it as 22:00")
    return text


def is_a_zone(text: str) -> str:
    """*text* if it is the name of a time zone. Raises ValueError."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {text!r}: it is named as in Europe/Istanbul") from error
    return text


TimeOfDay = Annotated[str, AfterValidator(_is_a_time)]


class Addressee(Section):
    """One address that messages are sent to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
    """Its name in the ledger and in every list: the address itself may contain a secret and is never shown."""
    url: LaterSecret
    """The address as Apprise writes it. It is read when a message is sent: a missing one delays no release."""
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = tuple(Severity)
    """What it is told of."""


class Notify(Section):
    """Who is told what happens to releases. Without an address it is only logged."""

    addresses: tuple[Addressee, ...] = ()
    quiet_from: TimeOfDay | None = None
    """In the quiet hours only pages are sent; the others wait for their end."""
    quiet_until: TimeOfDay | None = None
    time_zone: Annotated[str, AfterValidator(is_a_zone)] = "UTC"
    answer_seconds: Annotated[float, Field(gt=0, le=60)] = 10
    """How long one address may take for one message."""
    keep_trying_seconds: Seconds = 21_600
    """A message that an address does not take is tried again for this time, and then given up."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [address.name for address in self.addresses]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two addresses have the name {twice[0]!r}: every address needs its own name")
        if (self.quiet_from is None) != (self.quiet_until is None):
            raise ValueError("quiet_from and quiet_until belong together: set both, or none")
        if self.quiet_from is not None and self.quiet_from == self.quiet_until:
            raise ValueError("quiet_from and quiet_until are the same time: nobody would ever be told")
        return self

    def names_for(self, severity: Severity) -> tuple[str, ...]:
        """The names of the addresses that are told of what is so urgent."""
        return tuple(address.name for address in self.addresses if severity in address.severities)

    def not_before(self, severity: Severity, now: datetime) -> datetime:
        """When a message may be sent that is written *now*: the end of the quiet hours, or at once."""
        if severity is Severity.PAGE or self.quiet_from is None or self.quiet_until is None:
            return now
        zone = ZoneInfo(self.time_zone)
        here = now.astimezone(zone)
        begin, end = time.fromisoformat(self.quiet_from), time.fromisoformat(self.quiet_until)
        at = here.time()
        is_quiet = begin <= at < end if begin < end else at >= begin or at < end
        if not is_quiet:
            return now
        day = here.date() + timedelta(days=1 if at >= end else 0)
        return datetime.combine(day, end, tzinfo=zone).astimezone(now.tzinfo)
