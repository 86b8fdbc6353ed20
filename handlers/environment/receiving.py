"""The keys of an environment file about the receiver of the webhooks, for test webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from handlers.environment.references import Secret
from handlers.environment.section import Section, is_a_web_address


class Receiving(Section):
    """Where the source sends its webhooks: `runbook send-test-webhook` sends one of a product there."""

    product_url: Annotated[str, AfterValidator(is_a_web_address)]
    """The address for products, whole, as the source's webhook rule has it."""
    secret: Secret | None = None
    """The secret of the signature; without it the call is not signed."""
    answer_seconds: Annotated[float, Field(gt=0, le=60)] = 10
    """The source itself gives up after five or ten."""
