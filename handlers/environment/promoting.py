"""The keys of an environment file about promotion: which environment must have proven a commit before this one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from handlers.environment.people import People, RoleName
from handlers.environment.section import Section

MAX_AGE_HOURS = 24.0


class Promotion(Section):
    """What must have happened elsewhere before a release to this environment starts."""

    environment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """A release of the same commit must have succeeded there. Its file lies beside this one."""
    max_age_hours: Annotated[float, Field(gt=0, le=24 * 366)] = MAX_AGE_HOURS
    """So long after its end that release counts; a later watch by hand of the same commit renews it."""
    override_people: People = ()
    """Who may release without it, with a reason."""
    override_roles: tuple[RoleName, ...] = ()
    """The roles whose people may do so as well."""
