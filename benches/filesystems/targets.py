"""The figures to reach, and whether they are."""

from dataclasses import dataclass
from typing import Optional

from results import Results


@dataclass(frozen=True)
class Target:
    """A limit on what xpmfs may take, by itself or compared with another file system in the same run."""

    result: str
    limit: float
    against: Optional[str] = None
    """The file system that it is divided by."""
    less: Optional[str] = None
    """The result that is taken away from it."""
    title: str = ""
    """What it is called as long as it is not measured."""

    @property
    def demand(self) -> str:
        """What is asked for, in words."""
        if self.less:
            return f"less than {self.limit:g} s more than with few jobs"
        if self.against is None:
            return f"less than {self.limit:g} MB"
        if self.limit == 1:
            return f"ahead of {self.against}"
        return f"at most {self.limit:.2f} of {self.against}"


@dataclass(frozen=True)
class Verdict:
    """A target, and what was measured; nothing if it was not."""

    target: Target
    title: str
    measured: Optional[float]

    @property
    def reached(self) -> Optional[bool]:
        """Nothing if it was not measured."""
        if self.measured is None:
            return None
        strict = self.target.limit == 1 or self.target.against is None
        return self.measured < self.target.limit or (not strict and self.measured == self.target.limit)

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return {True: "pass", False: "FAIL", None: "not measured"}[self.reached]


TARGETS = (
    Target("read-hot", 1.1, "disk"),
    Target("read-cold", 1.1, "disk"),
    Target("write", 1.1, "disk"),
    Target("append", 1.1, "disk"),
    Target("walk-four-cold", 1 / 3, "mergerfs"),
    Target("walk-four-cold", 1.3, "disk"),
    Target("walk-four-warm", 1.5, "disk"),
    Target("walk-four-warm", 1, "overlayfs"),
    *(Target(step, 2, "disk") for step in ("create", "rename", "remove")),
    *(Target(step, 1, "mergerfs") for step in ("create", "rename", "remove")),
    Target("open-read-close", 2.5, "disk"),
    Target("user-read-hot", 1.2, "disk"),
    Target("memory", 250, title="resident memory (--million)"),
    Target("listing-many", 1, less="listing-few", title="mount to first listing, many jobs (--million)"),
)


def judge(results: Results) -> list[Verdict]:
    """Compares what was measured with every target."""
    return [_judge(target, results) for target in TARGETS]


def _judge(target: Target, results: Results) -> Verdict:
    result = results.get(target.result)
    if result is None:
        return Verdict(target, target.title or target.result, None)
    if target.less:
        other = results[target.less].median("xpmfs")
        own = result.median("xpmfs")
        more = own - other if own is not None and other is not None else None
        return Verdict(target, result.title, more)
    if target.against is None:
        return Verdict(target, result.title, result.median("xpmfs"))
    return Verdict(target, result.title, result.ratio("xpmfs", target.against))
