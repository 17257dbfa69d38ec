"""Copies experiments between experimaestro workspaces, here and on other machines, and lists them.

The functions have the names, arguments and results of ``experimaestro.copy_experiment``, and call the command ``xpmfs``, which the same
package installs:

    from xpmfs import copy_experiment

    result = copy_experiment("cluster", "local", "my_experiment", "20260121_105710")
    print(f"Copied {result.jobs_copied} jobs, skipped {result.jobs_skipped}")

A workspace is its id in experimaestro's settings, or an object with ``id``, ``path`` and, for another machine, ``ssh``, as
``experimaestro.settings.get_workspace`` returns it.
"""

from ._command import CommandError, find_command
from ._copy import (
    CopyResult,
    copy_experiment,
    format_run_id,
    list_experiments,
    list_runs,
    resolve_current_run,
)
from ._workspaces import Workspace, WorkspaceLike

__all__ = [
    "CommandError",
    "CopyResult",
    "Workspace",
    "WorkspaceLike",
    "copy_experiment",
    "find_command",
    "format_run_id",
    "list_experiments",
    "list_runs",
    "resolve_current_run",
]
