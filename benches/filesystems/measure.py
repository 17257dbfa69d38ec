"""Running a workload on a mounted file system."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import mounts
from stage import Stage
from systems import System, View
from tree import Tree
from workloads import Scale, Workload

MOUNTING = 60
"""Seconds that a file system has to mount."""
ENDING = 30
"""Seconds that a daemon has to end once it is unmounted."""
WORKING = 3600
"""Seconds that a workload may take."""


class Failure(Exception):
    """Why a file system could not be measured, as a sentence."""


@dataclass(frozen=True)
class Mounted:
    """A mounted file system: where it shows things, and its daemon's process id."""

    view: View
    pid: Optional[int]


def settle() -> None:
    """Waits until everything that is written is on the disk."""
    os.sync()


def drop_caches() -> None:
    """Makes the kernel forget pages, names and inodes."""
    settle()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def as_user(user: Optional[int], stage: Stage) -> dict:
    """Arguments of `subprocess` that make a process an ordinary user's."""
    if user is None:
        return {}
    path = f"{stage.binaries}:{os.environ.get('PATH', os.defpath)}"
    environment = {"PATH": path, "HOME": str(stage.root), "LC_ALL": "C.UTF-8"}
    return {"user": user, "group": user, "extra_groups": [], "env": environment, "cwd": "/"}


@contextmanager
def mounted(system: System, tree: Tree, stage: Stage) -> Iterator[Mounted]:
    """The file system, mounted over a tree for as long as the `with` block runs."""
    point = system.mountpoint(tree, stage.mountpoint)
    # A user mounts only over a directory of the user's own.
    os.chown(stage.mountpoint, tree.owner or 0, tree.owner or 0)
    if system.command is None:
        yield Mounted(system.view(tree, point), None)
        return
    log = stage.logs / f"{system.name}.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            system.command(tree, point), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            **as_user(tree.owner, stage),
        )
    try:
        _wait_until_mounted(system, process, point, log)
        yield Mounted(system.view(tree, point), process.pid if system.daemon else None)
    finally:
        _end(process, point)


def _wait_until_mounted(system: System, process: subprocess.Popen, point: Path, log: Path) -> None:
    def over() -> bool:
        return mounts.count(point) > 0 or process.poll() is not None

    mounts.wait(over, MOUNTING)
    if not system.daemon:
        process.wait(MOUNTING)
    if mounts.count(point) == 0:
        said = log.read_text(errors="replace").strip().splitlines()
        raise Failure(f"cannot mount: {said[-1] if said else 'no word why'}")


def _end(process: subprocess.Popen, point: Path) -> None:
    """Unmounts, and waits until the daemon has gone: what it still did would be somebody else's time."""
    for _ in range(mounts.count(point)):
        mounts.unmount(point)
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Bench:
    """All that a workload is run with."""

    stage: Stage
    program: Path
    trees: dict[tuple[str, bool], Tree]
    """By their names, and by whether they are an ordinary user's."""
    scale: Scale

    def sample(self, workload: Workload, system: System) -> dict[str, tuple[float, int]]:
        """Mounts, runs a workload once and unmounts. Gives seconds and what was counted, by the name of the result."""
        tree = self.trees[workload.tree, workload.user]
        with scratch(tree, self.stage), mounted(system, tree, self.stage) as at:
            command = workload.command(self.program, at.view, self.scale)
            drop_caches() if workload.cache == "cold" else settle()
            steps = run(command, self.stage, tree.owner)
        return {
            name: (found["seconds"], found["count"])
            for step, name, _ in workload.results
            for found in [steps[step] if step else next(iter(steps.values()))]
        }


@contextmanager
def scratch(tree: Tree, stage: Stage) -> Iterator[None]:
    """A job to write in, made and removed on the disk itself."""
    tree.scratch.parent.mkdir(parents=True, exist_ok=True)
    _make_apart(tree.scratch)
    if tree.owner:
        for directory in (tree.scratch.parent, tree.scratch):
            os.chown(directory, tree.owner, tree.owner)
    try:
        yield
    finally:
        stage.remove(tree.scratch)


def _make_apart(directory: Path) -> None:
    """Makes a directory; on ext4 in a group of inodes of its own, which ext4 chooses by the directory's name, after `chattr +T` only.

    Without a journal, ext4 avoids inodes that were removed within the last minutes, and searches all of them for each new file: the
    files that the sample before has removed would slow this one down, twentyfold. Other file systems do not know the flag.
    """
    subprocess.run(["chattr", "+T", str(directory.parent)], stderr=subprocess.DEVNULL, check=False)
    Path(tempfile.mkdtemp(dir=directory.parent)).rename(directory)
    directory.chmod(0o755)


def run(command: list[str], stage: Stage, user: Optional[int] = None) -> dict:
    """Runs the program `workload`, and gives what it prints."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WORKING, check=False,
            **as_user(user, stage),
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"did not end within {WORKING} seconds") from None
    if done.returncode != 0:
        said, _, _ = done.stderr.partition("Stack backtrace:")
        raise Failure(" ".join(said.split()) or f"ended with {done.returncode}")
    return json.loads(done.stdout)
