"""What is measured: each workload is one run of the program `workload` on one file system."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional

from systems import System, View
from tree import ENTRIES, TASKS, digest, task

GIB = 1 << 30
MIB = 1 << 20
TOGETHER = 8
"""How many processes work at once in the second half of the workloads."""


@dataclass(frozen=True)
class Scale:
    """How much of everything there is."""

    entries: int
    """Entries of jobs in the trees that are walked."""
    tar_jobs: int
    small_files: int
    passes: int
    """How many times each small file is opened."""
    large: int
    """Bytes of the large file that is read."""
    random_cold: int
    random_hot: int
    created: int
    written: int
    """Bytes of the large file that is written."""
    appended: int

    jobs = property(lambda self: self.entries // ENTRIES)

    def share(self, processes: int) -> "Scale":
        """What each of several processes writes."""
        return replace(
            self,
            created=self.created // processes,
            written=self.written // processes,
            appended=self.appended // processes,
        )


FULL = Scale(
    entries=100_000, tar_jobs=1000, small_files=10_000, passes=5, large=2 * GIB, random_cold=20_000,
    random_hot=500_000, created=5000, written=GIB, appended=100_000,
)
QUICK = Scale(
    entries=10_000, tar_jobs=100, small_files=500, passes=2, large=32 * MIB, random_cold=500,
    random_hot=5000, created=200, written=16 * MIB, appended=2000,
)


@dataclass(frozen=True)
class Workload:
    """One kind of work."""

    name: str
    title: str
    tree: str
    """Which tree it works on: jobs in `one` location or in `four`, or a few with much `data`."""
    cache: Optional[str]
    """`cold`: nothing is cached when it starts. `warm`: it has been done once before. Else as it comes."""
    arguments: Callable[[View, Scale], list[str]]
    """Those of the program `workload`."""
    steps: tuple[tuple[str, str, str], ...] = ()
    """What it times, if that is more than one thing: the step, and the name and title of its result."""
    processes: int = 1
    user: bool = False
    """Whether an ordinary user mounts and works, on a tree of the user's own."""
    changes: bool = False
    """Whether each request makes the disk change names, which takes the disk time, and which `bound` does not do."""
    contents: bool = False
    """Whether the time goes to the contents of files, so that a file system without them has nothing to compare."""
    tolerance: float = 0
    """By which part the work that is counted may differ from one file system to the other."""

    @property
    def results(self) -> list[tuple[str, str, str]]:
        """What comes out: the step, and the name and title of the result."""
        return list(self.steps) or [("", self.name, self.title)]

    def measures(self, system: System) -> bool:
        """Whether it is run on this file system."""
        return (system.contents or not self.contents) and (system.by_user or not self.user)

    def command(self, program: Path, view: View, scale: Scale) -> list[str]:
        """What is run."""
        command = [str(program), f"--processes={self.processes}"]
        command += ["--warm"] if self.cache == "warm" else []
        return command + self.arguments(view, scale.share(self.processes))

    def together(self) -> "Workload":
        """The same, by several processes at once: each reads the whole, and writes its share."""
        return self._variant(f"{{}}-x{TOGETHER}", f"{{}}, {TOGETHER} processes", processes=TOGETHER)

    def by_user(self) -> "Workload":
        """The same by an ordinary user."""
        return self._variant("user-{}", "ordinary user: {}", user=True)

    def _variant(self, name: str, title: str, **changes) -> "Workload":
        """The same with changes, under another name and title: `{}` is the present one."""
        steps = tuple((step, name.format(own), title.format(shown)) for step, own, shown in self.steps)
        return replace(self, name=name.format(self.name), title=title.format(self.title), steps=steps, **changes)


def _walk(view: View, _scale: Scale) -> list[str]:
    return ["walk", *(str(root / "jobs") for root in view.roots)]


def _read(view: View, _scale: Scale) -> list[str]:
    return ["read", str(view.large)]


def _tar(view: View, scale: Scale) -> list[str]:
    """Packs the jobs with the lowest numbers, each from the location that has it."""
    arguments = ["tar"]
    for place, root in enumerate(view.roots):
        arguments += ["-C", str(root)]
        for number in range(scale.tar_jobs):
            if number // TASKS % len(view.roots) == place:
                arguments.append(f"jobs/{task(number % TASKS)}/{digest(number)}")
    return arguments


def _random(count: str) -> Callable[[View, Scale], list[str]]:
    return lambda view, scale: ["random", f"--count={getattr(scale, count)}", str(view.large)]


def _open_read_close(view: View, scale: Scale) -> list[str]:
    return ["open-read-close", f"--passes={scale.passes}", str(view.small)]


def _files(view: View, scale: Scale) -> list[str]:
    return ["files", f"--count={scale.created}", str(view.scratch)]


def _write(view: View, scale: Scale) -> list[str]:
    return ["write", f"--size={scale.written}", str(view.scratch)]


def _append(view: View, scale: Scale) -> list[str]:
    return ["append", f"--count={scale.appended}", str(view.scratch)]


_STEPS = (
    ("create", "create", "create small files"), ("rename", "rename", "rename them"), ("remove", "remove", "remove them")
)

ALONE = (
    Workload("walk-one-cold", "walk with stat, one location, cold", "one", "cold", _walk),
    Workload("walk-one-warm", "walk with stat, one location, warm", "one", "warm", _walk),
    Workload("walk-four-cold", "walk with stat, four locations, cold", "four", "cold", _walk),
    Workload("walk-four-warm", "walk with stat, four locations, warm", "four", "warm", _walk),
    Workload("read-cold", "sequential read, cold", "data", "cold", _read, contents=True),
    Workload("read-hot", "sequential read, hot", "data", "warm", _read, contents=True),
    Workload("random-cold", "random 4 KiB reads, cold", "data", "cold", _random("random_cold"), contents=True),
    Workload("random-hot", "random 4 KiB reads, hot", "data", "warm", _random("random_hot"), contents=True),
    Workload("tar", "tar of jobs in four locations, cold", "four", "cold", _tar, tolerance=0.01, contents=True),
    Workload("open-read-close", "open-read-close of small files, warm", "data", "warm", _open_read_close),
    Workload("files", "create, rename, remove", "data", None, _files, steps=_STEPS, changes=True),
    Workload("write", "write with fsync", "data", None, _write, contents=True),
    Workload("append", "small appends, flushed", "data", None, _append, contents=True),
)
BY_USER = ("walk-four-cold", "walk-four-warm", "read-cold", "read-hot", "open-read-close", "files", "append")
"""Which of them an ordinary user does, too."""
ALL = (
    *ALONE,
    *(workload.by_user() for workload in ALONE if workload.name in BY_USER),
    *(workload.together() for workload in ALONE),
)
