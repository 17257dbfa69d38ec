"""What the benchmark runs on."""

import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Dict

import mounts
from stage import say

MEMORY_ALONE = ("tmpfs", "ramfs")


class Unfit(Exception):
    """Why the benchmark cannot be run here, as a sentence that says what to do."""


def describe(directory: Path) -> Dict[str, str]:
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
    """Refuses a place that cannot be measured on: too small, in memory alone, or on a file system that is none of the disk's."""
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
        raise Unfit(f"{directory} has {status.f_favail:,} inodes free, and {inodes:,} are needed: give another directory with --directory")
    # Without passthrough, a file is cached twice.
    if memory() < 3 * large:
        say(f"{memory() / 2**30:.1f} GiB of memory are little: hot reads of {large / 2**30:g} GiB may not be hot")
    if os.getloadavg()[0] > 0.5:
        say(f"the machine is busy (load {os.getloadavg()[0]:.1f}): the figures will tell of that, too")


def _field(file: str, name: str) -> str:
    found = re.search(rf"^{name}\s*[:=]\s*(.*)$", Path(file).read_text(), re.MULTILINE) if os.path.exists(file) else None
    return found[1] if found else "unknown"
