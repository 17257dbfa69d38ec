"""The workspaces that are archived, in experimaestro's layout.

A small job has ten files in three directories: `params.json`, `<name>.py`, `.out`, `.err`, `.lock`, `.done`, `results.json`,
`model.bin`, and below `.experimaestro` its `status.json` and `events/event-0.jsonl`. In one of four, the model has 100 kB. All
follows from the job's number; only the large file is random.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tree import digest, task

TASKS = 4
"""A plan has few tasks, and many jobs of each."""
LONG_AGO = 1_700_000_000
"""When the jobs ended."""


@dataclass(frozen=True)
class Workspace:
    """A primary, and an empty folder to copy its jobs to."""

    name: str
    title: str
    root: Path
    count: int
    """How many jobs there are."""

    primary = property(lambda self: self.root / "primary")
    folder = property(lambda self: self.root / "folder")
    settings = property(lambda self: self.root / "settings.yaml")

    def archived(self) -> int:
        """How many jobs the folder has."""
        return sum(1 for _ in self.folder.glob("jobs/*/*/*.done"))

    def named(self) -> int:
        """How many jobs have their name in the folder. Asks little of the disk."""
        tasks = self.folder.glob("jobs/*")
        return sum(not name.startswith(".") for task in tasks for name in os.listdir(task))

    def clear(self) -> None:
        """Makes the folder empty, and what was remembered of it forgotten."""
        for path in (self.folder, self.primary / ".xpmfs"):
            if path.exists():
                shutil.rmtree(path)
        self.folder.mkdir()


def many(root: Path, jobs: int) -> Workspace:
    """A workspace of small jobs."""
    workspace = _workspace("jobs", f"{jobs:,} small jobs", root, jobs)
    for number in range(jobs):
        job = f"{workspace.primary}/jobs/{task(number % TASKS)}/{digest(number)}"
        _small(job, f"task{number % TASKS}", workspace.primary, number)
    return workspace


def one(root: Path, size: int) -> Workspace:
    """A workspace of one job, with a file of so many bytes."""
    workspace = _workspace("large", f"one job of {size >> 20:,} MiB", root, 1)
    job = f"{workspace.primary}/jobs/{task(0)}/{digest(0)}"
    _small(job, "task0", workspace.primary, 0)
    with open(f"{job}/large.bin", "wb") as file:
        for _ in range(size >> 20):
            # No disk can compress it.
            file.write(os.urandom(1 << 20))
    return workspace


def _workspace(name: str, title: str, root: Path, count: int) -> Workspace:
    workspace = Workspace(name, title, root, count)
    (workspace.primary / "jobs").mkdir(parents=True)
    (workspace.primary / ".__experimaestro__").touch()
    workspace.folder.mkdir()
    folder = f"      - {{path: {workspace.folder}, mode: backup}}\n"
    workspace.settings.write_text(f"workspaces:\n  - id: bench\n    path: {workspace.primary}\n    folders:\n{folder}")
    return workspace


def _small(job: str, name: str, primary: Path, number: int) -> None:
    os.makedirs(f"{job}/.experimaestro/events")
    random = os.urandom(100_000)
    status = {"state": "done", "started_time": LONG_AGO, "ended_time": LONG_AGO + number, "progress": [1.0] * 20}
    event = json.dumps({"event": "progress", "level": 0, "progress": 0.5}) + "\n"
    parameters = {"workspace": str(primary), "version": 3, "objects": [{"id": n, "value": number} for n in range(60)]}
    contents = {
        "params.json": json.dumps(parameters).encode(),
        f"{name}.py": b"# runs the task\n" * 80,
        f"{name}.out": b"epoch 1, loss 0.123456, 12.3 s\n" * (100 + number % 400),
        f"{name}.err": b"a warning of some library\n" * (number % 50),
        f"{name}.lock": b"",
        "results.json": json.dumps({"loss": 1 / (number + 1)}).encode(),
        "model.bin": random if number % 4 == 0 else random[:5000],
        ".experimaestro/status.json": json.dumps(status).encode(),
        ".experimaestro/events/event-0.jsonl": event.encode() * (number % 60),
        f"{name}.done": b"",
    }
    for path, content in contents.items():
        with open(f"{job}/{path}", "wb") as file:
            file.write(content)
