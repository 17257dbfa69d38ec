"""What was measured: samples by result and file system."""

import statistics
from dataclasses import dataclass, field
from typing import Optional


@dataclass
class Samples:
    """One result on one file system, round by round."""

    values: list[float] = field(default_factory=list)
    error: Optional[str] = None
    """Why it could not be measured, the first time that it could not."""

    @property
    def median(self) -> Optional[float]:
        """Nothing if any round failed: what works at times is not measured by the times that it does."""
        return statistics.median(self.values) if self.values and not self.error else None

    @property
    def spread(self) -> Optional[float]:
        """How far the rounds lie apart, as a part of the median."""
        if not self.median or len(self.values) < 2:
            return None
        return (max(self.values) - min(self.values)) / self.median


@dataclass
class Result:
    """A row of the table."""

    name: str
    title: str
    unit: str = "s"
    changes: bool = False
    """Whether the disk changes names for each request."""
    systems: dict[str, Samples] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """What each file system was seen to have or do."""

    def of(self, system: str) -> Samples:
        """The samples of a file system, to be added to."""
        return self.systems.setdefault(system, Samples())

    def median(self, system: str) -> Optional[float]:
        """Nothing if it was not measured."""
        return self.systems[system].median if system in self.systems else None

    def ratio(self, system: str, to: str) -> Optional[float]:
        """The median of one file system by that of another."""
        one, other = self.median(system), self.median(to)
        return one / other if one is not None and other else None

    def over_floor(self) -> Optional[float]:
        """The median of xpmfs by what FUSE and the disk take together, where the disk changes names for each request."""
        own, floor, disk = (self.median(system) for system in ("xpmfs", "bound", "disk"))
        if not self.changes or own is None or floor is None or disk is None:
            return None
        return own / (floor + disk)

    def add(self, system: str, value: float, count: int, tolerance: float) -> None:
        """Adds a sample, if as much work was done for it as on the other file systems."""
        samples = self.of(system)
        expected = next(iter(self.counts.values()), count)
        self.counts.setdefault(system, count)
        if abs(count - expected) > tolerance * expected:
            samples.error = samples.error or f"did {count} where the first one did {expected}"
        samples.values.append(value)


class Results(dict[str, Result]):
    """All results by name, in the order of the table."""

    def row(self, name: str, title: str, unit: str = "s", changes: bool = False) -> Result:
        """A result, to be added to."""
        return self.setdefault(name, Result(name, title, unit, changes))

    def failed(self, system: str) -> bool:
        """Whether anything could not be measured on it."""
        return any(result.systems[system].error for result in self.values() if system in result.systems)

    @property
    def errors(self) -> list[str]:
        """What could not be measured, as sentences."""
        return [
            f"{result.title}: {system}: {samples.error}"
            for result in self.values()
            for system, samples in result.systems.items()
            if samples.error
        ]
