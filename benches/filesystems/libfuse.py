"""Builds `passthrough_hp`, an example of libfuse, from the source package of the distribution.

Debian has libfuse's examples in the source package alone. The lists of source packages are kept beside the source, so
that apt's own lists stay as they are.
"""

import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

PASSTHROUGH_HP = "passthrough_hp"
FILES = (f"{PASSTHROUGH_HP}.cc", "cxxopts.hpp")
"""Its own among the examples."""
STEP_TIMEOUT = 300
"""Seconds that each step may take."""


class Unavailable(Exception):
    """Why it could not be built, as a sentence."""


@dataclass(frozen=True)
class Built:
    """The program."""

    program: Path
    has_passthrough: bool
    """Whether it can let the kernel read and write the files beneath by itself (libfuse 3.17)."""


def build(directory: Path) -> Built:
    """Downloads and compiles it in an empty directory."""
    try:
        _download(directory)
        _extract(directory)
        flags = _run(directory, "pkg-config", "--cflags", "--libs", "fuse3").split()
        # As libfuse builds it: without extended attributes, which it has only with -DHAVE_SETXATTR.
        options = ["-O2", "-std=c++17", "-pthread", "-D_FILE_OFFSET_BITS=64", "-o", PASSTHROUGH_HP]
        _run(directory, "g++", *options, FILES[0], *flags)
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        raise Unavailable(str(error)) from None
    return Built(directory / PASSTHROUGH_HP, "nopassthrough" in (directory / FILES[0]).read_text())


def _download(directory: Path) -> None:
    """Downloads the archive of libfuse's authors, which apt verifies."""
    places = {name: directory / name for name in ("sources", "lists", "cache")}
    for place in places.values():
        place.mkdir()
    for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if file.is_file():
            # The repositories that binary packages are from, in both formats of sources.list(5).
            text = re.sub(r"^deb(?=\s)", "deb-src", file.read_text(), flags=re.MULTILINE)
            text = re.sub(r"^Types:.*", "Types: deb-src", text, flags=re.MULTILINE)
            (places["sources"] / file.name).write_text(text)
    apt = ["apt-get", "-q", "-o", "Dir::Etc::SourceList=-", "-o", f"Dir::Etc::SourceParts={places['sources']}"]
    apt += ["-o", f"Dir::State::Lists={places['lists']}", "-o", f"Dir::Cache={places['cache']}"]
    _run(directory, *apt, "update")
    _run(directory, *apt, "source", "--download-only", "--only-source", "--tar-only", "fuse3")


def _extract(directory: Path) -> None:
    archives = list(directory.glob("fuse3_*.orig.tar.*"))
    if not archives:
        raise Unavailable("its source package has no archive")
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and path.parts[1:-1] == ("example",) and path.name in FILES:
                (directory / path.name).write_bytes(archive.extractfile(member).read())


def _run(directory: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_TIMEOUT, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise Unavailable(f"{command[0]}: {said[-1] if said else f'ended with {done.returncode}'}")
    return done.stdout
