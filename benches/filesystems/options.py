"""The command line, and what is chosen by it."""

import argparse
import fnmatch
from pathlib import Path
from typing import Optional

import million
import workloads
from workloads import Scale, Workload

SYSTEMS = "disk,xpmfs,mergerfs,fuse-overlayfs,bindfs,passthrough_hp,overlayfs,bound"
ROUNDS = 3
BLOCK = 4096


class Options(argparse.Namespace):
    """What was asked for."""

    quick: bool
    rounds: int
    only: Optional[list[str]]
    systems: str
    with_million: bool
    json: Optional[Path]
    markdown: Optional[Path]
    directory: Path
    only_list: bool
    binary: Path
    before: Optional[Path]
    workload: Path
    bound: Path

    @property
    def scale(self) -> Scale:
        """How much of everything there is."""
        return workloads.QUICK if self.quick else workloads.FULL

    @property
    def sizes(self) -> million.Sizes:
        """How large the trees of `--million` are."""
        return million.QUICK if self.quick else million.FULL

    def chosen(self) -> list[Workload]:
        """The workloads of `--only`, by their own names or those of their results."""
        return [workload for workload in workloads.ALL if any(map(self._wants, _names(workload)))]

    def parts_of_million(self) -> list[str]:
        """What of `--million` is to be measured."""
        return [part for part in million.PARTS if self.with_million and self._wants(part)]

    def needed(self) -> tuple[int, int]:
        """Bytes and inodes that the trees take, generously."""
        scale, sizes = self.scale, self.sizes
        size = inodes = 0
        if self.chosen():
            inodes = 3 * scale.entries + 2 * scale.small_files + scale.created
            size = inodes * BLOCK + scale.large + scale.written
        if self.parts_of_million():
            jobs = sizes.few_jobs + sizes.many_jobs
            inodes += sizes.entries + 2 * jobs
            size += sizes.entries * BLOCK + jobs * (BLOCK + 512)
        return int(size * 1.2), int(inodes * 1.1)

    def _wants(self, name: str) -> bool:
        return not self.only or any(fnmatch.fnmatch(name, pattern) for pattern in self.only)


def parse() -> Options:
    """Reads the command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures xpmfs beside other file systems over the same trees. See docs/benchmark.md.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round with little data, to try it: the figures mean nothing")
    add("--rounds", type=int, metavar="N",
        help=f"how often each workload is run on each file system [default: {ROUNDS}; quick: 1]")
    add("--only", nargs="+", metavar="WORKLOAD", help="these alone, as --list shows them; *, ? and [] as in a shell")
    add("--systems", default=SYSTEMS, metavar="A,B",
        help="these file systems alone; also xpmfs-elsewhere [default: %(default)s]")
    add("--million", action="store_true", dest="with_million",
        help="also: memory after walking 1,000,000 entries, mounting 1,000,000 jobs")
    add("--json", type=Path, metavar="FILE", help="write everything there, each round's samples included")
    add("--markdown", type=Path, metavar="FILE", help="write a page there")
    add("--directory", type=Path, default=Path("/var/tmp"), metavar="DIR",
        help="where to measure: any directory on the disk in question [default: %(default)s]")
    add("--list", action="store_true", dest="only_list", help="show the workloads, and do nothing")
    add("--binary", type=Path, metavar="PATH", help="measure this xpmfs [default: build it]")
    add("--before", type=Path, metavar="PATH", help="measure this earlier build of xpmfs beside it, as xpmfs-before")
    add("--workload", type=Path, help=argparse.SUPPRESS)
    add("--bound", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(namespace=Options())
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    _check(parser, options)
    return options


def listing() -> str:
    """The workloads, for `--list`."""
    rows = [(workload.name, workload.title) for workload in workloads.ALL]
    rows += [(name, f"{title} (with --million)") for name, title in million.PARTS.items()]
    return "\n".join(f"{name:24} {title}" for name, title in rows)


def _names(workload: Workload) -> list[str]:
    return [workload.name, *(name for _, name, _ in workload.results)]


def _check(parser: argparse.ArgumentParser, options: Options) -> None:
    known = [*million.PARTS, *(name for workload in workloads.ALL for name in _names(workload))]
    for pattern in options.only or []:
        if not fnmatch.filter(known, pattern):
            parser.error(f"there is no workload {pattern}: --list shows all")
    if options.only_list:
        return
    if not options.chosen() and not options.parts_of_million():
        parser.error("nothing is left to measure: add --million, or other workloads to --only")
    programs = (options.binary, options.workload, options.bound)
    if not all(programs):
        parser.error("run scripts/bench, which builds what this needs")
    for program in filter(None, (*programs, options.before)):
        if not program.is_file():
            parser.error(f"there is no {program}")
    for file in (options.json, options.markdown):
        if file and not file.absolute().parent.is_dir():
            parser.error(f"{file} cannot be written: there is no such directory")
