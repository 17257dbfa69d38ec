# shellcheck shell=bash
# Functions that install what the scripts need. Sourced by the scripts; does nothing by itself.
#
# They install only what is missing. Otherwise they change nothing but the mode of /dev/fuse where an ordinary
# user cannot open it, and /etc/mtab where it is missing.

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$@"
    exit 1
}

# Runs a command as root: as it is, or through sudo.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: log in as root (or install sudo), and run: $*"
    fi
}

is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Installs those of the given Debian packages that are missing.
need_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "this is not Debian: install what these packages contain: $*"
        return
    fi
    local package missing=()
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    if [[ ${#missing[@]} -eq 0 ]]; then
        return
    fi
    if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null; then
        die "packages are missing; as root, run: apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    as_root "${apt[@]}" update >&2 || say "apt-get update failed; trying to install nevertheless"
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 ||
        die "could not install ${missing[*]}: see what apt-get says above"
}

# Makes sure that cargo is found, of the Rust version that Cargo.toml names or later, and the linker that it calls.
need_cargo() {
    if ! command -v cargo >/dev/null && [[ -f ${CARGO_HOME:-$HOME/.cargo}/env ]]; then
        # rustup changes the PATH of later shells, not of this one.
        # shellcheck source=/dev/null
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")
    command -v cargo >/dev/null || die "cargo is missing: install Rust $needed or later, see https://rustup.rs"
    found=$(cargo --version)
    found=${found#cargo }
    found=${found%% *}
    if [[ $(printf '%s\n' "$needed" "$found" | sort -V | head -n 1) != "$needed" ]]; then
        die "Rust $needed or later is needed, and cargo is $found: run rustup update, or see https://rustup.rs"
    fi
    command -v cc >/dev/null || need_packages gcc libc6-dev
}

# Makes /dev/fuse usable for the current user, or for every user if that is root, and makes /etc/mtab, from which
# fusermount3 knows mounts that it may end.
need_fuse() {
    if [[ ! -e /etc/mtab ]]; then
        # Installers and container engines make it, debootstrap does not.
        say "making /etc/mtab, without which fusermount3 cannot unmount"
        as_root ln -sf ../proc/self/mounts /etc/mtab
    fi
    if [[ ! -c /dev/fuse && $EUID -eq 0 ]]; then
        modprobe fuse 2>/dev/null || true
    fi
    [[ -c /dev/fuse ]] ||
        die "/dev/fuse is missing: load the kernel's module fuse; in a container, start it with" \
            "--device /dev/fuse --cap-add SYS_ADMIN"
    if [[ $EUID -ne 0 && -r /dev/fuse && -w /dev/fuse ]]; then
        return
    fi
    if [[ $(stat -c %a /dev/fuse) != 666 ]]; then
        say "making /dev/fuse usable by ordinary users"
        as_root chmod 0666 /dev/fuse
    fi
}

# Sets XPMFS_TEST_PYTHON to an interpreter that has the locked packages. Called in the project's directory.
need_python() {
    local requirements=tests/python/requirements.txt
    if [[ -n ${XPMFS_TEST_PYTHON:-} ]]; then
        "$XPMFS_TEST_PYTHON" -c 'import experimaestro, numpy' ||
            die "XPMFS_TEST_PYTHON=$XPMFS_TEST_PYTHON lacks experimaestro or numpy: install $requirements there, or" \
                "unset it to have target/venv made and used"
        return
    fi
    local venv=$PWD/target/venv
    export XPMFS_TEST_PYTHON=$venv/bin/python
    # The copy of the requirements is made last: without it, or with another, the environment is incomplete or out of date.
    if cmp --quiet "$requirements" "$venv/requirements.txt" && "$XPMFS_TEST_PYTHON" -c 'import experimaestro, numpy'; then
        return
    fi
    say "making target/venv from $requirements"
    mkdir -p target
    python3 -m venv --clear "$venv" || die "could not make a Python virtual environment in $venv"
    # Wheels only: building a source package would install build tools that no lock names.
    "$XPMFS_TEST_PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
        --require-hashes --requirement "$requirements" >&2 || die "could not install $requirements from PyPI"
    cp "$requirements" "$venv/requirements.txt"
}

# The directory below which cargo builds.
target_directory() {
    printf '%s\n' "${CARGO_TARGET_DIR:-$PWD/target}"
}
