"""The figures to reach, and the results as a table for a terminal, as a page, and as JSON."""

import json
from dataclasses import dataclass
from typing import Optional

import tables
from results import Result, Results

from beside import WAYS
from copiers import Copier

MEMORY = 64
"""MB that archiving may have resident."""


@dataclass(frozen=True)
class Target:
    """A limit on a ratio of medians, or on a median by itself."""

    result: str
    demand: str
    limit: float
    one: str = "xpmfs"
    other: Optional[str] = None
    """What it is divided by."""

    def measured(self, results: Results) -> Optional[float]:
        """Nothing if it was not measured."""
        result = results.get(self.result)
        if result is None:
            return None
        return result.ratio(self.one, self.other) if self.other else result.median(self.one)


TARGETS = (
    *(Target(name, "at most cp -a and sync", 1, other="cp") for name in ("jobs", "large")),
    Target("jobs", "an eighth of experimaestro's", 1 / 8, other="experimaestro"),
    *(Target(name, "ahead of rsync -a and sync", 1, other="rsync") for name in ("jobs", "large")),
    *(Target(f"{name}-memory", f"less than {MEMORY} MB", MEMORY) for name in ("jobs", "large")),
    *(
        Target(f"{step}-beside-{name}", "at most 1.25 of alone", 1.25, one="daemon", other="alone")
        for name in ("jobs", "large")
        for step in ("read", "create")
    ),
)


class Outcome:
    """All that was found out in a run."""

    def __init__(self, machine: dict[str, str], settings: dict[str, object], copiers: list[Copier]):
        self.machine = machine
        self.settings = settings
        self.copiers = copiers
        self.results = Results()
        self.stopped = False
        """Whether it ended before everything was measured."""

    def text(self) -> str:
        """All tables."""
        parts = [tables.aligned(table) for table in (self._copies(), self._beside(), self._targets()) if len(table) > 1]
        parts += [f"not measured: {error}" for error in self.results.errors] + self._warnings()
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """A page."""
        lines = ["# Results of the benchmark of archiving", ""]
        lines += ["Made by `scripts/bench archive`; [how it is run and read](benchmark-archive.md).", ""]
        for warning in self._warnings():
            lines += [f"**{warning}**", ""]
        lines += ["## The machine", "", "| | |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in {**self.machine, **self.settings}.items()]
        for title, table in (
            ("Targets", self._targets()),
            ("Medians, ratios to cp + sync, and the fastest round", self._copies()),
            ("Medians beside archiving, and ratios to alone", self._beside()),
        ):
            if len(table) > 1:
                lines += ["", f"## {title}", "", *tables.markdown(table)]
        if self.results.errors:
            lines += ["", "Not measured:", "", *(f"- {error}" for error in self.results.errors)]
        lines += ["", "## What was compared", ""]
        lines += [f"- **{copier.title}**: {copier.about}" for copier in self.copiers]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """Everything, with each round's sample."""
        everything = {
            "machine": self.machine,
            "settings": self.settings,
            "stopped": self.stopped,
            "systems": {copier.name: {"title": copier.title, "about": copier.about} for copier in self.copiers},
            "results": {name: _result(result) for name, result in self.results.items()},
            "targets": [
                {"result": t.result, "demand": t.demand, "limit": t.limit, "measured": measured, "reached": reached}
                for t, measured, reached in self._verdicts()
            ],
        }
        return json.dumps(everything, indent=2) + "\n"

    def _warnings(self) -> list[str]:
        warnings = []
        if self.settings["quick"]:
            warnings.append("A quick run shows that the benchmark works. Its figures mean nothing.")
        if self.stopped:
            warnings.append("It was stopped before everything was measured.")
        return warnings

    def _verdicts(self) -> list[tuple[Target, Optional[float], Optional[bool]]]:
        measured = [(target, target.measured(self.results)) for target in TARGETS]
        return [(target, value, None if value is None else value <= target.limit) for target, value in measured]

    def _copies(self) -> list[list[str]]:
        rows = [["", *(copier.title for copier in self.copiers)]]
        for name, result in self.results.items():
            if "-beside-" not in name:
                rows.append([result.title, *(_cell(result, copier.name, "cp") for copier in self.copiers)])
        return rows

    def _beside(self) -> list[list[str]]:
        rows = [["", *WAYS.values()]]
        for name, result in self.results.items():
            if "-beside-" in name:
                rows.append([result.title, *(_cell(result, way, "alone") for way in WAYS)])
        return rows

    def _targets(self) -> list[list[str]]:
        words = {True: "pass", False: "FAIL", None: "not measured"}
        rows = [["target for xpmfs", "demand", "measured", ""]]
        for target, measured, reached in self._verdicts():
            result = self.results.get(target.result)
            title = result.title if result else target.result
            rows.append([title, target.demand, "" if measured is None else f"{measured:.2f}", words[reached]])
        return rows


def _cell(result: Result, system: str, reference: str) -> str:
    if system not in result.systems:
        return ""
    median = result.median(system)
    if median is None:
        return "failed"
    if result.unit != "s":
        return f"{median:.0f} {result.unit}"
    ratio = result.ratio(system, reference) if system != reference else None
    least = min(result.systems[system].values)
    digits = 3 if median < 1 else 2
    return f"{median:.{digits}f}" + (f" ({ratio:.2f})" if ratio is not None else "") + f", {least:.{digits}f}"


def _result(result: Result) -> dict:
    systems = {
        name: {"median": samples.median, "samples": samples.values, "error": samples.error}
        for name, samples in result.systems.items()
    }
    return {"title": result.title, "unit": result.unit, "systems": systems}
