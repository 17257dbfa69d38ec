"""Makes workspaces in experimaestro's layout, to be measured on.

A finished job has ten entries: its directory, `params.json`, `<name>.py`, `.out`, `.err`, `.lock`, `.done`,
`model.bin`, and `.experimaestro/status.json` with its directory. Everything follows from the job's number, so that two
runs make the same tree; only the large file is random.

Jobs of the `move` folder have no symlink in the primary here, as experimaestro would make: the file systems that merge
directories would show the symlink in place of the job, and have less to do than the others.
"""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

NOBODY = 65534
TASKS = 10
ENTRIES = 10
SCRATCH = f"jobs/my.module.scratch/{'5c' * 32}"
SMALL = f"jobs/my.module.small/{'50' * 32}/files"
LARGE = f"jobs/my.module.large/{'1a' * 32}/large.bin"
FOLDERS = ("use", "backup", "move")


@dataclass(frozen=True)
class Tree:
    """A workspace on the disk: its primary, and its folders by mode, all below `root`."""

    root: Path
    primary: Path
    folders: dict[str, Path] = field(default_factory=dict)
    owner: Optional[int] = None
    """The ordinary user who it belongs to, and who mounts it and works on it; root, if nothing."""

    @property
    def locations(self) -> list[Path]:
        """Where jobs are, in the order in which they are looked for."""
        return [self.primary, *self.folders.values()]

    @property
    def scratch(self) -> Path:
        """A job in the making, to write in."""
        return self.primary / SCRATCH


def task(number: int) -> str:
    """The id of a task."""
    return f"my.module.task{number}"


def digest(number: int) -> str:
    """The hash of a job."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def workspace(root: Path, jobs: int, folders: bool, whole: bool = True) -> Tree:
    """Makes a workspace of finished jobs in `TASKS` tasks, all in the primary or spread over it and three folders.

    Without `whole`, a job is its directory and its marker alone: enough to be counted, and cheap to make a million of.
    """
    attached = {mode: root / mode for mode in FOLDERS} if folders else {}
    tree = Tree(root, root / "primary", attached)
    for location in tree.locations:
        for number in range(TASKS):
            (location / "jobs" / task(number)).mkdir(parents=True)
    (tree.primary / ".__experimaestro__").touch()
    make = _whole_job if whole else _marker
    for number in range(jobs):
        location = tree.locations[number // TASKS % len(tree.locations)]
        job = f"{location}/jobs/{task(number % TASKS)}/{digest(number)}"
        make(job, f"task{number % TASKS}", tree.primary, number)
    return tree


def data(root: Path, small_files: int, large: int, other: Optional[Tree] = None) -> Tree:
    """Makes a workspace of two jobs: one with files of 4 KiB in the directory `SMALL`, one with the file `LARGE`.

    The large file is a hard link to that of `other`, if that is given: it is only read.
    """
    tree = Tree(root, root / "primary")
    small = tree.primary / SMALL
    small.mkdir(parents=True)
    for number in range(small_files):
        _write(f"{small}/{number:06}", _block(number))
    path = tree.primary / LARGE
    path.parent.mkdir(parents=True)
    if other:
        os.link(other.primary / LARGE, path)
        return tree
    with open(path, "wb") as file:
        for _ in range(large >> 20):
            # No disk can compress it.
            file.write(os.urandom(1 << 20))
    return tree


def ordinary_user(tree: Tree) -> Tree:
    """The tree as an ordinary user's own."""
    subprocess.run(["chown", "--recursive", f"{NOBODY}:{NOBODY}", str(tree.root)], check=True)
    return replace(tree, owner=NOBODY)


def _whole_job(job: str, name: str, primary: Path, number: int) -> None:
    os.mkdir(job)
    os.mkdir(f"{job}/.experimaestro")
    _write(f"{job}/.experimaestro/status.json", b'{"state": "done"}')
    parameters = {"workspace": str(primary), "version": 3, "objects": []}
    _write(f"{job}/params.json", json.dumps(parameters).encode())
    _write(f"{job}/{name}.py", b"# runs the task\n" * 20)
    _write(f"{job}/{name}.out", b"a step\n" * 40)
    _write(f"{job}/model.bin", _block(number))
    for suffix in ("err", "lock", "done"):
        _write(f"{job}/{name}.{suffix}", b"")


def _marker(job: str, name: str, _primary: Path, _number: int) -> None:
    os.mkdir(job)
    _write(f"{job}/{name}.done", b"")


def _block(number: int) -> bytes:
    return hashlib.shake_128(b"%d" % number).digest(4096)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
