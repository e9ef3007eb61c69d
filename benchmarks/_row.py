"""One line of the result."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured, in which unit, and the aim: a value not to exceed, or (with `at_least`) to reach."""

    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def shown(self) -> str:
        """The value for a person."""
        return f"{self.value:,.3g} {self.unit}" if self.value < 1000 else f"{self.value:,.0f} {self.unit}"

    @property
    def aim(self) -> str:
        """The aim for a person."""
        return "-" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"

    def as_json(self) -> dict[str, object]:
        """For the record."""
        return {"what": self.what, "value": self.value, "unit": self.unit, "limit": self.limit, "met": self.met}
