"""The step that measures whether an environment is well now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from handlers.environment.redact import known_secrets, redact
from handlers.report.gather import gather_place, texts
from handlers.report.verdict import Answer
from tasks.policy import SHORT_RUN, step
from tasks.tools import tools

SINCE_SECONDS = 86_400.0
"""How far the report looks back."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was measured."""

    answer: Answer
    sentence: str
    markdown: str


@step(SHORT_RUN, "Measure every check of {environment}")
async def measure(environment: str) -> Seen:
    """Measure every check, as `runbook verify` does."""
    async with tools(environment) as core:
        report = redact(await gather_place(core, seconds=SINCE_SECONDS), known_secrets(core.environment))
    verification = report["verification"]
    return Seen(
        answer=Answer(verification["answer"]),
        sentence=verification["sentence"],
        markdown=(await asyncio.to_thread(texts, report))["md"],
    )
