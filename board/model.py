"""What every model of the board's JSON has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What every model has in common."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True, extra="ignore")
