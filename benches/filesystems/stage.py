"""The benchmark's own directory: everything is made below it, and goes with it.

A second process, the keeper, waits until the benchmark has ended, however it ended (Ctrl-C, an error, `kill -9`),
unmounts what is mounted below the directory, and removes it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mounts


class Stage:
    """A new directory below `parent`, for as long as the `with` block runs."""

    def __init__(self, parent: Path):
        self.parent = parent

    def __enter__(self) -> "Stage":
        self.root = Path(tempfile.mkdtemp(prefix="xpmfs-bench-", dir=self.parent)).resolve()
        # An ordinary user's part of the benchmark must get in.
        self.root.chmod(0o755)
        watched, self._alive = os.pipe()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(self._alive)
            _keep(self.root, watched)
        os.close(watched)
        self.mountpoint = self.directory("mnt")
        self.logs = self.directory("logs")
        self.binaries = self.directory("bin")
        return self

    def __exit__(self, *_) -> None:
        say("cleaning up")
        os.close(self._alive)
        os.waitpid(self._keeper, 0)

    def directory(self, name: str) -> Path:
        """A new directory on the stage, which everybody may enter."""
        path = self.root / name
        path.mkdir(mode=0o755)
        return path

    def install(self, binary: Path, name: str = "") -> Path:
        """A copy of a program that an ordinary user can run, and that no build replaces meanwhile."""
        copy = self.binaries / (name or binary.name)
        shutil.copyfile(binary, copy)
        copy.chmod(0o755)
        return copy

    def remove(self, path: Path) -> None:
        """Removes a tree of the stage, which nothing may be mounted below."""
        if self.root not in path.parents or mounts.below(path):
            raise RuntimeError(f"{path} is not removed: it is not ours alone")
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=True)


def say(message: str) -> None:
    """Tells on standard error how it goes."""
    print(f"bench: {message}", file=sys.stderr, flush=True)


def _keep(root: Path, watched: int) -> None:
    """The keeper's life. Does not return."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        os.read(watched, 1)
        _clear(root)
    finally:
        os._exit(0)


def _clear(root: Path) -> None:
    # What the benchmark had started may take a moment to end.
    for _ in range(30):
        for mountpoint in reversed(mounts.below(root)):
            mounts.unmount(mountpoint)
        if not mounts.below(root):
            removal = ["rm", "-rf", "--one-file-system", "--", str(root)]
            if subprocess.run(removal, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
        time.sleep(1)
    say(f"{root} could not be removed: unmount what is mounted below it, then remove it by hand")
