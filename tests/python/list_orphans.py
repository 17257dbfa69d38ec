"""The orphans of workspaces by experimaestro, as one line of JSON.

Usage: list_orphans.py WORKSPACE...
Needs: pip install experimaestro==2.7.0

For each workspace the orphans with and without regard to folders, sorted; or the name of an exception.
"""

import json
import sys
from pathlib import Path

from experimaestro.scheduler.workspace_state_provider import WorkspaceStateProvider


def orphans(path, include_folders):
    try:
        provider = WorkspaceStateProvider.get_instance(path, no_cleanup=True)
        found = provider.get_orphan_jobs(include_folders=include_folders)
    except Exception as error:
        return type(error).__name__
    return sorted(f"{job.task_id}/{job.identifier}" for job in found)


def main():
    found = {
        path: {
            "with_folders": orphans(Path(path), True),
            "no_folders": orphans(Path(path), False),
        }
        for path in sys.argv[1:]
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
