"""Archives or recovers every job of a workspace by experimaestro's own code, once, and says how many (of those archived, without those that the folder had).

Usage: archive_jobs.py archive|recover PRIMARY FOLDER backup|move
"""

import json
import sys
from pathlib import Path

from experimaestro.scheduler import folders
from experimaestro.settings import FolderMode, FolderSettings


def jobs(root):
    found = root.glob("jobs/*/*")
    return sorted(job.relative_to(root / "jobs") for job in found if not job.name.startswith("."))


def main(what, primary, folder, mode):
    primary, folder = Path(primary), Path(folder)
    settings = FolderSettings(path=folder, mode=FolderMode(mode))
    count = 0
    if what == "recover":
        for rel in jobs(folder):
            if folders.recover_from_folders(rel, primary / "jobs", [settings]) is not None:
                count += 1
    else:
        for rel in jobs(primary):
            src = primary / "jobs" / rel
            if src.is_symlink() or not src.exists():
                continue
            existed = (folder / "jobs" / rel).exists()
            name = rel.parts[0].rsplit(".", 1)[-1]
            if folders._archive_job(folders._Job(src=src, rel=rel, name=name), settings) is not None:
                count += not existed
    print(json.dumps({"count": count}))


main(*sys.argv[1:])
