"""Who may ask: a token off loopback, the names of this machine on it, and headers that keep a page to itself.

A program sends the token as `Authorization: Bearer`. A browser sends it once in a form, and gets a cookie that is no
copy of it and ends after half a day.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.errors import ConfigError, Refused
from handlers.receiver.serve import is_loopback

TOKEN_LENGTH_MIN = 20
SESSION_SECONDS = 12 * 3600
COOKIE = "tds_runbook_board"
_OPEN = frozenset({"/health", "/login"})
"""What may be asked without a token: whether the board works, and the form for the token."""
_OPEN_BELOW = "/static/"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD"})
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    # Not no-referrer: a browser would then send our own forms with the origin `null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def raise_unless_safe(token: SecretStr | None, host: str) -> None:
    """Raise Refused without a token on an address that other machines reach, or with one that can be guessed."""
    if token is None:
        if not is_loopback(host):
            raise Refused(
                f"{host} is open to other machines, and without a token only this machine may ask: "
                "set --token env:NAME or file:PATH"
            )
    elif len(token.get_secret_value()) < TOKEN_LENGTH_MIN:
        raise Refused(f"the token must have at least {TOKEN_LENGTH_MIN} characters")


class Access:
    """The token, and what is made of it. It is read at each use: a rotated file holds at once."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token
        self._key = secrets.token_bytes(32)
        """Of this process: cookies and forms of another one are not valid."""

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a token."""
        return self._token is None

    def is_token(self, given: str) -> bool:
        """Whether this is the token, in constant time."""
        if self._token is None:
            return False
        try:
            token = self._token.get_secret_value()
        except ConfigError:
            return False
        # Of digests, so that the time tells no length either.
        return hmac.compare_digest(_digest(given), _digest(token))

    def new_session(self) -> str:
        """The value of a cookie for somebody who has shown the token."""
        said = f"{int(time.monotonic() + SESSION_SECONDS)}.{secrets.token_urlsafe(16)}"
        return f"{said}.{self._sign('session', said)}"

    def is_session(self, value: str) -> bool:
        """Whether a cookie is ours, of the present token, and not too old."""
        said, _, signature = value.rpartition(".")
        ends, _, _ = said.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", said).encode()):
            return False
        return ends.isdigit() and int(ends) > time.monotonic()

    def form_key(self, headers: Headers) -> str:
        """What a form of the page carries: another site cannot know it."""
        return self._sign("form", cookie_of(headers))

    def is_form_key(self, given: str, headers: Headers) -> bool:
        """Whether a form is one of ours, for this session."""
        return hmac.compare_digest(given.encode(), self.form_key(headers).encode())

    def is_bearer(self, headers: Headers) -> bool:
        """Whether a program has sent the token."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(given.strip())

    def lets_in(self, headers: Headers) -> bool:
        """Whether whoever asks may see what the board shows."""
        return self.is_open or self.is_bearer(headers) or self.is_session(cookie_of(headers))

    def _sign(self, purpose: str, said: str) -> str:
        try:
            token = self._token.get_secret_value() if self._token is not None else ""
        except ConfigError:
            # Without a readable token nothing that was signed is valid.
            token = secrets.token_hex()
        message = f"{purpose}\n{said}\n{hashlib.sha256(token.encode()).hexdigest()}".encode()
        digest = hmac.new(self._key, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Guarded:
    """The application behind its access rules."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on; every response gets the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        # DNS rebinding: a foreign name that leads to this machine would make its page a page of ours.
        if self._access.is_open and _name_of(host) not in _LOCAL_NAMES:
            sentence = f"this board answers to the names of this machine only, not to {host[:80]!r}"
            return _problem(421, sentence)
        if (
            scope["method"] not in _SAFE
            and not self._access.is_bearer(headers)
            and not _is_same_origin(headers)
        ):
            return _problem(403, "a form of another site is not accepted")
        if path in _OPEN or path.startswith(_OPEN_BELOW) or self._access.lets_in(headers):
            return None
        if "text/html" in headers.get("accept", "") and scope["method"] in _SAFE:
            return RedirectResponse("/login", status_code=303)
        sentence = "this board needs its token: send it as Authorization: Bearer, or log in at /login"
        return _problem(401, sentence, {"WWW-Authenticate": "Bearer"})


def cookie_of(headers: Headers) -> str:
    """The value of our cookie; empty without one."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _is_same_origin(headers: Headers) -> bool:
    """Whether a form was sent by a page of this board. A browser says where a form is from."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
