"""What is mounted, and unmounting it."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Callable, NamedTuple, Optional


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    point: Path
    kind: str
    source: str
    options: str


def table() -> list[Mount]:
    """All mounts, in the order in which they were made."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, after = line.split(" - ", 1)
        fields, (kind, source, *options) = before.split(), after.split()
        mounts.append(Mount(Path(_plain(fields[4])), kind, _plain(source), ",".join([fields[5], *options])))
    return mounts


def below(path: Path) -> list[Path]:
    """Where something is mounted at `path` or below it, in the order in which it was."""
    return [mount.point for mount in table() if mount.point == path or path in mount.point.parents]


def holding(path: Path) -> Mount:
    """The mount that `path` lies in."""
    path = path.resolve()
    found = [mount for mount in table() if mount.point == path or mount.point in path.parents]
    return max(reversed(found), key=lambda mount: len(mount.point.parts))


def count(path: Path) -> int:
    """How many mounts lie over each other at `path`. Asks nothing of them."""
    return sum(mount.point == path for mount in table())


def wait(holds: Callable[[], bool], seconds: float, pause: float = 0.005) -> bool:
    """Waits until something holds, at most `seconds`. Gives whether it does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def unmount(point: Path) -> Optional[str]:
    """Unmounts what is on top at `point`; detaches it if it stays in use. Gives what went wrong."""
    message = ""
    for _ in range(50):
        tried = subprocess.run(["umount", str(point)], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return None
        message = tried.stderr.strip()
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)
    return message


def _plain(field: str) -> str:
    """A field without mountinfo's escapes: a blank is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), os.fsdecode(field))
