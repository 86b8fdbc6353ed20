"""The two things that a person may do here: approve a plan, and hold a release. Both as the commands do them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import Request

from board.place import Place
from handlers.core import open_core
from handlers.errors import Refused
from handlers.phases import approve as approving
from handlers.phases import holding

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 16_384
NAME_MAX, REASON_MAX = 80, 500
_ID = re.compile(r"[0-9A-Za-z.-]{1,64}")


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises Refused for one that is too large or no text."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_BYTES_MAX:
            raise Refused(f"the form has more than {BODY_BYTES_MAX} bytes")
    try:
        return dict(
            parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
        )
    except ValueError as error:
        raise Refused("the form cannot be read") from error


async def hold(place: Place, form: Mapping[str, str]) -> str:
    """Hold the release that the person sees; returns what came of it. Raises Refused."""
    by, reason = _who_and_why(form)
    environment = (await place.core()).environment
    async with open_core(environment) as core:
        held = await holding.hold(
            core.database, place.name, release_id(form.get("release", "")), by=by, reason=reason
        )
    log.warning("%s: hold of release %s by %s: %s", place.name, held.release_id, by, reason)
    return held.sentence


async def approve(place: Place, form: Mapping[str, str]) -> str:
    """Approve exactly the plan that the page has shown; returns what came of it. Raises Refused."""
    by, reason = _who_and_why(form)
    environment = (await place.core()).environment
    async with open_core(environment) as core:
        decided = await approving.approve(
            core.database,
            place.name,
            release_id(form.get("release", "")),
            plan=form.get("plan", ""),
            by=by,
            reason=reason,
            way="board",
        )
    log.warning("%s: approval of release %s by %s: %s", place.name, decided.release.id, by, reason)
    return f"release {decided.release.id}: {decided.sentence}"


def release_id(text: str) -> str:
    """The id of a release in an address or a form. Raises Refused for what cannot be one."""
    if not _ID.fullmatch(text):
        raise Refused(f"{text[:40]!r} is no id of a release: they look like 2026-01-02.1")
    return text


def _who_and_why(form: Mapping[str, str]) -> tuple[str, str]:
    by, reason = (" ".join(form.get(name, "").split()) for name in ("by", "reason"))
    if not by or len(by) > NAME_MAX or not by.isprintable():
        raise Refused(f"give your name, with at most {NAME_MAX} characters: the ledger keeps it")
    if not reason or len(reason) > REASON_MAX or not reason.isprintable():
        raise Refused(f"give a reason, with at most {REASON_MAX} characters: the ledger keeps it")
    return by, reason
