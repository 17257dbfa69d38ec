"""What the functions of experimaestro's `copy_experiment` that look at workspaces return, as one line of JSON.

Usage: copy_functions.py WORKSPACE [RUN_ID]...
Needs: pip install experimaestro==2.7.0

Ids are written in hexadecimal, as they need not be UTF-8. A function that fails has the name of its exception.
"""

import json
import os
import sys
from pathlib import Path

from experimaestro.copy_experiment import (
    format_run_id,
    list_experiments,
    list_runs,
    resolve_current_run,
)
from experimaestro.scheduler.workspace_state_provider import WorkspaceStateProvider
from experimaestro.settings import WorkspaceSettings


def encoded(name):
    return name and os.fsencode(name).hex()


def tried(function, *arguments):
    try:
        result = function(*arguments)
    except Exception as error:
        return type(error).__name__
    if isinstance(result, list):
        return [encoded(name) for name in result]
    return encoded(result)


def main():
    workspace = WorkspaceSettings(id="test", path=Path(sys.argv[1]))
    provider = WorkspaceStateProvider.get_instance(workspace.path, no_cleanup=True)
    v2, v1 = provider._get_known_experiment_ids()
    experiments = {
        encoded(id): {
            "runs": tried(list_runs, workspace, id),
            "current": tried(resolve_current_run, workspace, id),
        }
        for id in v2 | v1
    }
    print(
        json.dumps(
            {
                "listed": tried(list_experiments, workspace),
                "old": sorted(encoded(id) for id in v1),
                "experiments": experiments,
                "formatted": [format_run_id(id) for id in sys.argv[2:]],
            }
        )
    )


if __name__ == "__main__":
    main()
