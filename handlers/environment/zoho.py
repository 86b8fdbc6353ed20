"""The keys of an environment file about the source's API (Zoho), which a sync reads."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from handlers.environment.references import Local, Secret
from handlers.environment.section import Seconds, Section, is_a_web_address


def _without_slash(text: str) -> str:
    return is_a_web_address(text).rstrip("/")


WebAddress = Annotated[str, AfterValidator(_without_slash)]


class Zoho(Section):
    """The source's API. Without this table there is no sync."""

    organization_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    """The organisation that is read: digits, as text."""
    client_id: Secret
    client_secret: Secret
    refresh_token: Secret
    """It needs the scopes to read every kind that is synced."""
    accounts_url: WebAddress = "https://accounts.zoho.com"
    """Where access tokens come from: the accounts server of the data centre."""
    api_url: WebAddress | None = None
    """The API server. None: the one that comes with each access token."""
    ca_file: Local | None = None
    """CA certificates (PEM) that are trusted besides the system's."""
    answer_seconds: Annotated[float, Field(gt=0, le=300)] = 30
    calls_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 90
    """The source allows 100 for an organisation, for all programs together."""
    calls_per_day: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """After so many calls of all syncs in a day (UTC), a sync waits for the next day."""
    calls_at_once: Annotated[int, Field(ge=1, le=50)] = 5
    overlap_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300
    """An incremental sync reads again what changed so long before its last reading."""
    queue_events_max: Annotated[int, Field(ge=1, le=100_000)] = 500
    """So many events of a sync may wait in the queue. Then it reads no further until workers have taken some."""
    queue_wait_seconds: Seconds = 900
    """If workers take nothing for this time, the sync stops, and goes on when it is started again."""
    deletes_percent_max: Annotated[float, Field(ge=0, le=100)] = 10
    """If the source lacks more than this share of our records, none of them is deleted, and a person decides."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.calls_at_once > self.calls_per_minute:
            raise ValueError("calls_at_once must not be more than calls_per_minute")
        return self
