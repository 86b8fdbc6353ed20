# mypy: ignore-errors
"""The ERP's web process. Here it only answers the question how it is."""

import asyncio
import json
import os
from typing import Any

import asyncpg
import beat
import readiness
from revision import REVISION


async def health() -> tuple[int, dict[str, Any]]:
    """How this process is: its own commit, its database, and the workers beside it."""
    answer: dict[str, Any] = {
        "status": "ok",
        "revision": REVISION,
        "pid": os.getpid(),
        "database": "ok",
        "workers": {"revisions": [worker["revision"] for worker in beat.read()]},
    }
    try:
        connection = await asyncpg.connect(os.environ["ERP_DATABASE_URL"], timeout=2, command_timeout=2)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        return 503, answer | {"status": "down", "database": "down", "reason": str(error)}
    try:
        missing = await readiness.check(connection)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        missing = str(error)
    finally:
        connection.terminate()
    if missing:
        return 503, answer | {"status": "not ready", "reason": missing}
    return 200, answer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request and close."""
    try:
        request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        path = request.split(b" ", 2)[1].split(b"?")[0]
        status, body = await health() if path == b"/health" else (404, {"status": "no such page"})
        text = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not OK'}\r\nContent-Type: application/json\r\n"
        )
        writer.write(f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)
        await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError, IndexError):
        pass
    finally:
        writer.close()


async def main() -> None:
    # The rehearsal holds the port while we are down; only who shares ports gets in.
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["ERP_PORT"]), reuse_port=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
