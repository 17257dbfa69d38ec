"""What copies finished jobs, and how each is called."""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import machine
from jobs import Workspace


@dataclass(frozen=True)
class Copier:
    """A way to copy all jobs of a workspace to its folder."""

    name: str
    title: str
    about: str
    command: Callable[[Workspace], list[str]]
    """The program, which replaces no shell: its memory is measured."""
    sync: bool = False
    """Whether it is followed by a wait for the disk."""


def every(program: Path, bare: Path, python: Path, wanted: list[str]) -> list[Copier]:
    """Those of `--systems`, always in the same order."""
    known = {copier.name: copier for copier in _known(program, bare, python)}
    for name in wanted:
        if name not in known:
            raise machine.Unfit(f"there is no {name}: choose from {', '.join(known)}")
    if "experimaestro" in wanted and not python.is_file():
        raise machine.Unfit(f"there is no {python}: give a Python that has experimaestro with --python")
    return [known[name] for name in known if name in wanted]


def archive(program: Path, workspace: Workspace) -> list[str]:
    """The command that archives every job of a workspace."""
    return [str(program), "--quiet", "--settings", str(workspace.settings), "jobs", "archive", "--all"]


def _known(program: Path, bare: Path, python: Path) -> list[Copier]:
    own = Path(__file__).resolve().parent / "own.py"

    def jobs(workspace: Workspace) -> list[str]:
        return [f"{workspace.primary}/jobs", f"{workspace.folder}/"]

    return [
        Copier(
            "xpmfs", "xpmfs", "`xpmfs jobs archive --all`: hashed, durable, each job there whole or not at all",
            lambda workspace: archive(program, workspace),
        ),
        Copier(
            "cp", "cp + sync", "`cp -a jobs FOLDER`, and then `sync -f`: durable",
            lambda workspace: ["cp", "-a", *jobs(workspace)], sync=True,
        ),
        Copier(
            "rsync", "rsync + sync", "`rsync -a jobs FOLDER`, and then `sync -f`: durable",
            lambda workspace: ["rsync", "-a", *jobs(workspace)], sync=True,
        ),
        Copier(
            "rsync-alone", "rsync", "`rsync -a jobs FOLDER` by itself: nothing is durable",
            lambda workspace: ["rsync", "-a", *jobs(workspace)],
        ),
        Copier(
            "experimaestro", "experimaestro",
            "its own archiver (`scheduler.folders._archive_job`), job after job: nothing is durable, and nothing hashed; the start"
            " of Python is not counted",
            lambda workspace: [str(python), "-B", str(own), str(workspace.primary), str(workspace.folder)],
        ),
        Copier(
            "bare", "bare",
            "`examples/bare`, the least that a durable copy takes: 16 jobs at a time, each file opened, read and written once, one"
            " `syncfs`; nothing is hashed, locked, staged or looked at again",
            lambda workspace: [str(bare), f"{workspace.primary}/jobs", f"{workspace.folder}/jobs"],
        ),
    ]

