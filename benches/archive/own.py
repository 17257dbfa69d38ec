"""Archives all jobs of a workspace with experimaestro's own archiver, and prints the seconds that it took.

Run in a Python that has experimaestro: `own.py PRIMARY FOLDER`. It calls what the archiver's thread calls for each job.
"""

import sys
import time
from pathlib import Path

from experimaestro.scheduler import folders
from experimaestro.settings import FolderMode, FolderSettings


def main() -> None:
    """Copies job after job."""
    primary, target = (Path(argument) for argument in sys.argv[1:])
    folder = FolderSettings(path=target, mode=FolderMode.BACKUP)
    begun = time.monotonic()
    for job in (primary / "jobs").glob("*/*"):
        name = job.parent.name.rpartition(".")[2]
        reduced = folders._Job(src=job, rel=job.relative_to(primary / "jobs"), name=name)
        if folders._archive_job(reduced, folder) is None:
            sys.exit(f"{job} was not archived")
    print(time.monotonic() - begun)


if __name__ == "__main__":
    main()
