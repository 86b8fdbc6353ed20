"""What `runbook up` asks a Prefect server about its work pool, in plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from handlers.errors import TryAgain

POOL = "runbook"

_UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]
_PAUSES = (0.2, 0.5, 1, 2, 4)
"""A server on SQLite refuses now and then with 503 while it writes; asking again is Prefect's own cure."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The work pool that our worker serves."""

    http: httpx.AsyncClient

    async def has_worker(self) -> bool:
        """Whether a worker is online in it."""
        workers = await self._ask("POST", f"/work_pools/{POOL}/workers/filter", {}, missing_is_fine=True)
        return any(worker["status"] == "ONLINE" for worker in workers or [])

    async def pause(self, paused: bool) -> None:
        """Let no new run begin, or let them begin again; those under way go on."""
        await self._ask("PATCH", f"/work_pools/{POOL}", {"is_paused": paused}, missing_is_fine=True)

    async def under_way(self) -> dict[str, str]:
        """The runs that a worker has in hand: their names by id."""
        of_pool = {
            "flow_runs": {"state": {"type": {"any_": _UNDER_WAY}}},
            "work_pools": {"name": {"any_": [POOL]}},
        }
        runs = await self._ask("POST", "/flow_runs/filter", of_pool)
        return {run["id"]: run["name"] for run in runs}

    async def mark_crashed(self, run: str, why: str) -> None:
        """Say that *run* is over. A worker that stops leaves its runs Running for ever, with their slots."""
        state = {"type": "CRASHED", "name": "Crashed", "message": why}
        await self._ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    async def deployments(self) -> int:
        """How many flows can be started from the Prefect page."""
        return int(await self._ask("POST", "/deployments/count", {}))

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, missing_is_fine: bool = False
    ) -> Any:
        problem = ""
        for pause in (*_PAUSES, None):
            try:
                answer = await self.http.request(method, path, json=body)
                if answer.status_code == httpx.codes.NOT_FOUND and missing_is_fine:
                    return None
                if answer.is_success:
                    return answer.json() if answer.content else None
                problem = f"{answer.status_code} {answer.text[:200]}"
            except httpx.HTTPError as error:
                problem = repr(error)
            if pause is not None:
                await asyncio.sleep(pause)
        raise TryAgain(f"the Prefect server does not answer {method} {path}: {problem}")


@asynccontextmanager
async def open_pool(api_url: str) -> AsyncIterator[Pool]:
    """Talk to the pool of the server at *api_url*."""
    async with httpx.AsyncClient(base_url=api_url, trust_env=False, timeout=10) as http:
        yield Pool(http=http)
