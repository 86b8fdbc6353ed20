"""The work pool of `runbook up`, over the Prefect server's HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from handlers.errors import TryAgain

POOL = "runbook"

_UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]
_RETRY_PAUSES = (0.2, 0.5, 1, 2, 4)
"""A server on SQLite sometimes answers 503 while it writes; Prefect's own client retries too."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The work pool of our worker."""

    http: httpx.AsyncClient

    async def has_worker(self) -> bool:
        """Whether the pool has a worker that is online."""
        workers = await self._request("POST", f"/work_pools/{POOL}/workers/filter", {}, missing_ok=True)
        return any(worker["status"] == "ONLINE" for worker in workers or [])

    async def pause(self, paused: bool) -> None:
        """Stop or allow the start of new runs; runs in progress continue."""
        await self._request("PATCH", f"/work_pools/{POOL}", {"is_paused": paused}, missing_ok=True)

    async def unfinished_runs(self) -> dict[str, str]:
        """The runs that a worker has started and not finished: their names by id."""
        of_pool = {
            "flow_runs": {"state": {"type": {"any_": _UNFINISHED}}},
            "work_pools": {"name": {"any_": [POOL]}},
        }
        runs = await self._request("POST", "/flow_runs/filter", of_pool)
        return {run["id"]: run["name"] for run in runs}

    async def mark_crashed(self, run: str, reason: str) -> None:
        """Set *run* to Crashed. Without it, runs of a stopped worker stay Running and keep their concurrency slots."""
        state = {"type": "CRASHED", "name": "Crashed", "message": reason}
        await self._request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    async def deployments(self) -> int:
        """The number of deployments, which can be started from the Prefect page."""
        return int(await self._request("POST", "/deployments/count", {}))

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, missing_ok: bool = False
    ) -> Any:
        problem = ""
        for pause in (*_RETRY_PAUSES, None):
            try:
                response = await self.http.request(method, path, json=body)
                if response.status_code == httpx.codes.NOT_FOUND and missing_ok:
                    return None
                if response.is_success:
                    return response.json() if response.content else None
                problem = f"{response.status_code} {response.text[:200]}"
            except httpx.HTTPError as error:
                problem = repr(error)
            if pause is not None:
                await asyncio.sleep(pause)
        raise TryAgain(f"the Prefect server failed on {method} {path}: {problem}")


@asynccontextmanager
async def open_pool(api_url: str) -> AsyncIterator[Pool]:
    """The pool on the server at *api_url*, with an HTTP client that is closed at the end."""
    async with httpx.AsyncClient(base_url=api_url, trust_env=False, timeout=10) as http:
        yield Pool(http=http)
