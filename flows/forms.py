"""The forms of the Prefect page: what may be entered, and the deployments whose environment cannot be changed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from prefect.flows import Flow
from pydantic import Field

from handlers.environment.load import names

_NAME = r"^[a-z0-9][a-z0-9._-]*$"


def _known() -> dict[str, Any]:
    """The choices of a form: the environment files at the time of the deploy. Without one, any name may be entered."""
    found = names()
    return {"enum": found} if found else {}


EnvironmentName = Annotated[str, Field(pattern=_NAME, json_schema_extra=_known())]
Revision = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f-][^\x00-\x1f]*$")]
ReleaseId = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}\.\d{1,6}$")]
Person = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")]
Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")]
OptionalReason = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f]*$")]


def fixed(of: Flow[..., Any], environment: str) -> Flow[..., Any]:
    """The same flow for one environment only: its form shows it as the only choice, and the server refuses another."""
    only = Annotated[str, Field(pattern=f"^{environment}$", json_schema_extra={"enum": [environment]})]
    signature = inspect.signature(of.fn, eval_str=True)
    parameters = [
        each.replace(annotation=only) if each.name == "environment" else each
        for each in signature.parameters.values()
    ]
    run = _same(of.fn)
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters} | {
        "return": signature.return_annotation
    }
    return Flow(run, name=of.name, flow_run_name=of.flow_run_name)


def _same(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def run(*args: Any, **kwargs: Any) -> Any:
        return await original(*args, **kwargs)

    return run
