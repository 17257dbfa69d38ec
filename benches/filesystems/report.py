"""The results as a table for a terminal, as a page, and as JSON."""

import json
from typing import Optional

import tables
from results import Result, Results
from systems import BOUND, System
from targets import RIVALS, Verdict, compared, is_behind

NOISE = 0.2
"""From which spread of the disk's own rounds on a row is not to be trusted."""


class Report:
    """All that was found out in a run."""

    def __init__(
        self, machine: dict[str, str], settings: dict[str, object], systems: list[System], left_out: list[str]
    ):
        self.left_out = left_out
        """Which file systems could not be had, and why."""
        self.machine = machine
        self.settings = settings
        self.systems = systems
        self.versions = {system.name: system.installed_version() for system in systems}
        self.results = Results()
        self.verdicts: list[Verdict] = []
        self.stopped = False
        """Whether it ended before everything was measured."""

    def text(self) -> str:
        """All tables."""
        parts = [tables.aligned(self._table()), "", tables.aligned(self._targets())]
        parts += ["", tables.aligned(self._behind())] if self._rivals() else []
        parts += ["", *(f"not measured: {error}" for error in self.results.errors)] if self.results.errors else []
        parts += ["", *self._warnings()] if self._warnings() else []
        return "\n".join(parts)

    def markdown(self) -> str:
        """A page."""
        lines = ["# Results of the benchmark", ""]
        lines += ["Made by `scripts/bench`; [how it is run and read](benchmark.md).", ""]
        for warning in self._warnings():
            lines += [f"**{warning}**", ""]
        lines += ["## The machine", "", "| | |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in {**self.machine, **self.settings}.items()]
        lines += ["", "## Targets", "", *tables.markdown(self._targets())]
        if self._rivals():
            lines += ["", "## Where xpmfs is behind", "", *tables.markdown(self._behind())]
        lines += ["", "## Medians, and ratios to the disk", "", *tables.markdown(self._table())]
        if self.results.errors:
            lines += ["", "Not measured:", "", *(f"- {error}" for error in self.results.errors)]
        lines += ["", "## How each is set up", ""]
        lines += [f"- **{system.title}** {self.versions[system.name]}: {system.about}" for system in self.systems]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """Everything, with each round's sample."""
        everything = {
            "machine": self.machine,
            "settings": self.settings,
            "stopped": self.stopped,
            "left_out": self.left_out,
            "systems": {s.name: {"version": self.versions[s.name], "about": s.about} for s in self.systems},
            "results": {name: _result(result) for name, result in self.results.items()},
            "targets": [
                {name: getattr(verdict, name) for name in ("title", "demand", "measured", "reached")}
                for verdict in self.verdicts
            ],
        }
        return json.dumps(everything, indent=2) + "\n"

    def _warnings(self) -> list[str]:
        warnings = list(self.left_out)
        if self.settings["quick"]:
            warnings.append("A quick run shows that the benchmark works. Its figures mean nothing.")
        if self.stopped:
            warnings.append("It was stopped before everything was measured.")
        return warnings

    def _table(self) -> list[list[str]]:
        names = [system.name for system in self.systems]
        floor = {"xpmfs", BOUND} <= set(names)
        rows = [["workload", *names, *(["xpmfs / bound", "xpmfs / (bound + disk)"] if floor else []), "disk's spread"]]
        for result in self.results.values():
            cells = [_cell(result, name) for name in names]
            cells += [_ratio(result, "xpmfs", BOUND) or "-", _shown(result.over_floor()) or "-"] if floor else []
            rows.append([result.title, *cells, _spread(result)])
        return rows

    def _targets(self) -> list[list[str]]:
        rows = [["target for xpmfs", "demand", "measured", ""]]
        rows += [[verdict.title, verdict.demand, verdict.shown, verdict.word] for verdict in self.verdicts]
        return rows

    def _rivals(self) -> list[str]:
        """The file systems that xpmfs was compared with."""
        return [rival for rival in RIVALS if compared(self.results, rival)]

    def _behind(self) -> list[list[str]]:
        """The rows in which xpmfs is behind any of them: by how much, and which one."""
        rivals = self._rivals()
        rows = [["time of xpmfs, divided by that of", *rivals]]
        for result in self.results.values():
            cells = [_ratio(result, "xpmfs", rival) if is_behind(result, rival) else "" for rival in rivals]
            rows += [[result.title, *cells]] if any(cells) else []
        return rows if len(rows) > 1 else [*rows, ["behind in no row", *("" for _ in rivals)]]


def _cell(result: Result, system: str) -> str:
    if system not in result.systems:
        return "-"
    median = result.median(system)
    if median is None:
        return "failed"
    ratio = _ratio(result, system, "disk") if system != "disk" else ""
    return _figure(median, result.unit) + (f" ({ratio})" if ratio else "")


def _ratio(result: Result, system: str, to: str) -> str:
    """Nothing if one of them was not measured."""
    return _shown(result.ratio(system, to))


def _shown(ratio: Optional[float]) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _figure(value: float, unit: str) -> str:
    """Three digits, at least."""
    if unit != "s":
        return f"{value:.0f} {unit}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _spread(result: Result) -> str:
    spread: Optional[float] = result.systems["disk"].spread if "disk" in result.systems else None
    if spread is None:
        return ""
    return f"{spread:.0%}" + (" noisy" if spread > NOISE else "")


def _result(result: Result) -> dict:
    systems = {
        name: {
            "median": samples.median,
            "ratio": result.ratio(name, "disk"),
            "samples": samples.values,
            "count": result.counts.get(name),
            "error": samples.error,
        }
        for name, samples in result.systems.items()
    }
    return {"title": result.title, "unit": result.unit, "systems": systems}
