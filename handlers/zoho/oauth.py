"""Access tokens: made from the refresh token, used by all calls of the process, renewed a little early."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from time import monotonic

import httpx
import msgspec

from handlers.environment.zoho import Zoho
from handlers.errors import Refused, TryAgain

_EARLY_SECONDS = 300.0
_LIFE_SECONDS = 3600.0
_TOKENS: dict[str, Token] = {}
"""The tokens of this process: the source gives ten in ten minutes, and a sync has a step for each entity type."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """One access token. Never print it."""

    text: str
    api_domain: str
    """Where it is valid."""
    ends_at: float
    """By the monotonic clock."""


class Tokens:
    """The access token for these settings."""

    def __init__(self, settings: Zoho, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._lock = asyncio.Lock()

    async def get(self) -> Token:
        """A token that is valid for some minutes. Raises Refused when there is none, or TryAgain."""
        async with self._lock:
            name = self._name()
            token = _TOKENS.get(name)
            if token is None or token.ends_at <= monotonic():
                token = await self._new()
                _TOKENS[name] = token
            return token

    def forget(self, token: Token) -> None:
        """The source refuses *token*: the next call gets a new one. Another one in its place is kept."""
        name = self._name()
        if _TOKENS.get(name) is token:
            del _TOKENS[name]

    def _name(self) -> str:
        settings = self._settings
        secret = "\0".join(
            (
                settings.accounts_url,
                settings.client_id.get_secret_value(),
                settings.client_secret.get_secret_value(),
                settings.refresh_token.get_secret_value(),
            )
        )
        return hashlib.sha256(secret.encode()).hexdigest()

    async def _new(self) -> Token:
        where = self._settings.accounts_url
        secrets = {
            "refresh_token": self._settings.refresh_token.get_secret_value(),
            "client_id": self._settings.client_id.get_secret_value(),
            "client_secret": self._settings.client_secret.get_secret_value(),
        }
        try:
            # In the body: an address may be logged on its way.
            answer = await self._http.post(
                f"{where}/oauth/v2/token", data={"grant_type": "refresh_token", **secrets}
            )
        except httpx.HTTPError as error:
            raise TryAgain(f"{where} does not answer: {type(error).__name__}") from error
        try:
            body = msgspec.json.decode(answer.content, type=dict)
        except (msgspec.DecodeError, msgspec.ValidationError):
            body = {}
        text = body.get("access_token")
        if isinstance(text, str) and text:
            return self._token(text, body)
        # A refusal comes with status 200 too.
        said = str(body.get("error") or f"status {answer.status_code}")[:100]
        if answer.status_code == 429 or answer.status_code >= 500 or not re.match(r"invalid|unauthor", said):
            raise TryAgain(f"{where} gives no access token now: {said}")
        raise Refused(
            f"{where} gives no access token: {said}. Check zoho.client_id, zoho.client_secret and zoho.refresh_token, "
            "and that they are of this data centre"
        )

    def _token(self, text: str, body: dict[str, object]) -> Token:
        domain = self._settings.api_url or str(body.get("api_domain") or "").rstrip("/")
        if not re.match(r"https?://[^/\s]", domain):
            raise Refused(
                f"{self._settings.accounts_url} names no API server with its access token: set zoho.api_url"
            )
        try:
            life = float(str(body.get("expires_in", _LIFE_SECONDS)))
        except ValueError:
            life = _LIFE_SECONDS
        return Token(
            text=text,
            api_domain=domain,
            ends_at=monotonic() + max(life - _EARLY_SECONDS, life / 2),
        )
