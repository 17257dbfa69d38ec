"""A disk of its own, so that nobody else's writing is waited for: an image, written once, with ext4 on it."""

import subprocess
from pathlib import Path


class Disk:
    """An ext4 file system in a file, mounted at `root`. Whoever removes the stage unmounts it, and that frees the loop device."""

    def __init__(self, image: Path, root: Path, size: int):
        self.root = root
        # Blocks that were never written would cost the first who writes them.
        _run("dd", "if=/dev/zero", f"of={image}", "bs=4M", f"count={size >> 22}", "oflag=direct", "conv=fsync")
        options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
        _run("mkfs.ext4", "-q", "-F", "-E", options, "-i", "8192", str(image))
        # Without direct I/O, what was dropped from the cache would still be in the image's.
        done = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
        device = done.stdout.strip()
        try:
            _run("mount", device, str(root))
        finally:
            # Takes effect when it is unmounted.
            _run("losetup", "--detach", device)


def _run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, check=True, capture_output=True, text=True)
