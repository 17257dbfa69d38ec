//! The options of xpmfs, those without an effect here, and those of other programs that xpmfs lacks.

/// Our options, as they are written.
pub const OURS: [&str; 19] = [
    "ro",
    "rw",
    "allow_other",
    "default_permissions",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "remount",
    "fsname=NAME",
    "workspace=ID",
    "settings=FILE",
    "folder=MODE:PATH",
    "log=FILE",
    "no_archive",
];

/// Options for mount(8), fstab, autofs and systemd, and options for what every mount of xpmfs does: they are accepted and have
/// no effect, as is everything that begins with `x-` or `X-`.
const IGNORED: [&str; 31] = [
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "defaults",
    "comment",
    "helper",
    "uhelper",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "async",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
];

/// What file systems of libfuse, and others, take and we do not, with what to do.
const ELSEWHERE: [(&[&str], &str); 7] = [
    (
        &["allow_root"],
        "use `allow_other`, which lets root in among the others, or leave it out",
    ),
    (
        &["nonempty"],
        "leave it out; mount at an empty directory, or in place, over the workspace's own",
    ),
    (
        &["auto_unmount"],
        "leave it out; the daemon unmounts when it ends, and what a killed one leaves is cleared by the next mount or by `xpmfs umount`",
    ),
    (
        &["uid", "gid", "umask", "fmask", "dmask"],
        "leave it out; files have the owner and the mode that they have on the disk, and `allow_other` lets other users in",
    ),
    (
        &["sync", "dirsync"],
        "leave it out; programs that need something to be on the disk call fsync, which goes through to it",
    ),
    (
        &["bind", "rbind", "move"],
        "that is for mount(8) without a type",
    ),
    (
        &[
            "max_read",
            "max_write",
            "max_readahead",
            "max_background",
            "congestion_threshold",
            "big_writes",
            "large_read",
            "async_read",
            "sync_read",
            "async_dio",
            "kernel_cache",
            "auto_cache",
            "noauto_cache",
            "writeback_cache",
            "direct_io",
            "entry_timeout",
            "attr_timeout",
            "ac_attr_timeout",
            "negative_timeout",
            "use_ino",
            "readdir_ino",
            "hard_remove",
            "intr",
            "blkdev",
            "blksize",
            "clone_fd",
            "max_threads",
            "max_idle_threads",
            "fd",
            "rootmode",
            "user_id",
            "group_id",
        ],
        "leave it out; xpmfs decides that for itself",
    ),
];

/// Whether an option is taken and means nothing.
pub(super) fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// What to do about an option that is known elsewhere.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    ELSEWHERE
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, advice)| *advice)
}

/// The message for an unknown option: the option that was probably meant, or the known ones.
pub(super) fn meant(option: &str) -> String {
    let names = OURS.iter().map(|known| name_of(known)).chain(IGNORED);
    names
        .map(|known| (strsim::damerau_levenshtein(option, known), known))
        .min()
        .filter(|(distance, _)| *distance <= option.len() / 4)
        .map_or_else(
            || format!("the options are {}", OURS.join(", ")),
            |(_, known)| format!("did you mean `{known}`?"),
        )
}

fn name_of(known: &'static str) -> &'static str {
    known.split('=').next().unwrap_or(known)
}
