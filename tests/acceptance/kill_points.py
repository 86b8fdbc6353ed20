"""The points at which a controller can die, found in the code, and the hooks that kill a driver at one of them.

A point is the begin of a step (`tasks/`), the moment before or after the commit of a query that writes, or the moment
before, during or after an operation on a host. Production code knows nothing of them: the driver of a kill test patches
itself (`killer/sitecustomize.py`).
"""

from __future__ import annotations

import ast
import asyncio
import functools
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from handlers.database.queries import queries
from handlers.release.phase import Phase

ROOT = Path(__file__).resolve().parents[2]
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE\s+(?!SET\b|OF\b|SKIP\b|NOWAIT\b)[a-z_.]+|DELETE FROM)")
_PARTS = {"kind": "kind", "to": "phase", "phase": "phase"}
"""The parameters that make one query into several points: the same row of the ledger for different things."""
_BY_PHASE = ("enter_phase", "record_judgement")
_BY_KIND = ("intend", "confirm")
_JUDGED = (Phase.CANARY, Phase.DRAINING, Phase.WATCHING)


def points() -> list[str]:
    """Every point of the product, in a fixed order."""
    return [*_steps(), *_writes(), *_operations()]


def _steps() -> Iterator[str]:
    """Each function of tasks/ that is a step."""
    for file in sorted((ROOT / "tasks").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef) and any(
                ast.unparse(decorator).startswith("step(") for decorator in node.decorator_list
            ):
                yield f"step tasks.{file.stem}.{node.name}"


def _writes() -> Iterator[str]:
    """Each query that writes, before and after the commit of its transaction."""
    for file in sorted((ROOT / "handlers").rglob("*.sql")):
        if "migrations" in file.parts:
            continue
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for name, query in queries(module).items():
            if _WRITES.search(re.sub(r"--.*", "", query.text)):
                for detail in _details(name):
                    yield f"before commit {module}.{name}{detail}"
                    yield f"after commit {module}.{name}{detail}"


def _details(query: str) -> list[str]:
    if query in _BY_KIND:
        return [f"[{kind}]" for kind in kinds()]
    if query == "enter_phase":
        return [f"[{phase}]" for phase in Phase if phase is not Phase.PLANNED]
    if query == "record_judgement":
        return [f"[{phase}]" for phase in _JUDGED]
    return [""]


def _operations() -> Iterator[str]:
    for kind in kinds():
        for when in ("before", "during", "after"):
            yield f"{when} operation {kind}"


@functools.cache
def kinds() -> tuple[str, ...]:
    """The kinds of operations on a host, in both directions: each call of `_run_verb` names one."""
    tree = ast.parse((ROOT / "handlers" / "host" / "step.py").read_text(encoding="utf-8"))
    verbs = [
        node.args[2].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "_run_verb"
        and isinstance(node.args[2], ast.Constant)
    ]
    return tuple(f"{prefix}{verb}" for prefix in ("", "back-") for verb in verbs)


class _Killer:
    """Kills this process when it passes its point, once; later processes pass it."""

    def __init__(self, point: str, folder: Path) -> None:
        self._point = point
        self._mark = folder / "killed"

    def passes(self, point: str) -> None:
        """Die here, if this is the point."""
        if point == self._point and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, folder: str) -> None:
    """Let this process die at *point*. Called before anything of the product is imported."""
    killer = _Killer(point, Path(folder))
    _arm_steps(killer)
    _arm_commits(killer)
    _arm_operations(killer)


def _arm_steps(killer: _Killer) -> None:
    from tasks import policy

    original = policy.step

    def step(patience: Any, title: str) -> Callable[[Any], Any]:
        def wrap(function: Any) -> Any:
            @functools.wraps(function)
            async def begun(*args: Any, **kwargs: Any) -> Any:
                killer.passes(f"step {function.__module__}.{function.__name__}")
                return await function(*args, **kwargs)

            return original(patience, title)(begun)

        return wrap

    policy.step = step  # type: ignore[assignment]


def _arm_commits(killer: _Killer) -> None:
    from sqlalchemy import event
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
    from sqlalchemy.engine import Engine

    names = {
        query.text: f"{module}.{name}"
        for file in (ROOT / "handlers").rglob("*.sql")
        if "migrations" not in file.parts
        for module in [".".join(file.relative_to(ROOT).with_suffix("").parts)]
        for name, query in queries(module).items()
    }

    @event.listens_for(Engine, "before_execute")
    def note(connection: Any, clause: Any, multiparams: Any, params: Any, execution_options: Any) -> None:
        name = names.get(getattr(clause, "text", ""))
        if name is not None:
            values = [value for value in (*multiparams, params) if isinstance(value, dict)]
            connection.info.setdefault("points", []).extend(
                f"{name}{_detail(name, one)}" for one in values or [{}]
            )

    commit = PGDialect_asyncpg.do_commit

    def do_commit(self: Any, connection: Any) -> None:
        written = connection.info.pop("points", [])
        for name in written:
            killer.passes(f"before commit {name}")
        commit(self, connection)
        for name in written:
            killer.passes(f"after commit {name}")

    PGDialect_asyncpg.do_commit = do_commit  # type: ignore[method-assign]


def _detail(query: str, values: dict[str, Any]) -> str:
    name = query.rpartition(".")[2]
    if name in _BY_PHASE:
        return f"[{values.get('to') or values.get('phase')}]"
    if name == "intend":
        return f"[{values['kind']}]"
    if name == "confirm":
        # The id is RELEASE-KIND-HOST-ATTEMPT; the longest kind that is in it.
        found = [kind for kind in kinds() if f"-{kind}-" in values["id"]]
        return f"[{max(found, key=len)}]" if found else ""
    return ""


def _arm_operations(killer: _Killer) -> None:
    from handlers.host import step

    original = step.run_operation

    async def run_operation(shell: Any, operation_id: str, *args: Any, **kwargs: Any) -> Any:
        kind = max((kind for kind in kinds() if f"-{kind}-" in operation_id), key=len)
        killer.passes(f"before operation {kind}")
        # The host answers after some tenths of a second; by then the operation has been sent and runs.
        running = asyncio.get_running_loop().call_later(0.08, killer.passes, f"during operation {kind}")
        try:
            return await original(shell, operation_id, *args, **kwargs)
        finally:
            running.cancel()
            killer.passes(f"after operation {kind}")

    step.run_operation = run_operation  # type: ignore[assignment]
