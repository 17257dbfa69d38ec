"""Copies and lists experiments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._command import CommandError, run
from ._workspaces import Workspace, arguments


@dataclass
class CopyResult:
    """Result of a :func:`copy_experiment` operation."""

    jobs_copied: int = 0
    """Jobs that were copied; with ``dry_run``, those that would be."""
    jobs_skipped: int = 0
    """Jobs that the destination has."""
    errors: list[str] = field(default_factory=list)
    """What could not be copied, and why."""


def copy_experiment(
    src_workspace: Workspace,
    dst_workspace: Workspace,
    experiment_id: str,
    run_id: str,
    dry_run: bool = False,
) -> CopyResult:
    """Copies a run of an experiment, and its jobs, from one workspace to another.

    Each job is copied to ``.xpm-staging/`` at the destination, compared, made durable and renamed. A job that fails is an error in the
    result, and the others are copied. A job that the source has lost comes from its folders.

    Args:
        src_workspace: The workspace to copy from.
        dst_workspace: The workspace to copy to. One of the two may be on another machine.
        experiment_id: The experiment.
        run_id: The run (not ``"current"``: see :func:`resolve_current_run`).
        dry_run: Whether only to find out what would be copied.

    Returns:
        How many jobs were copied and skipped, and what failed.

    Raises:
        CommandError: nothing could be copied: a workspace is unknown or cannot be opened, or does not have the run.
    """
    with arguments(from_workspace=src_workspace, to_workspace=dst_workspace) as options:
        settings = [option for option in options if option.startswith("--settings=")]
        ends = [option for option in options if option not in settings]
        yes = [] if dry_run else ["--yes"]
        copied = run(
            [*settings, "experiments", "copy", "--json", *yes, *ends, "--", experiment_id, run_id]
        )
    return CopyResult(
        jobs_copied=copied["jobs_copied"],
        jobs_skipped=copied["jobs_skipped"],
        errors=copied["errors"],
    )


def list_experiments(ws: Workspace) -> list[str]:
    """Lists the ids of the experiments of a workspace, sorted; also those of which only a ``backup`` folder has runs."""
    return [found["experiment"] for found in _experiments(ws)]


def list_runs(ws: Workspace, experiment_id: str) -> list[str]:
    """Lists the ids of the runs of an experiment, oldest first; also those that only a ``backup`` folder has."""
    try:
        listed = _listed(ws, "runs", experiment_id)
    except CommandError:
        # An experiment that does not exist has no runs.
        if experiment_id in list_experiments(ws):
            raise
        return []
    return [found["run"] for found in listed]


def resolve_current_run(ws: Workspace, experiment_id: str) -> str | None:
    """The run that ``current`` of an experiment names; ``None`` if there is no ``current``."""
    for found in _experiments(ws):
        if found["experiment"] == experiment_id:
            current: str | None = found["current"]
            return current
    return None


def format_run_id(run_id: str) -> str:
    """Writes a run id like ``20260118_170744`` as ``2026-01-18 17:07:44``; any other text stays as it is."""
    date, underscore, time = run_id[:8], run_id[8:9], run_id[9:]
    if len(run_id) != 15 or underscore != "_":
        return run_id
    return f"{date[:4]}-{date[4:6]}-{date[6:]} {time[:2]}:{time[2:4]}:{time[4:]}"


def _experiments(ws: Workspace) -> list[dict[str, Any]]:
    return [found for found in _listed(ws, "list") if found["layout"] == "v2"]


def _listed(ws: Workspace, command: str, *ids: str) -> list[dict[str, Any]]:
    with arguments(workspace=ws) as options:
        settings = [option for option in options if option.startswith("--settings=")]
        ends = [option for option in options if option not in settings]
        found: list[dict[str, Any]] = run(
            [*settings, "experiments", command, "--json", *ends, *(["--", *ids] if ids else [])]
        )
        return found
