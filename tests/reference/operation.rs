//! What can be done to a tree, and how sequences of it are drawn.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use crate::stage::Who;

/// A path below the top of a tree.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) OsString);

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p({:?})", self.0)
    }
}

impl Path {
    /// Whether the path cannot lead to a job, a task or `jobs`.
    fn may_be_whiteout(&self) -> bool {
        let path = std::path::Path::new(&self.0);
        let up = std::path::Component::ParentDir;
        path.components().all(|component| component != up)
            && (!path.starts_with("jobs") || path.components().count() > 3)
    }
}

/// A path, as failures print it.
pub(crate) fn p(path: &str) -> Path {
    Path(path.into())
}

/// Which of a few open files; which of a few open directories.
pub(crate) type Slot = usize;

/// How many of each there are.
pub(crate) const SLOTS: usize = 4;

/// A time to set: `None` leaves it, `Some(None)` is now.
pub(crate) type Time = Option<Option<(i64, u32)>>;

/// `RENAME_WHITEOUT`.
const WHITEOUT: u32 = 4;

/// Numbers stand for flags as Linux has them.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// The umask from now on.
    Umask(u32),
    /// Who does what follows: an index into `world::USERS`.
    Become(usize),
    Open(Slot, Path, i32, u32),
    Close(Slot),
    Read(Slot, usize),
    Write(Slot, usize, u8),
    ReadAt(Slot, u64, usize),
    WriteAt(Slot, u64, usize, u8),
    Seek(Slot, u64, i32),
    TruncateOpen(Slot, u64),
    Allocate(Slot, u32, u64, u64),
    /// From, to, their offsets, length.
    Copy(Slot, Slot, u64, u64, usize),
    Sync(Slot, bool),
    StatOpen(Slot),
    ModeOpen(Slot, u32),
    OwnOpen(Slot, u32, u32),
    TimesOpen(Slot, Time, Time),
    /// Shared, exclusive or unlock, never waiting.
    Lock(Slot, i32),
    SetAttributeOpen(Slot, &'static str, usize),
    /// Into a slot for mappings: shared, for writing.
    Map(Slot, Slot, bool, bool),
    MapRead(Slot, usize),
    MapWrite(Slot, usize, u8),
    OpenDirectory(Slot, Path),
    /// From the beginning, all of it.
    List(Slot),
    /// A file made in an open directory by a name relative to it.
    MakeIn(Slot, Path),
    Truncate(Path, u64),
    ReadAll(Path),
    Mkdir(Path, u32),
    Rmdir(Path),
    Unlink(Path),
    Rename(Path, Path, u32),
    Link(Path, Path, bool),
    Symlink(Path, Path),
    Readlink(Path),
    /// `S_IFIFO` and so on, rights.
    Mknod(Path, u32, u32),
    Mode(Path, u32),
    /// Owner, group, whether a symlink itself.
    Own(Path, u32, u32, bool),
    Times(Path, Time, Time, bool),
    SetAttribute(Path, &'static str, usize, u32),
    GetAttribute(Path, &'static str),
    Attributes(Path),
    RemoveAttribute(Path, &'static str),
    Stat(Path, bool),
    ListAt(Path),
    Access(Path, u32),
}

impl Operation {
    /// Whether one of its paths leads into an archived job by its words.
    pub(crate) fn names_an_archived_job(&self) -> bool {
        let printed = format!("{self:?}");
        ["u", "b", "m"]
            .iter()
            .any(|hash| printed.contains(&format!("jobs/t.n/{hash}")))
    }

    /// The same, but for what is known not to be as on a disk (see the page of deviations):
    ///
    /// - Without `allow_other` the kernel leaves all rights to the daemon, and does not ask it about names
    ///   that it knows, nor about pipes: what its owner may not use can still be used by those.
    /// - A file that gets set-id bits while it is open loses them when root writes; and when what is mapped
    ///   is written back.
    pub(crate) fn comparable(mut self, who: Who) -> Operation {
        use Operation as O;
        match (&mut self, who) {
            (O::Mkdir(_, mode) | O::Mknod(_, _, mode) | O::Open(_, _, _, mode), Who::Ordinary) => {
                *mode |= 0o700;
            }
            (O::Mode(_, mode) | O::ModeOpen(_, mode), Who::Ordinary) => {
                *mode = *mode & 0o1777 | 0o700;
            }
            (O::Mode(_, mode) | O::ModeOpen(_, mode), Who::Root) => *mode &= 0o1777,
            // The kernel says nothing of a change of owner that changes none; on a disk it takes set-id bits away.
            (
                O::Own(_, u32::MAX, group @ u32::MAX, _)
                | O::OwnOpen(_, u32::MAX, group @ u32::MAX),
                _,
            ) => {
                *group = 65534;
            }
            // The union has no whiteouts, and in a mount of an ordinary user devices cannot be opened.
            (O::Rename(from, _, flags), _) if who == Who::Ordinary || !from.may_be_whiteout() => {
                *flags &= !WHITEOUT;
            }
            // The daemon's groups, not the caller's, decide about this bit where the group may not execute.
            (O::Open(_, _, _, mode) | O::Mknod(_, _, mode), Who::Root) => *mode &= 0o5777,
            _ => {}
        }
        self
    }
}

const NAMES: [&str; 10] = [
    "a",
    "a",
    "b",
    "b",
    "c",
    "c",
    "d",
    "e",
    "odd\n name\\",
    "\u{e9}\u{1f600}",
];

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        30 => prop::sample::select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec()),
        1 => Just(b"caf\xe9".to_vec()),
        1 => Just(vec![b'x'; 255]),
        1 => Just(vec![b'x'; 256]),
    ]
}

/// Directories that paths begin with: the top, a job of the primary, and one of each folder.
fn start() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => Just(""),
        5 => Just("jobs/t.n/p/"),
        1 => Just("jobs/t.n/n/"),
        1 => Just("jobs/t.n/u/"),
        1 => Just("jobs/t.n/b/"),
        1 => Just("jobs/t.n/m/"),
    ]
}

/// The path of a job that is, or could be, in the primary; of an archived one.
fn job() -> impl Strategy<Value = Path> {
    prop::sample::select(&["p", "p", "n", "x", "u", "b", "m"][..])
        .prop_map(|hash| p(&format!("jobs/t.n/{hash}")))
}

fn path() -> impl Strategy<Value = Path> {
    let names = prop_oneof![
        14 => prop::collection::vec(name(), 1..=1),
        6 => prop::collection::vec(name(), 2..=2),
        2 => prop::collection::vec(name(), 3..=5),
    ];
    let spelling = prop_oneof![20 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    let inside = (start(), names, spelling).prop_map(|(start, names, spelling)| {
        let mut path = start.as_bytes().to_vec();
        path.extend(names.join(&b'/'));
        match spelling {
            1 => path.push(b'/'),
            2 => path.extend(b"/."),
            3 => path.extend(b"/../b"),
            _ => {}
        }
        Path(OsString::from_vec(path))
    });
    prop_oneof![24 => inside, 2 => job()]
}

/// What a symlink leads to: never up, so that nothing leads out of the trees.
fn target() -> impl Strategy<Value = Path> {
    prop_oneof![
        4 => path().prop_filter("leads up", |path| {
            !path.0.to_string_lossy().contains("..")
        }),
        1 => Just(p("jobs/t.n/u/a")),
        1 => Just(Path(OsString::from_vec(vec![b'y'; 300]))),
        1 => Just(p("")),
    ]
}

fn flags() -> impl Strategy<Value = i32> {
    let access =
        prop::sample::select(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR][..]);
    let often = |flag| prop::sample::select(vec![0, flag]);
    let seldom = |flag| prop_oneof![9 => Just(0), 1 => Just(flag)];
    (
        access,
        often(libc::O_CREAT),
        seldom(libc::O_EXCL),
        seldom(libc::O_TRUNC),
        seldom(libc::O_APPEND),
        seldom(libc::O_NOFOLLOW),
        seldom(libc::O_DIRECTORY),
        seldom(libc::O_SYNC),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| {
            // Kernels differ in what the two together mean.
            let g = if b == 0 { g } else { 0 };
            a | b | c | d | e | f | g | h
        })
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(&[0o644, 0o755, 0o700, 0o777, 0o600][..]),
        1 => 0_u32..0o10000,
    ]
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(None)),
        4 => (-3_i64..1_000_000_000, 0_u32..1_000_000_000).prop_map(|time| Some(Some(time))),
    ]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..20_000, 1 => Just(4096), 1 => 0_u64..3_000_000]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0_usize..6000, 1 => Just(4096), 1 => 0_usize..300_000]
}

fn attribute() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["user.a", "user.b", "trusted.a", "nonsense.a"][..])
}

fn user() -> impl Strategy<Value = u32> {
    prop::sample::select(&[0, 12, 65534, u32::MAX][..])
}

/// One operation.
pub(crate) fn any() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let slot = || 0..SLOTS;
    prop_oneof![
        2 => prop::sample::select(&[0, 0o22, 0o77, 0o27][..]).prop_map(O::Umask),
        3 => prop_oneof![3 => Just(0_usize), 1 => 1_usize..4].prop_map(O::Become),
        70 => opened(),
        60 => named(),
        5 => (slot(), path()).prop_map(|(a, b)| O::OpenDirectory(a, b)),
        5 => slot().prop_map(O::List),
        1 => (slot(), name()).prop_map(|(slot, name)| O::MakeIn(slot, Path(OsString::from_vec(name)))),
    ]
}

/// What is done to open files, and opening them.
fn opened() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let slot = || 0..SLOTS;
    let allocation = prop::sample::select(&[0, 1, 3, 16, 17][..]);
    let whence = prop::sample::select(&[0, 1, 2, libc::SEEK_DATA, libc::SEEK_HOLE][..]);
    let lock = prop::sample::select(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN][..]);
    prop_oneof![
        10 => (slot(), path(), flags(), mode()).prop_map(|(a, b, c, d)| O::Open(a, b, c, d)),
        1 => slot().prop_map(O::Close),
        3 => (slot(), length()).prop_map(|(a, b)| O::Read(a, b)),
        5 => (slot(), length(), any_byte()).prop_map(|(a, b, c)| O::Write(a, b, c)),
        3 => (slot(), offset(), length()).prop_map(|(a, b, c)| O::ReadAt(a, b, c)),
        4 => (slot(), offset(), length(), any_byte()).prop_map(|(a, b, c, d)| O::WriteAt(a, b, c, d)),
        2 => (slot(), offset(), whence).prop_map(|(a, b, c)| O::Seek(a, b, c)),
        2 => (slot(), offset()).prop_map(|(a, b)| O::TruncateOpen(a, b)),
        3 => (slot(), allocation, offset(), offset()).prop_map(|(a, b, c, d)| O::Allocate(a, b, c, d)),
        2 => (slot(), slot(), offset(), offset(), length())
            .prop_map(|(a, b, c, d, e)| O::Copy(a, b, c, d, e)),
        1 => (slot(), prop::bool::ANY).prop_map(|(a, b)| O::Sync(a, b)),
        2 => slot().prop_map(O::StatOpen),
        2 => (slot(), mode()).prop_map(|(a, b)| O::ModeOpen(a, b)),
        1 => (slot(), user(), user()).prop_map(|(a, b, c)| O::OwnOpen(a, b, c)),
        1 => (slot(), time(), time()).prop_map(|(a, b, c)| O::TimesOpen(a, b, c)),
        2 => (slot(), lock).prop_map(|(a, b)| O::Lock(a, b)),
        1 => (slot(), attribute(), 0_usize..300).prop_map(|(a, b, c)| O::SetAttributeOpen(a, b, c)),
        2 => (slot(), slot(), prop::bool::ANY, prop::bool::ANY).prop_map(|(a, b, c, d)| O::Map(a, b, c, d)),
        3 => (slot(), 0_usize..4096).prop_map(|(a, b)| O::MapRead(a, b)),
        3 => (slot(), 0_usize..4096, any_byte()).prop_map(|(a, b, c)| O::MapWrite(a, b, c)),
    ]
}

fn any_byte() -> impl Strategy<Value = u8> {
    1_u8..=255
}

/// What is done by name.
fn named() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let flag = || prop::bool::ANY;
    let kind =
        prop::sample::select(&[libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFREG, libc::S_IFCHR][..]);
    let rename = prop::sample::select(&[0, 0, 0, 1, 2, 2, 3, WHITEOUT, WHITEOUT, 8][..]);
    prop_oneof![
        4 => (path(), mode()).prop_map(|(a, b)| O::Mkdir(a, b)),
        2 => path().prop_map(O::Rmdir),
        3 => path().prop_map(O::Unlink),
        8 => (path(), path(), rename).prop_map(|(a, b, c)| O::Rename(a, b, c)),
        4 => (path(), path(), flag()).prop_map(|(a, b, c)| O::Link(a, b, c)),
        3 => (target(), path()).prop_map(|(a, b)| O::Symlink(a, b)),
        1 => path().prop_map(O::Readlink),
        2 => (path(), kind, mode()).prop_map(|(a, b, c)| O::Mknod(a, b, c)),
        2 => (path(), offset()).prop_map(|(a, b)| O::Truncate(a, b)),
        3 => path().prop_map(O::ReadAll),
        3 => (path(), mode()).prop_map(|(a, b)| O::Mode(a, b)),
        2 => (path(), user(), user(), flag()).prop_map(|(a, b, c, d)| O::Own(a, b, c, d)),
        2 => (path(), time(), time(), flag()).prop_map(|(a, b, c, d)| O::Times(a, b, c, d)),
        2 => (path(), attribute(), 0_usize..300, 0_u32..3).prop_map(|(a, b, c, d)| O::SetAttribute(a, b, c, d)),
        1 => (path(), attribute()).prop_map(|(a, b)| O::GetAttribute(a, b)),
        1 => path().prop_map(O::Attributes),
        1 => (path(), attribute()).prop_map(|(a, b)| O::RemoveAttribute(a, b)),
        3 => (path(), flag()).prop_map(|(a, b)| O::Stat(a, b)),
        2 => path().prop_map(O::ListAt),
        1 => (path(), 0_u32..8).prop_map(|(a, b)| O::Access(a, b)),
    ]
}
