"""The figures to reach, and whether they are."""

from dataclasses import dataclass
from typing import Optional

from results import Result, Results

RIVALS = ("mergerfs", "fuse-overlayfs", "bindfs", "passthrough_hp")
"""The file systems in a process that xpmfs is to be ahead of in every row."""


@dataclass(frozen=True)
class Verdict:
    """A target, and what was measured; nothing if it was not."""

    title: str
    demand: str
    """What is asked for, in words."""
    measured: Optional[float]
    reached: Optional[bool]
    shown: str

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return {True: "pass", False: "FAIL", None: "not measured"}[self.reached]


@dataclass(frozen=True)
class Ahead:
    """Every row takes less time on xpmfs than on another file system."""

    rival: str

    def judge(self, results: Results) -> Verdict:
        """Counts the rows in which it does not."""
        rows = compared(results, self.rival)
        late = sum(is_behind(row, self.rival) for row in rows)
        measured, reached = (late, late == 0) if rows else (None, None)
        shown = f"behind in {late} of {len(rows)}" if rows else ""
        return Verdict("every row", f"ahead of {self.rival}", measured, reached, shown)


@dataclass(frozen=True)
class Limit:
    """A limit on what xpmfs may take, by itself or compared with another file system in the same run."""

    result: str
    limit: float
    against: Optional[str] = None
    """The file system that it is divided by."""
    less: Optional[str] = None
    """The result that is subtracted from it."""
    title: str = ""
    """What it is called as long as it is not measured."""

    def judge(self, results: Results) -> Verdict:
        """Compares it with what was measured."""
        result = results.get(self.result)
        measured = self._measure(result, results) if result else None
        title = result.title if result else self.title or self.result
        if measured is None:
            return Verdict(title, self._demand(), None, None, "")
        reached = measured <= self.limit if self.against else measured < self.limit
        return Verdict(title, self._demand(), measured, reached, f"{measured:.2f}")

    def _demand(self) -> str:
        if self.less:
            return f"less than {self.limit:g} s more than with few jobs"
        if self.against is None:
            return f"less than {self.limit:g} MB"
        return f"at most {self.limit:.2f} of {self.against}"

    def _measure(self, result: Result, results: Results) -> Optional[float]:
        if self.against:
            return result.ratio("xpmfs", self.against)
        own, other = result.median("xpmfs"), results[self.less].median("xpmfs") if self.less else 0
        return None if own is None or other is None else own - other


REQUESTS = ("create", "rename", "remove", "open-read-close")
"""The rows in which each step waits for a few requests, and for little else."""
TARGETS = (
    *(Ahead(rival) for rival in RIVALS),
    *(Limit(f"{user}{step}", 1.25, "bound") for user in ("", "user-") for step in REQUESTS),
    Limit("walk-four-cold", 1.5, "disk"),
    Limit("walk-four-cold", 1 / 4, "mergerfs"),
    Limit("walk-four-warm", 1.6, "disk"),
    Limit("tar", 1.6, "disk"),
    *(Limit(data, 1.1, "disk") for data in ("append", "write", "read-hot", "read-cold", "user-read-cold")),
    Limit("user-read-hot", 1.2, "disk"),
    Limit("memory", 200, title="resident memory (--million)"),
    Limit("listing-many", 1, less="listing-few", title="mount to first listing, many jobs (--million)"),
)


def judge(results: Results) -> list[Verdict]:
    """Compares what was measured with every target."""
    return [target.judge(results) for target in TARGETS]


def compared(results: Results, rival: str) -> list[Result]:
    """The rows of times that were measured on xpmfs and on another file system."""
    return [row for row in results.values() if _times(row, rival) is not None]


def is_behind(row: Result, rival: str) -> bool:
    """Whether xpmfs takes as long as another file system, or longer."""
    times = _times(row, rival)
    return times is not None and times >= 1


def _times(row: Result, rival: str) -> Optional[float]:
    """How many times as long xpmfs takes; nothing if that was not measured, or the row has no times."""
    return row.ratio("xpmfs", rival) if row.unit == "s" else None
