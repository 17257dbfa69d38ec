"""What the benchmark runs on."""

import os
import platform
import re
import shutil
import time
from pathlib import Path

import mounts
from stage import say

MEMORY_ALONE = ("tmpfs", "ramfs")
BUSY = 0.5
"""The load from which on others are at work."""


class Unfit(Exception):
    """Why the benchmark cannot be run here, as a sentence that says what to do."""


def describe(directory: Path) -> dict[str, str]:
    """The machine, in words."""
    mount = mounts.holding(directory)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} of them",
        "memory": f"{memory() / 2**30:.0f} GiB",
        "kernel": f"Linux {platform.release()} {platform.machine()}",
        "distribution": _field("/etc/os-release", "PRETTY_NAME").strip('"'),
        "disk": f"{mount.kind} on {mount.source} ({mount.options})",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def memory() -> int:
    """Bytes of memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check(directory: Path, size: int, inodes: int, large: int) -> None:
    """Refuses a place that cannot be measured on: too small, or in memory alone. Warns of what spoils the figures."""
    mount = mounts.holding(directory)
    if mount.kind in MEMORY_ALONE:
        raise Unfit(f"{directory} is {mount.kind}, which is memory: give a directory on a disk with --directory")
    free = shutil.disk_usage(directory).free
    if free < size:
        raise Unfit(
            f"{directory} has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are needed:"
            " make room, or give another directory with --directory"
        )
    status = os.statvfs(directory)
    # Some file systems make inodes as they go, and count none.
    if status.f_files and status.f_favail < inodes:
        raise Unfit(
            f"{directory} has {status.f_favail:,} inodes free, and {inodes:,} are needed:"
            " give another directory with --directory"
        )
    # Without passthrough, a file is cached twice.
    if memory() < 3 * large:
        have, want = memory() / 2**30, large / 2**30
        say(f"{have:.1f} GiB of memory are little: hot reads of {want:g} GiB may not be hot")
    load = os.getloadavg()[0]
    if load > BUSY:
        say(f"the machine is busy (load {load:.1f}): the figures will tell of that, too")


def _field(file: str, name: str) -> str:
    """A line of a file such as `name: value` or `name=value`."""
    try:
        found = re.search(rf"^{name}\s*[:=]\s*(.*)$", Path(file).read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    return found[1] if found else "unknown"
