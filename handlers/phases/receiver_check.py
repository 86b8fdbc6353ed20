"""The check whether the receiver of the webhooks answers: with the empty call that the source makes as well."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from handlers.core import Core
from handlers.release.planned import Check


async def check(core: Core) -> Check | None:
    """A warning when nobody takes webhooks at the receiver's address. Nothing is stored; None without [receiver].

    `runbook send-test-webhook` proves more, and leaves nothing either.
    """
    receiver = core.environment.receiver
    if receiver is None:
        return None
    where = urlsplit(receiver.product_url)
    try:
        answer = await core.http.post(receiver.product_url, content=b"", timeout=receiver.answer_seconds)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _warning(f"{where.hostname} does not answer: {error or type(error).__name__}")
    # Another receiver may refuse an empty call. It is there all the same.
    if answer.status_code in (404, 405) or answer.status_code >= 500:
        return _warning(f"{where.hostname}{where.path} answers {answer.status_code}")
    return Check(name="receiver", good=True, sentence=f"{where.hostname} takes webhooks")


def _warning(problem: str) -> Check:
    sentence = f"{problem}: no live webhook may come, and then the watch cannot pass"
    return Check(name="receiver", good=True, warns=True, sentence=sentence)
