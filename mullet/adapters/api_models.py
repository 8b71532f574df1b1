"""What the HTTP API takes: orders of an operator, each strict and with its unit in the name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mullet.domain.facility import Mode
from mullet.domain.snapshot import HoldKind

Owner = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Target = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Order(BaseModel):
    """An order; unknown fields are refused, so that a misspelt one never goes unnoticed."""

    model_config = ConfigDict(extra="forbid")

    owner: Owner = Field(description="who orders it; only the same owner releases a hold")


class HoldOrder(Order):
    """Lock a load or circuit."""

    target: Target = Field(description="load id or circuit id")
    kind: HoldKind = Field(description="on: stays as it is; off: nothing may energise it")
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = ""


class ModeOrder(Order):
    """Set how far the daemon may go."""

    mode: Mode


class ShedOrder(Order):
    """Drop mining now."""

    watts: float = Field(gt=0.0, allow_inf_nan=False, description="least power to drop, in W")
    circuit: Target | None = Field(default=None, description="circuit to relieve; the facility's root if left out")


class RestoreOrder(Order):
    """Put remembered defaults back on a load."""

    target: Target = Field(description="load id")
