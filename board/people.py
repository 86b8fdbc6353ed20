"""The routes of the page: what people see, the form for the token, the live stream, and the two actions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from board import actions, page
from board.access import COOKIE, SESSION_SECONDS, Access, cookie_of
from board.errors import NotThere, or_error
from board.place import Place
from board.reading import Reading
from handlers.errors import Refused, RunbookError

_STATIC = {"board.css": "text/css", "board.js": "text/javascript", "icon.svg": "image/svg+xml"}
LOOK_SECONDS = 2.0
"""How often the stream looks for a new reading."""
SILENT_SECONDS = 15.0
"""After so long without a reading the stream says that it lives: a proxy closes silent connections."""


class People:
    """The page over the environments by name."""

    def __init__(
        self, places: Mapping[str, Place], access: Access, place: Callable[[str | None], Place]
    ) -> None:
        self._places = places
        self._access = access
        self._place = place

    def router(self) -> APIRouter:
        """The routes. They are no part of the description of the JSON."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/", self.overview, methods=["GET"])
        router.add_api_route("/live", self.live_all, methods=["GET"])
        router.add_api_route("/e/{environment}", self.to_page, methods=["GET"])
        router.add_api_route("/e/{environment}/", self.environment, methods=["GET"])
        router.add_api_route("/e/{environment}/live", self.live, methods=["GET"])
        router.add_api_route("/e/{environment}/hold", self.hold, methods=["POST"])
        router.add_api_route("/e/{environment}/approve", self.approve, methods=["POST"])
        router.add_api_route("/login", self.login_form, methods=["GET"])
        router.add_api_route("/login", self.login, methods=["POST"])
        router.add_api_route("/logout", self.logout, methods=["POST"])
        router.add_api_route("/static/{name}", self.static, methods=["GET"])
        return router

    async def overview(self, request: Request) -> Response:
        """All environments; where there is one, its page."""
        if len(self._places) == 1:
            return RedirectResponse(f"/e/{next(iter(self._places))}/", status_code=303)
        return HTMLResponse(await page.overview_page(list(self._places.values()), self._common(request)))

    async def to_page(self, environment: str) -> Response:
        """The page has its address with a slash, so that short links work."""
        return RedirectResponse(f"/e/{self._place(environment).name}/", status_code=303)

    async def environment(self, request: Request, environment: str, release: str | None = None) -> Response:
        """The page of one environment."""
        place = self._place(environment)
        try:
            wanted = actions.release_id(release) if release is not None else None
            return HTMLResponse(await page.environment_page(place, wanted, self._common(request)))
        except Refused as error:
            return self._said(request, place.name, "There is no such release", str(error), status=404)

    async def live(self, request: Request, environment: str) -> Response:
        """A line for each new reading, as server-sent events."""
        place = self._place(environment)
        return StreamingResponse(_readings([place], request), media_type="text/event-stream")

    async def live_all(self, request: Request) -> Response:
        """The same for all environments."""
        return StreamingResponse(
            _readings(list(self._places.values()), request), media_type="text/event-stream"
        )

    async def hold(self, request: Request, environment: str) -> Response:
        """Hold the release that runs."""
        return await self._act(request, environment, "Hold", actions.hold)

    async def approve(self, request: Request, environment: str) -> Response:
        """Approve a plan that waits."""
        return await self._act(request, environment, "Approval", actions.approve)

    async def login_form(self, request: Request) -> Response:
        """The form for the token."""
        if self._access.lets_in(request.headers):
            return RedirectResponse("/", status_code=303)
        return HTMLResponse(page.small_page("login.html", {**self._common(request), "wrong": False}))

    async def login(self, request: Request) -> Response:
        """A session for whoever knows the token."""
        form = await _form(request)
        if not self._access.is_token(form.get("token", "").strip()):
            wrong = page.small_page("login.html", {**self._common(request), "wrong": True})
            return HTMLResponse(wrong, status_code=403)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            COOKIE,
            self._access.new_session(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def logout(self, request: Request) -> Response:
        """Forget the session in this browser."""
        form = await _form(request)
        if not self._access.is_form_key(form.get("key", ""), request.headers):
            return self._said(request, "", "Not logged out", "this form is not valid any more", status=403)
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def static(self, name: str) -> Response:
        """Style, script and icon: they come from here and from nowhere else."""
        if name not in _STATIC:
            raise NotThere("there is no such file")
        content = files("board").joinpath("static", name).read_bytes()
        return Response(content, media_type=_STATIC[name], headers={"cache-control": "max-age=300"})

    async def _act(
        self,
        request: Request,
        environment: str,
        title: str,
        act: Callable[[Place, Mapping[str, str]], Awaitable[str]],
    ) -> Response:
        place = self._place(environment)
        try:
            form = await actions.form_of(request)
            bearer = self._access.is_bearer(request.headers)
            if not bearer and not self._access.is_form_key(form.get("key", ""), request.headers):
                sentence = "this form is not valid any more: open the page again"
                return self._said(request, place.name, title, sentence, status=403)
            sentence = await act(place, form)
        except RunbookError as error:
            status = 409 if isinstance(error, Refused) else 503
            return self._said(request, place.name, title, str(error), status=status)
        return self._said(request, place.name, title, sentence, status=200)

    def _said(self, request: Request, name: str, title: str, sentence: str, *, status: int) -> Response:
        values = {**self._common(request), "name": name, "title": title, "sentence": sentence}
        content = page.small_page("said.html", {**values, "good": status == 200})
        return HTMLResponse(content, status_code=status)

    def _common(self, request: Request) -> dict[str, Any]:
        is_in = self._access.lets_in(request.headers)
        return {
            "environments": list(self._places) if is_in else [],
            "form_key": self._access.form_key(request.headers) if is_in else "",
            "has_session": not self._access.is_open and bool(cookie_of(request.headers)) and is_in,
        }


async def _form(request: Request) -> dict[str, str]:
    try:
        return await actions.form_of(request)
    except Refused:
        return {}


async def _readings(places: Sequence[Place], request: Request) -> AsyncIterator[str]:
    """Says that there is a new reading; the page then asks for itself. Ends when nobody listens."""
    yield "retry: 5000\n\n"
    shown: object = None
    silent = 0.0
    while not await request.is_disconnected():
        known = await asyncio.gather(*map(_state_of, places))
        if known != shown:
            shown, silent = known, 0.0
            yield f"event: reading\ndata: {' '.join(known)}\n\n"
        elif silent >= SILENT_SECONDS:
            silent = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_SECONDS)
        silent += LOOK_SECONDS


async def _state_of(place: Place) -> str:
    now = await or_error(place.now())
    return now.at.isoformat() if isinstance(now, Reading) else "away"
