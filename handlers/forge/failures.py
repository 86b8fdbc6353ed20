"""What a failed call of the forge means, and for how long a limited one has to wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from handlers.environment.forge_settings import Forge
from handlers.errors import Refused

_SECONDARY_SECONDS = 60.0
"""GitHub's advice where it limits the rate and does not say for how long."""
_MESSAGE_MAX = 200


class Conflict(Refused):
    """The forge does not merge: a conflict, a rule of the branch, or the head has moved."""


class Exists(Refused):
    """The forge does not create what is there already, or what it holds for invalid."""


class Missing(Refused):
    """There is no such thing, or the token may not see it."""


def limited_seconds(status: int, headers: Mapping[str, str], message: str) -> float | None:
    """How long a refused call has to wait, because the rate of calls is limited. None when that is not the reason.

    The end of the limit is a time of the forge, so its own clock is asked: the date of the answer.
    """
    if status not in (403, 429):
        return None
    if (after := _number(headers.get("retry-after"))) is not None:
        return after
    if headers.get("x-ratelimit-remaining") == "0":
        reset, now = _number(headers.get("x-ratelimit-reset")), _date(headers.get("date"))
        if reset is not None and now is not None:
            # One more second: both are rounded down.
            return max(0.0, reset - now) + 1
        return _SECONDARY_SECONDS
    return _SECONDARY_SECONDS if status == 429 or "rate limit" in message.lower() else None


def refusal(
    settings: Forge, status: int, headers: Mapping[str, str], message: str, *, what: str, needs: str
) -> Refused:
    """The error for an answer that a repetition cannot change: what was asked, and what to do.

    *what* is the call in words, *needs* the right of the token that it takes.
    """
    host, said = settings.host, _said(message)
    token = f"forge.token ({settings.token.reference})"
    match status:
        case 401:
            return Refused(
                f"{host} refuses the token of {token}: it is wrong, expired or revoked. Put a valid one there"
            )
        case 403:
            accepted = headers.get("x-accepted-github-permissions", "")
            right = accepted.partition(";")[0].replace("=", ": ") or needs
            return Refused(
                f"{host} does not let the token of {token} {what}: give it the right {right} "
                f"on {settings.repository}{said}"
            )
        case 404 | 410:
            return Missing(
                f"{host} cannot {what}: there is no such thing in {settings.repository}, or the token of {token} may "
                f"not see it. Check forge.repository, and that the token has the right {needs}"
            )
        case 405 | 409:
            return Conflict(f"{host} does not {what}{said}")
        case 422:
            return Exists(f"{host} does not {what}{said}")
    return Refused(f"{host} answered {status} when asked to {what}{said}: check forge.api_url")


def _said(message: str) -> str:
    line = " ".join("".join(each if each.isprintable() else " " for each in message).split())
    return f" ({line[:_MESSAGE_MAX]})" if line else ""


def _number(text: str | None) -> float | None:
    # Digits alone: a date or a negative number is no span of time.
    return float(text) if text is not None and text.strip().isdecimal() else None


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None
