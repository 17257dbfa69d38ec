"""Finds the command ``xpmfs``, and runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Iterator, Sequence

NAME = "xpmfs"


class CommandError(RuntimeError):
    """The command failed. The message is what it printed, with the path of what failed."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """The exit status: 1 failed, 2 wrong usage; negative for a signal."""


def find_command() -> str:
    """The path of the command that this package has installed, or else of the one on ``PATH``.

    Raises:
        FileNotFoundError: there is none.
    """
    for directory in _directories():
        path = directory / NAME
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(NAME)
    if found is None:
        places = ", ".join(str(directory) for directory in _directories())
        raise FileNotFoundError(f"no command {NAME} in {places}, nor on PATH")
    return found


def _directories() -> Iterator[Path]:
    """Where installers put commands."""
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user")))
    # `pip install --target`: `bin` beside the package.
    yield Path(__file__).resolve().parent.parent / "bin"
    yield Path(sys.prefix) / "bin"


def run(arguments: Sequence[str | os.PathLike[str]]) -> Any:
    """Runs the command, and returns the JSON that it prints.

    Raises:
        CommandError: it printed none.
    """
    ended = subprocess.run(
        [find_command(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # A command that has failed in part prints JSON, too.
    if ended.stdout.strip():
        return json.loads(ended.stdout)
    said = ended.stderr.decode(errors="replace").strip()
    raise CommandError(said or f"{NAME} printed nothing", ended.returncode)
