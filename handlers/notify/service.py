"""One message to one address, through Apprise: bounded, in a thread of its own, and without ever showing the address.

Apprise is imported in that thread: it takes half a second, and most commands send nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from handlers.environment.masking import MASK
from handlers.environment.notification import Severity
from handlers.environment.redact import SECRET_LENGTH_MIN, redact_text
from handlers.notify.text import Text

APPRISE = logging.getLogger("apprise")
"""What it logs may contain an address. It reaches nobody but `_Heard`."""
APPRISE.propagate = False
APPRISE.addHandler(logging.NullHandler())

UNKNOWN = "Apprise knows no service of this kind, or it needs more, as in json://host/path or mailto://host?to=a@b.c"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an address answered to one message."""

    taken: bool
    sentence: str
    thread: str = ""
    """By which the next message continues the conversation; empty where the service has none."""


async def send(url: str, text: Text, *, severity: Severity, thread: str, within: float) -> Answer:
    """Send one message and return the answer. Never raises, and takes no longer than *within* seconds.

    A thread that hangs is left behind. What it may still send is sent twice: that is better than not at all.
    """
    try:
        answer: Answer = await _bounded(lambda: _send(url, text, severity, thread), within)
    except TimeoutError:
        return Answer(taken=False, sentence=f"no answer within {within:g} s")
    except Exception as error:  # Whatever a plugin raises, it must not keep the other messages.
        return Answer(taken=False, sentence=_without(url, f"{type(error).__name__}: {error}"))
    return answer


async def problem_with(url: str, *, within: float = 10.0) -> str:
    """Why nothing can be sent to this address; empty where something may. Nobody is asked."""
    try:
        plugin = await _bounded(lambda: _plugin(url), within)
    except Exception as error:
        return _without(url, f"{type(error).__name__}: {error}")
    return "" if plugin is not None else UNKNOWN


async def _bounded(call: Callable[[], Any], within: float) -> Any:
    """The result of a blocking call, in a thread that keeps no process from its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: object, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        try:
            result, error = call(), None
        except Exception as raised:
            result, error = None, raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # The loop has ended: nobody waits for the answer.

    threading.Thread(target=run, name="notify", daemon=True).start()
    async with asyncio.timeout(within):
        return await future


def _plugin(url: str) -> Any:
    import apprise

    asset = apprise.AppriseAsset(app_id="tds-runbook", app_desc="tds-runbook", secure_logging=True)
    return apprise.Apprise.instantiate(url, asset=asset)


def _send(url: str, text: Text, severity: Severity, thread: str) -> Answer:
    import apprise

    plugin = _plugin(url)
    if plugin is None:
        return Answer(taken=False, sentence=UNKNOWN)
    types = {Severity.PAGE: apprise.NotifyType.FAILURE, Severity.WARNING: apprise.NotifyType.WARNING}
    kind = apprise.NotifyType.SUCCESS if text.is_good else types.get(severity, apprise.NotifyType.INFO)
    plugin.notify_format = apprise.NotifyFormat.TEXT
    threads = _continue_thread(plugin, text, thread)
    heard = _Heard()
    APPRISE.addHandler(heard)
    try:
        taken = bool(plugin.notify(body=text.body, title=text.title, notify_type=kind))
    finally:
        APPRISE.removeHandler(heard)
    if taken:
        return Answer(taken=True, sentence="taken", thread=(threads or [thread])[0])
    return Answer(taken=False, sentence=_without(url, heard.sentence))


def _continue_thread(plugin: Any, text: Text, thread: str) -> list[str]:
    """Let the message continue the conversation of its release. Returns where a new thread will be noted."""
    threads: list[str] = []
    if plugin.__class__.__name__ == "NotifyEmail" and text.thread:
        plugin.headers |= {"References": text.thread, "In-Reply-To": text.thread}
    if (
        plugin.__class__.__name__ == "NotifySlack"
        and text.thread
        and len(getattr(plugin, "channels", ())) == 1
    ):
        # Apprise takes a thread_ts, but does not hand out that of a message: only its answer has it.
        post = plugin._send

        def posted(url: str, payload: Any, *args: Any, **values: Any) -> Any:
            answer = post(url, {**payload, "thread_ts": thread} if thread else payload, *args, **values)
            if isinstance(answer, dict) and answer.get("ts") and not thread:
                threads.append(str(answer["ts"]))
            return answer

        plugin._send = posted
    return threads


class _Heard(logging.Handler):
    """What Apprise says about the call of this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.sentence = "it did not take the message, and Apprise does not say why"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the newest line of our own thread."""
        if record.thread == self._thread:
            self.sentence = record.getMessage()


def _without(url: str, sentence: str) -> str:
    """*sentence* without the address, and without anything in it that may be a secret. The host's name stays."""
    return redact_text(sentence.replace(url, MASK), _secrets_in(url))[:300]


def _secrets_in(url: str) -> frozenset[str]:
    parts = urlsplit(url)
    found = [
        *parts.path.split("/"),
        *(value for _, value in parse_qsl(parts.query)),
        *parts.netloc.split("@")[:-1],
    ]
    found += [piece for each in parts.netloc.split("@")[:-1] for piece in each.split(":")]
    found += [unquote(each) for each in found]
    return frozenset(each for each in found if len(each) >= SECRET_LENGTH_MIN)
