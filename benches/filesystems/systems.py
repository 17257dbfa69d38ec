"""The file systems, and how each shows a workspace.

Each is set up as somebody would who wants it fast: names and attributes are cached for an hour, as nothing else changes
the tree, listings and pages are cached where it can, and passthrough is on where it has it. All users may
enter (`allow_other`), as when root mounts for others, unless an ordinary user mounts. Each writes to the primary.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import libfuse
from tree import LARGE, SCRATCH, SMALL, Tree

CACHE = 3600
"""Seconds for which names and attributes are cached, where that is a choice."""
BOUND = "bound"
"""The file system that no other one in a process can be faster than."""


@dataclass(frozen=True)
class View:
    """Where a file system shows a workspace: the primary, and every directory that has a part of `jobs/`."""

    primary: Path
    roots: list[Path]

    scratch = property(lambda self: self.primary / SCRATCH)
    small = property(lambda self: self.primary / SMALL)
    large = property(lambda self: self.primary / LARGE)


@dataclass(frozen=True)
class System:
    """A file system to measure."""

    name: str
    title: str
    about: str
    """How it is set up, for the report."""
    command: Optional[Callable[[Tree, Path], list[str]]] = None
    """What mounts a workspace at a directory; nothing for the disk itself."""
    daemon: bool = True
    """Whether that command stays, and serves."""
    version: Optional[list[str]] = None
    merges: bool = True
    """Whether it shows all locations as one tree."""
    in_place: bool = False
    """Whether it is mounted over the primary."""
    by_user: bool = True
    """Whether an ordinary user can mount it."""
    contents: bool = True
    """Whether files have their contents there."""

    def mountpoint(self, tree: Tree, directory: Path) -> Path:
        """Where it is mounted, if `directory` is free for it."""
        return tree.primary if self.in_place else directory

    def view(self, tree: Tree, mountpoint: Path) -> View:
        """Where things are once it is mounted."""
        if self.command is None:
            return View(tree.primary, tree.locations)
        if self.merges:
            return View(mountpoint, [mountpoint])
        shown = [mountpoint / location.relative_to(tree.root) for location in tree.locations]
        return View(shown[0], shown)

    def installed_version(self) -> str:
        """What it says of itself."""
        if self.version is None:
            return ""
        said = subprocess.run(self.version, capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+\S*", said.stdout + said.stderr)
        return found[0] if found else "unknown"


@dataclass(frozen=True)
class Xpmfs:
    """The program to measure, and an empty settings file, so that nobody's own count."""

    program: Path
    settings: Path

    def mount(self, tree: Tree, mountpoint: Path, *options: str) -> list[str]:
        """The command that mounts a workspace."""
        # Archiving the finished jobs that are there would be other work than what is measured.
        command = [str(self.program), "--quiet", "--settings", str(self.settings), "mount", "--no-archive"]
        command += ["--workdir", str(tree.primary)]
        for mode, folder in tree.folders.items():
            command += ["--folder", f"{mode}:{folder}"]
        return command + list(options) + _options(tree) + [str(mountpoint)]

    def system(self, name: str, in_place: bool = True) -> System:
        """It as a file system to measure."""

        def command(tree: Tree, mountpoint: Path) -> list[str]:
            return self.mount(tree, mountpoint, "--foreground")

        about = f"`xpmfs mount --no-archive -o allow_other`, {'in place' if in_place else 'at another path'}"
        return System(name, name, about, command, version=[str(self.program), "--version"], in_place=in_place)


def every(xpmfs: Xpmfs, bound: Path, empty: Path, passthrough: Optional[libfuse.Built]) -> dict[str, System]:
    """All file systems by name, in the order of the report. `bound` is the program that answers at once; `empty` an empty
    directory; `passthrough` libfuse's example, if there is one."""
    systems = [
        System("disk", "disk", "the file system beneath, with nothing mounted over it"),
        xpmfs.system("xpmfs"),
        xpmfs.system("xpmfs-elsewhere", in_place=False),
        _mergerfs(),
        _fuse_overlayfs(empty),
        _bindfs(),
        *([_passthrough_hp(passthrough)] if passthrough else []),
        _overlayfs(empty),
        _bound(bound),
    ]
    return {system.name: system for system in systems}


def _options(tree: Tree, *options: str) -> list[str]:
    """The arguments with the options of a mount."""
    # An ordinary user may not let others in unless the administrator allows it.
    given = [*([] if tree.owner else ["allow_other"]), *options]
    return ["-o", ",".join(given)] if given else []


def _mergerfs() -> System:
    options = "category.create=ff,minfreespace=0,cache.files=auto-full,cache.readdir=true"
    options += f",cache.entry={CACHE},cache.attr={CACHE}"
    system = System("mergerfs", "mergerfs", "", version=["mergerfs", "--version"])
    # As its documentation has it: since 2.41, with any page cache but `off`.
    numbers = [int(number) for number in re.findall(r"\d+", _version_or_none(system))]
    if numbers >= [2, 41]:
        options += ",passthrough.io=rw"

    def command(tree: Tree, mountpoint: Path) -> list[str]:
        primary, *folders = tree.locations
        branches = [f"{primary}=RW", *(f"{folder}=RO" for folder in folders)]
        return ["mergerfs", "-f", *_options(tree, options), ":".join(branches), str(mountpoint)]

    about = f"`mergerfs -o allow_other,{options} PRIMARY=RW:FOLDER=RO:…`"
    return System("mergerfs", "mergerfs", about, command, version=system.version)


def _version_or_none(system: System) -> str:
    try:
        return system.installed_version()
    except FileNotFoundError:
        return ""


def _layers(tree: Tree, empty: Path, name: str) -> str:
    """The options of both overlay file systems. The primary is on top; an overlay must have something beneath."""
    lower = list(tree.folders.values()) or [empty]
    work = tree.root / f"work-{name}"
    work.mkdir(exist_ok=True)
    if tree.owner:
        os.chown(work, tree.owner, tree.owner)
    return f"lowerdir={':'.join(map(str, lower))},upperdir={tree.primary},workdir={work}"


def _fuse_overlayfs(empty: Path) -> System:
    def command(tree: Tree, mountpoint: Path) -> list[str]:
        return ["fuse-overlayfs", "-f", *_options(tree, _layers(tree, empty, "fuse-overlayfs")), str(mountpoint)]

    about = "`fuse-overlayfs -o allow_other,lowerdir=FOLDERS,upperdir=PRIMARY`; it caches names for ever by default"
    return System("fuse-overlayfs", "fuse-overlayfs", about, command, version=["fuse-overlayfs", "--version"])


def _bindfs() -> System:
    options = f"auto_cache,entry_timeout={CACHE},attr_timeout={CACHE}"

    def command(tree: Tree, mountpoint: Path) -> list[str]:
        # It asks for `allow_other` by itself, also where that is not permitted.
        given = _options(tree, options, *(["no-allow-other"] if tree.owner else []))
        return ["bindfs", "-f", "--multithreaded", *given, str(tree.root), str(mountpoint)]

    about = f"`bindfs --multithreaded -o allow_other,{options}`; it merges nothing: the locations are walked one after the other"
    return System("bindfs", "bindfs", about, command, version=["bindfs", "--version"], merges=False)


def _passthrough_hp(built: libfuse.Built) -> System:
    def command(tree: Tree, mountpoint: Path) -> list[str]:
        # Where the kernel does not permit passthrough, it caches what is written, but only if it does not try.
        options = ["--nopassthrough"] if built.has_passthrough and tree.owner else []
        return [str(built.program), "--foreground", *options, str(tree.root), str(mountpoint)]

    passthrough = "and passthrough" if built.has_passthrough else "and no passthrough, which libfuse has since 3.17"
    about = f"libfuse's example, with its defaults: names and attributes cached for a day, {passthrough}; it merges nothing"
    version = ["pkg-config", "--modversion", "fuse3"]
    return System(libfuse.PASSTHROUGH_HP, libfuse.PASSTHROUGH_HP, about, command, version=version, merges=False)


def _overlayfs(empty: Path) -> System:
    def command(tree: Tree, mountpoint: Path) -> list[str]:
        return ["mount", "-t", "overlay", "overlay", "-o", _layers(tree, empty, "overlayfs"), str(mountpoint)]

    about = "the kernel's: `mount -t overlay -o lowerdir=FOLDERS,upperdir=PRIMARY`"
    return System("overlayfs", "overlayfs", about, command, daemon=False, by_user=False)


def _bound(program: Path) -> System:
    def command(tree: Tree, mountpoint: Path) -> list[str]:
        return [str(program), str(mountpoint), *map(str, tree.locations)]

    about = "a file system that answers every request at once, from memory, and has no contents: what FUSE itself takes"
    return System(BOUND, BOUND, about, command, contents=False)
