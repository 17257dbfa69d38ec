"""The command line."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PARTS = {
    "jobs": "many small finished jobs",
    "large": "one job with a large file",
    "beside": "reading and writing through a mount of the same workspaces while they are archived",
}
SYSTEMS = "xpmfs,cp,rsync,rsync-alone,experimaestro,bare"
ROUNDS = 5
GIB = 1 << 30


@dataclass(frozen=True)
class Scale:
    """How much there is to copy."""

    jobs: int
    large: int
    """Bytes of the large job."""


FULL = Scale(jobs=2000, large=4 * GIB)
QUICK = Scale(jobs=100, large=GIB // 8)


class Choices(argparse.Namespace):
    """What was asked for."""

    quick: bool
    rounds: int
    only: list[str]
    systems: str
    json: Optional[Path]
    markdown: Optional[Path]
    directory: Path
    binary: Path
    workload: Path
    bare: Path
    python: Path

    @property
    def scale(self) -> Scale:
        """How much of everything there is."""
        return QUICK if self.quick else FULL

    @property
    def image(self) -> int:
        """Bytes of the disk: everything twice, and room."""
        large = self.scale.large if "large" in self.only else 0
        return (2 * large + 3 * GIB) // GIB * GIB


def parse() -> Choices:
    """Reads the command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench archive",
        description="Measures archiving beside other ways of copying finished jobs. See docs/benchmark-archive.md.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round with little data, to try it: the figures mean nothing")
    add("--rounds", type=int, metavar="N", help=f"how often each is run [default: {ROUNDS}; quick: 1]")
    add("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts alone")
    add("--systems", default=SYSTEMS, metavar="A,B", help="these ways alone [default: %(default)s]")
    add("--json", type=Path, metavar="FILE", help="write everything there, each round's samples included")
    add("--markdown", type=Path, metavar="FILE", help="write a page there")
    add("--directory", type=Path, default=Path("/var/tmp"), metavar="DIR",
        help="where the image of the disk is made [default: %(default)s]")
    add("--binary", type=Path, metavar="PATH", help="measure this xpmfs [default: build it]")
    add("--python", type=Path, metavar="PATH", help="a Python with experimaestro [default: target/venv/bin/python]")
    add("--workload", type=Path, help=argparse.SUPPRESS)
    add("--bare", type=Path, help=argparse.SUPPRESS)
    choices = parser.parse_args(namespace=Choices())
    choices.rounds = choices.rounds or (1 if choices.quick else ROUNDS)
    if choices.only == ["beside"]:
        parser.error("--only beside needs jobs or large as well: what is to be archived")
    if not all((choices.binary, choices.workload, choices.bare, choices.python)):
        parser.error("run scripts/bench archive, which builds what this needs")
    for program in (choices.binary, choices.workload, choices.bare):
        if not program.is_file():
            parser.error(f"there is no {program}")
    for file in (choices.json, choices.markdown):
        if file and not file.absolute().parent.is_dir():
            parser.error(f"{file} cannot be written: there is no such directory")
    return choices
