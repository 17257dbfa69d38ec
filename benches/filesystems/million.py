"""What must not grow with the workspace: resident memory, and the time from mounting to the first listing."""

import os
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import mounts
from measure import Bench, Failure, drop_caches, mounted, run
from results import Result, Results
from stage import say
from systems import System, Xpmfs
from tree import ENTRIES, Tree, digest, task, workspace

MEGABYTE = 1_000_000
PARTS = {"memory": "resident memory", "listing": "mount to first listing"}
"""What there is to measure, by the name that `--only` has for it."""


@dataclass(frozen=True)
class Sizes:
    """How large the trees are."""

    entries: int
    few_jobs: int
    many_jobs: int


FULL = Sizes(entries=1_000_000, few_jobs=1000, many_jobs=1_000_000)
QUICK = Sizes(entries=10_000, few_jobs=100, many_jobs=2000)


def resident_memory(bench: Bench, systems: Iterable[System], sizes: Sizes, results: Results) -> None:
    """Walks a large tree in four locations on each file system that is a process, and reads what that holds."""
    say(f"making a tree of {sizes.entries:,} entries")
    tree = workspace(bench.stage.directory("entries"), sizes.entries // ENTRIES, folders=True)
    result = results.row("memory", f"resident memory after walking {sizes.entries:,} entries", "MB")
    for system in systems:
        if system.command is None or not system.daemon or not system.contents:
            continue
        say(f"memory: {system.name}")
        try:
            with mounted(system, tree, bench.stage) as at:
                drop_caches()
                run([str(bench.program), "walk", *(str(root / "jobs") for root in at.view.roots)], bench.stage)
                result.of(system.name).values.append(_resident(at.pid) / MEGABYTE)
        except (Failure, OSError) as failure:
            result.of(system.name).error = str(failure)
    say("removing it")
    bench.stage.remove(tree.root)


def _resident(pid: Optional[int]) -> int:
    """The resident memory of a process and of all that it has started, in bytes, as /proc has it: a supervisor may have another one
    serve."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    if found is None:
        raise Failure("its process has ended")
    children = [child for of in Path(f"/proc/{pid}/task").glob("*/children") for child in of.read_text().split()]
    return int(found[1]) * 1024 + sum(_resident(int(child)) for child in children)


def first_listing(bench: Bench, xpmfs: Xpmfs, sizes: Sizes, rounds: int, results: Results) -> None:
    """Mounts a small and a large workspace in turn, with nothing cached, and lists in each."""
    trees: list[tuple[Tree, Result, Result]] = []
    for name, jobs in (("few", sizes.few_jobs), ("many", sizes.many_jobs)):
        say(f"making a workspace of {jobs:,} jobs")
        tree = workspace(bench.stage.directory(f"jobs-{name}"), jobs, folders=True, whole=False)
        first = results.row(f"listing-{name}", f"mount to first listing, {jobs:,} jobs")
        whole = results.row(f"task-{name}", f"then all jobs of one task, {jobs:,} jobs")
        trees.append((tree, first, whole))
    for number in range(rounds):
        for tree, first, whole in trees:
            say(f"round {number + 1} of {rounds}: {first.title}")
            _on_the_disk(tree, first, whole)
            try:
                _mount_and_list(bench, xpmfs, tree, first, whole)
            except Failure as failure:
                first.of("xpmfs").error = whole.of("xpmfs").error = str(failure)
    say("removing them, which can take minutes")
    for tree, _, _ in trees:
        bench.stage.remove(tree.root)


def _mount_and_list(bench: Bench, xpmfs: Xpmfs, tree: Tree, first: Result, whole: Result) -> None:
    point = tree.primary
    command = xpmfs.mount(tree, point, "--log", str(bench.stage.logs / "listing.log"))
    drop_caches()
    try:
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"cannot mount: {done.stderr.strip()}")
        _list(point)
        first.of("xpmfs").values.append(time.monotonic() - start)
        start = time.monotonic()
        listed = len(os.listdir(point / "jobs" / task(0)))
        whole.add("xpmfs", time.monotonic() - start, listed, 0)
    finally:
        # Returns when the daemon has ended.
        subprocess.run([str(xpmfs.program), "--quiet", "umount", str(point)], capture_output=True, check=False)
        for mountpoint in mounts.below(point):
            mounts.unmount(mountpoint)


def _on_the_disk(tree: Tree, first: Result, whole: Result) -> None:
    drop_caches()
    start = time.monotonic()
    _list(tree.primary)
    first.of("disk").values.append(time.monotonic() - start)
    start = time.monotonic()
    listed = sum(len(os.listdir(location / "jobs" / task(0))) for location in tree.locations)
    whole.add("disk", time.monotonic() - start, listed, 0)


def _list(primary: Path) -> None:
    """What a person sees first: the tasks, and one job."""
    os.listdir(primary / "jobs")
    os.listdir(primary / "jobs" / task(0) / digest(0))
