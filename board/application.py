"""The web application of the board: JSON for programs, metrics for Prometheus, and a page for people."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from board import answers, models
from board.access import Access, Guarded
from board.alert import Alert
from board.errors import NotThere, or_error
from board.metrics.collect import scrape
from board.model import Answer
from board.people import People
from board.place import Place
from board.reading import Reading
from handlers.environment.redact import redact
from handlers.errors import RunbookError

SCRAPE_SECONDS = 8.0
"""Prometheus gives up after ten seconds: whatever is not known by then is not known."""
_PROBLEMS: dict[int | str, dict[str, object]] = {
    404: {"model": models.Problem, "description": "There is no such environment or release."},
    503: {"model": models.Problem, "description": "It cannot be read now."},
}


def application(places: Mapping[str, Place], token: SecretStr | None) -> Guarded:
    """The board of these environments, behind its access rules."""
    access = Access(token)
    app = FastAPI(
        title="tds-runbook board",
        description="What environments do and how they are. Reads only.",
        version="1",
        # The description of the answers as JSON. Its page would load scripts from another site.
        docs_url=None,
        redoc_url=None,
    )
    board = Board(places)
    app.include_router(board.of_all(access))
    app.include_router(board.of_one(), prefix="/e/{environment}")
    if len(places) == 1:
        app.include_router(board.of_one(), include_in_schema=False)
    app.include_router(People(places, access, board.place).router())
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RunbookError, _problem)
    return Guarded(app, access)


class Board:
    """The routes, over the environments by name."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places

    def place(self, environment: str | None) -> Place:
        """The environment of a request. Raises Refused where there is none, or where it is not clear."""
        if environment is None and len(self._places) == 1:
            return next(iter(self._places.values()))
        if environment is None or environment not in self._places:
            known = ", ".join(self._places)
            raise NotThere(f"there is no environment {environment!r} here: this board serves {known}")
        return self._places[environment]

    def of_all(self, access: Access) -> APIRouter:
        """What is about all environments together."""
        router = APIRouter()

        @router.get("/health", responses={503: {"model": models.Health}}, response_model_exclude_none=True)
        async def health(request: Request) -> Response:
            """Whether the board works and every environment can be read: 200 or 503."""
            found = answers.health(await self._known())
            shown = found if access.lets_in(request.headers) else models.Health(status=found.status)
            content = shown.model_dump(mode="json", exclude_none=True)
            return JSONResponse(content, status_code=200 if found.status == "ok" else 503)

        @router.get("/environments")
        async def environments() -> models.Environments:
            """What this board serves."""
            return models.Environments(environments=list(self._places))

        @router.get("/metrics", response_class=Response)
        async def metrics() -> Response:
            """The metrics of all environments in the text format of Prometheus."""
            return await self._metrics(self._places)

        return router

    def of_one(self) -> APIRouter:
        """What is about one environment; with one environment also without its name."""
        router = APIRouter(responses=_PROBLEMS)

        @router.get("/health")
        async def health(environment: str | None = None) -> Response:
            """Whether this environment can be read: 200 or 503."""
            place = self.place(environment)
            found = answers.health({place.name: await _now_or_error(place)})
            return JSONResponse(
                found.model_dump(mode="json"), status_code=200 if found.status == "ok" else 503
            )

        @router.get("/queue")
        async def queue(environment: str | None = None) -> models.Queue:
            """The queue by status and type, and what died of which error."""
            place = self.place(environment)
            now, letters = await asyncio.gather(place.now(), or_error(place.letters()))
            return await shown(place, answers.queue(now, letters))

        @router.get("/success-rate")
        async def success_rate(environment: str | None = None) -> models.SuccessRate:
            """Whether events succeed, now and over the last day."""
            place = self.place(environment)
            now, course = await asyncio.gather(place.now(), or_error(place.course()))
            return await shown(place, answers.success_rate(now, course))

        @router.get("/releases")
        async def releases(environment: str | None = None) -> models.Releases:
            """The live or newest release, and those before it."""
            place = self.place(environment)
            return await shown(place, answers.releases(await place.now()))

        @router.get("/alerts")
        async def alerts(environment: str | None = None) -> models.Alerts:
            """What is broken now, the most urgent first."""
            place = self.place(environment)
            return await shown(place, answers.alerts(place.name, await place.alerts()))

        @router.get("/metrics", response_class=Response, include_in_schema=False)
        async def metrics(environment: str | None = None) -> Response:
            """The metrics of one environment."""
            place = self.place(environment)
            return await self._metrics({place.name: place})

        return router

    async def _known(self) -> dict[str, Reading | RunbookError]:
        found = await asyncio.gather(*map(_now_or_error, self._places.values()))
        return dict(zip(self._places, found, strict=True))

    async def _metrics(self, places: Mapping[str, Place]) -> Response:
        async def one(place: Place) -> tuple[Reading | None, list[Alert]]:
            now = await or_error(place.now(SCRAPE_SECONDS))
            return (now if isinstance(now, Reading) else None), await place.alerts(SCRAPE_SECONDS)

        found = await asyncio.gather(*map(one, places.values()))
        text = await asyncio.to_thread(scrape, dict(zip(places, found, strict=True)))
        return Response(text, media_type=CONTENT_TYPE_LATEST)


async def _now_or_error(place: Place) -> Reading | RunbookError:
    return await or_error(place.now())


Shown = TypeVar("Shown", bound=Answer)


async def shown(place: Place, answer: Shown) -> Shown:
    """The answer with every secret masked: sentences may have text from hosts and errors."""
    masked = redact(answer.model_dump(mode="json"), await place.secrets())
    return type(answer).model_validate(masked)


async def _problem(_: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NotThere) else 503
    return JSONResponse({"error": str(error)}, status_code=status)


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = "there is no such address" if error.status_code == 404 else str(error.detail)
    return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)
