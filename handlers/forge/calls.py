"""Calls of the forge: with the token, repeated where that can help, and translated into our errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from handlers.environment.forge_settings import Forge
from handlers.environment.trust import https_context
from handlers.errors import ConfigError, Refused, TryAgain
from handlers.forge.failures import limited_seconds, refusal

if TYPE_CHECKING:
    from githubkit.response import Response

log = logging.getLogger(__name__)

TRIES = 6
"""So often is a call made while the forge has a fault."""
PAGE_SIZE = 100
_PAGES_MAX = 30
_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS = 0.5, 15.0
TOLD_SECONDS = 30.0
"""A person who waits hears something at least so often."""
VERSION = "2022-11-28"
"""The version of the API: the one that Enterprise Servers have too. A later one does not name the merge's commit."""

Tell = Callable[[str], None]
"""Gets a sentence for the person who waits."""


class Unanswered(TryAgain):
    """A call that changes something was sent, and no answer came: look whether it was done."""


def silent(sentence: str) -> None:
    """A Tell for callers without a person."""
    log.info("%s", sentence)


class Calls:
    """The calls to one repository."""

    def __init__(self, settings: Forge, rest: Any, tell: Tell) -> None:
        self.settings = settings
        self.rest = rest
        """githubkit's typed methods, by the names of GitHub's documentation."""
        self.tell = tell

    async def call(
        self,
        method: Callable[..., Awaitable[Response[Any, Any]]],
        *arguments: Any,
        what: str,
        needs: str,
        changes: bool = False,
        **options: Any,
    ) -> Response[Any, Any]:
        """Call *method* for the repository. *what* it is in words, *needs* the right that it takes.

        Waits out a limit of the rate, and repeats after a fault; one that *changes* something only where the forge has
        surely not done it. Raises Unanswered, TryAgain, or Refused with what to do.
        """
        from githubkit.exception import GitHubException, RequestFailed

        settings, faults, waited = self.settings, 0, 0.0
        while True:
            try:
                # Ours, because the cache in githubkit drops the timeout of the request.
                async with asyncio.timeout(settings.answer_seconds):
                    return await method(settings.owner, settings.name, *arguments, **options)
            except RequestFailed as error:
                status, headers = error.response.status_code, error.response.headers
                message = _message(error.response)
                if (seconds := limited_seconds(status, headers, message)) is not None:
                    await self._wait_for_limit(seconds, waited, what)
                    waited += seconds
                    continue
                if status < 500 and status != 408:
                    raise refusal(settings, status, headers, message, what=what, needs=needs) from error
                fault, cause = f"{settings.host} answered {status}", error
            except (GitHubException, TimeoutError) as error:
                fault, cause = f"{settings.host} gave no answer ({_cause(error)})", error
            if changes:
                raise Unanswered(f"{fault} when asked to {what}") from cause
            faults += 1
            if faults >= TRIES:
                raise TryAgain(
                    f"{fault} when asked to {what}, {faults} times in a row. The same command goes on later"
                ) from cause
            pause = min(_PAUSE_MAX_SECONDS, _PAUSE_FIRST_SECONDS * 2 ** (faults - 1))
            self.tell(f"{fault}; asking again in {pause:g} s")
            await asyncio.sleep(pause)

    async def pages(
        self,
        method: Callable[..., Awaitable[Response[Any, Any]]],
        *arguments: Any,
        what: str,
        needs: str,
        key: str = "",
        **options: Any,
    ) -> list[Any]:
        """All items of a list, page by page as its Link header says; *key* is the field with the items, if any."""
        found: list[Any] = []
        for page in range(1, _PAGES_MAX + 1):
            response = await self.call(
                method, *arguments, what=what, needs=needs, page=page, per_page=PAGE_SIZE, **options
            )
            body = json_of(response, self.settings.host)
            items = body.get(key) if key and isinstance(body, dict) else body
            if not isinstance(items, list):
                raise Refused(
                    f"{self.settings.host} does not answer as GitHub's API does: check forge.api_url"
                )
            found += items
            if 'rel="next"' not in response.headers.get("link", ""):
                return found
        raise Refused(
            f"{self.settings.host} lists more than {_PAGES_MAX * PAGE_SIZE} entries when asked to {what}"
        )

    async def _wait_for_limit(self, seconds: float, waited: float, what: str) -> None:
        bound = self.settings.rate_limit_seconds
        if waited + seconds > bound:
            raise TryAgain(
                f"{self.settings.host} limits the rate of calls, and would {what} in {seconds:.0f} s; "
                f"forge.rate_limit_seconds allows {bound:g} s in all. The same command goes on later"
            )
        while seconds > 0:
            self.tell(f"{self.settings.host} limits the rate of calls; waiting {seconds:.0f} s, as it asks")
            await asyncio.sleep(min(seconds, TOLD_SECONDS))
            seconds -= TOLD_SECONDS


@asynccontextmanager
async def open_calls(settings: Forge, tell: Tell = silent) -> AsyncIterator[Calls]:
    """The calls to the forge with one HTTP client. Raises ConfigError, and Refused without the extra."""
    try:
        # Imported here: it takes a second, and is an extra.
        from githubkit import GitHub
    except ImportError as error:
        raise Refused(
            "[forge] needs the extra with GitHub's client: install it with pip install 'tds-runbook[forge]'"
        ) from error
    try:
        context = https_context(settings.ca_file, key="forge.ca_file")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    token = settings.token.get_secret_value()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"forge.token ({settings.token.reference}) is no token: it has other characters in it"
        )
    github = GitHub(
        token,
        base_url=settings.api_url.rstrip("/") + "/",
        timeout=settings.answer_seconds,
        ssl_verify=context,
        trust_env=False,
        auto_retry=False,
        user_agent="tds-runbook",
    )
    async with github:
        yield Calls(settings, github.rest(VERSION), tell)


def json_of(response: Response[Any, Any], host: str) -> Any:
    """The JSON of an answer. Raises Refused when it is none: a proxy's page, for example."""
    try:
        return response.json()
    except ValueError as error:
        raise Refused(f"{host} answered with something that is no JSON: check forge.api_url") from error


def _message(response: Response[Any, Any]) -> str:
    try:
        body = response.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors")
    details = [
        str(each.get("message") or each.get("code") or "") if isinstance(each, dict) else str(each)
        for each in (errors if isinstance(errors, list) else [])
    ]
    return ": ".join(filter(None, [str(body.get("message", "")), "; ".join(filter(None, details))]))


def _cause(error: Exception) -> str:
    inner = getattr(error, "exc", error)
    name = type(inner).__name__
    return "no answer in time" if "Timeout" in name else name
