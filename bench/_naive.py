"""What a receiver is without any care: a bare FastAPI endpoint that inserts the body and commits, call by call.

It verifies nothing, reads nothing of the record, knows no duplicates, wakes nobody and writes one row where the
receiver writes two.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

INSERT = text(
    "INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, content_hash)"
    " VALUES (:id, 'zoho', 'product', :key, CAST(:payload AS jsonb), :hash)"
)


def application(url: str) -> FastAPI:
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), pool_size=10)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/webhooks/{kind}")
    async def webhook(kind: str, request: Request) -> dict[str, str]:
        payload = json.dumps(await request.json())
        id_ = uuid4()
        values = {"id": id_, "key": kind, "payload": payload, "hash": sha256(payload.encode()).hexdigest()}
        async with engine.begin() as tx:
            await tx.execute(INSERT, values)
        return {"id": str(id_)}

    return app


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    uvicorn.run(
        application(os.environ["BENCH_URL"]), port=int(sys.argv[1]), log_config=None, access_log=False
    )
