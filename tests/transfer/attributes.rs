//! Modes, owners, times, extended attributes, access control lists.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use xpmfs::transfer::{Lost, Options};

use super::tree::assert_same;
use super::{Stage, command, is_root};

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn modes_and_times_are_kept_of_files_symlinks_and_directories() {
    let stage = Stage::new();
    for (index, mode) in [0o644, 0o600, 0o444, 0o755, 0o4755, 0o2755, 0o1644, 0o000]
        .into_iter()
        .enumerate()
    {
        let path = stage.file(&format!("dir{index}/deeper/file"), "x");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        set_times(&path, 1_000_000_000 + index as i64, 123_456_789);
        let link = path.with_file_name("link");
        symlink("nowhere", &link).unwrap();
        set_times(&link, -5, 1);
        set_times(path.parent().unwrap(), 2_000_000_000, 999_999_999);
    }
    if rustix::process::geteuid().is_root() {
        for (dir, mode) in [("dir0", 0o000), ("dir1", 0o3777), ("dir2", 0o555)] {
            let dir = stage.source().join(dir);
            fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        }
    } else {
        // Nobody but root could read it.
        let unreadable = stage.source().join("dir7/deeper/file");
        fs::set_permissions(unreadable, Permissions::from_mode(0o400)).unwrap();
    }
    set_times(&stage.source().join("dir0"), 1, 2);
    set_times(&stage.source(), 3, 4);
    stage.run(&Options::default()).unwrap();
    assert_same(&stage.source(), &stage.copy());
}

#[test]
fn times_of_access_are_kept_and_the_sources_are_left_alone() {
    let stage = Stage::new();
    let file = stage.file("dir/file", "x");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    let now = SystemTime::now();
    let times = FileTimes::new().set_accessed(long_ago).set_modified(now);
    File::open(&file).unwrap().set_times(times).unwrap();
    File::open(file.parent().unwrap())
        .unwrap()
        .set_times(times)
        .unwrap();
    stage.run(&Options::default()).unwrap();
    for top in [stage.copy(), stage.source()] {
        for path in ["dir/file", "dir"] {
            let accessed = fs::metadata(top.join(path)).unwrap().accessed().unwrap();
            assert_eq!(accessed, long_ago, "{top:?} {path}");
        }
    }
}

#[test]
fn extended_attributes_and_access_control_lists_are_kept() {
    let stage = Stage::new();
    let file = stage.file("dir/file", "x");
    let dir = file.parent().unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&file, "user.empty", b"");
    set(&file, "user.binary", b"\x00\xff\x00");
    set(&file, "user.long", &[7; 2000]);
    for index in 0..20 {
        set(
            dir,
            &format!("user.a-rather-long-name-of-an-attribute-{index}"),
            b"v",
        );
    }
    set(&stage.source(), "user.top", b"too");
    if rustix::process::geteuid().is_root() {
        set(&file, "trusted.mine", b"root's");
        set(
            &file,
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    let listed = stage.file("dir/listed", "x");
    fs::set_permissions(&listed, Permissions::from_mode(0o4750)).unwrap();
    command("setfacl", &[&"-m", &"u:1234:rwx,g:4321:r,m::rx", &listed]);
    command("setfacl", &[&"-m", &"d:u:1234:rw", &dir]);
    // Made before its directory had a list, it inherited none.
    let stat = fs::metadata(&listed).unwrap();
    assert_eq!(stat.mode() & 0o7777, 0o4750);
    let copied = stage.run(&Options::default()).unwrap();
    assert_eq!(copied.losses, []);
    assert_same(&stage.source(), &stage.copy());
}

#[test]
fn a_copy_inherits_no_access_control_list_from_where_it_is_made() {
    let stage = Stage::new();
    stage.file("dir/file", "x");
    command(
        "setfacl",
        &[&"-m", &"d:u:1234:rwx,u:1234:rwx", &stage.copy()],
    );
    stage.run(&Options::default()).unwrap();
    assert_same(&stage.source(), &stage.copy());
}

#[test]
fn owners_are_kept_where_that_is_permitted() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let file = stage.file("dir/file", "x");
    let set_id = stage.file("dir/set-id", "x");
    symlink("nowhere", stage.source().join("link")).unwrap();
    for path in [&file, &set_id, &stage.source().join("link")] {
        lchown(path, Some(1234), Some(4321)).unwrap();
    }
    fs::set_permissions(&set_id, Permissions::from_mode(0o6755)).unwrap();
    lchown(stage.source().join("dir"), Some(65534), Some(65534)).unwrap();
    let copied = stage.run(&Options::default()).unwrap();
    assert_eq!(copied.losses, []);
    assert_same(&stage.source(), &stage.copy());
}

#[test]
fn an_ordinary_user_copies_what_others_own_and_is_told() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    for name in ["one", "two"] {
        let file = stage.file(name, "x");
        fs::set_permissions(&file, Permissions::from_mode(0o6755)).unwrap();
    }
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    for path in [stage.copy(), stage.source()] {
        lchown(path, Some(65534), Some(65534)).unwrap();
    }
    let copied = super::as_nobody(|| stage.run(&Options::default())).unwrap();
    let losses = copied.losses.iter().map(|loss| (&loss.what, loss.count));
    let losses: Vec<_> = losses.collect();
    assert_eq!(losses, [(&Lost::Owner, 2), (&Lost::Group, 2)]);
    for (index, entry) in copied.manifest.entries().iter().enumerate().skip(1) {
        let meta = fs::metadata(stage.copy().join(copied.manifest.path(index))).unwrap();
        // What was root's and lent root's rights does not lend another's.
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (65534, 0o755));
        assert_eq!(entry.mode, 0o755);
    }
}

/// Those of the other group have been others so far, and those of the original's are others from now on.
#[test]
fn what_only_a_group_might_do_nobody_may_with_a_copy_that_is_another_group_s() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    for (index, (mode, expected)) in MODES.iter().enumerate() {
        let file = stage.file(&format!("dir{index}/file"), "x");
        let fifo = file.with_file_name("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [&file, &fifo, file.parent().unwrap()] {
            lchown(path, Some(65534), Some(4001)).unwrap();
            fs::set_permissions(path, Permissions::from_mode(*mode)).unwrap();
        }
        fs::hard_link(&file, file.with_file_name("again")).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, *mode);
        assert!(expected & !mode == 0);
    }
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    for path in [stage.copy(), stage.source()] {
        lchown(path, Some(65534), Some(65534)).unwrap();
    }
    let copied = super::as_nobody(|| stage.run(&Options::default())).unwrap();
    let [loss] = copied.losses.as_slice() else {
        panic!("{:?}", copied.losses);
    };
    assert_eq!(
        (&loss.what, loss.count),
        (&Lost::Group, 3 * MODES.len() as u64)
    );
    for (index, (mode, expected)) in MODES.iter().enumerate() {
        for name in [".", "file", "again", "fifo"] {
            let path = stage.copy().join(format!("dir{index}")).join(name);
            let found = fs::symlink_metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (65534, 65534));
            let found = found.mode() & 0o7777;
            assert_eq!(found, *expected, "{name} of {mode:o}: {found:o}");
        }
    }
    let options = Options::default();
    let copy = File::open(stage.copy()).unwrap();
    let differences = xpmfs::transfer::verify(&copy, &copied.manifest, &options).unwrap();
    assert!(differences.is_empty(), "{differences:?}");
}

/// Modes, and those of copies of another group.
const MODES: [(u32, u32); 6] = [
    (0o740, 0o700),
    (0o750, 0o700),
    (0o764, 0o744),
    (0o775, 0o755),
    (0o704, 0o700),
    (0o744, 0o744),
];

/// The bits of the group are then the most that the list gives to anybody.
#[test]
fn an_access_control_list_gives_nothing_to_another_group_either() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let file = stage.file("file", "x");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    command("setfacl", &[&"-m", &"u:1234:rw,g:4321:r", &file]);
    lchown(&file, Some(65534), Some(4001)).unwrap();
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    for path in [stage.copy(), stage.source()] {
        lchown(path, Some(65534), Some(65534)).unwrap();
    }
    super::as_nobody(|| stage.run(&Options::default())).unwrap();
    let output = std::process::Command::new("getfacl")
        .args(["-cnpE"])
        .arg(stage.copy().join("file"))
        .output()
        .unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let expected = "user::rw-\nuser:1234:rw-\ngroup::---\ngroup:4321:r--\nmask::rw-\nother::---\n";
    assert_eq!(list.trim(), expected.trim());
}

#[test]
fn sockets_are_left_out_and_told_of() {
    let stage = Stage::new();
    stage.file("file", "x");
    let _socket = UnixListener::bind(stage.source().join("socket")).unwrap();
    let copied = stage.run(&Options::default()).unwrap();
    assert!(!stage.copy().join("socket").exists() && stage.copy().join("file").exists());
    assert_eq!(copied.losses.len(), 1);
    assert_eq!(copied.losses[0].what, Lost::Special);
    assert_eq!(copied.losses[0].example, Path::new("socket"));
}

#[test]
fn symlinks_and_fifos_keep_what_attributes_they_have() {
    let stage = Stage::new();
    let (link, fifo) = (stage.source().join("link"), stage.source().join("fifo"));
    symlink("nowhere", &link).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    command("setfacl", &[&"-m", &"u:1234:rw", &fifo]);
    if rustix::process::geteuid().is_root() {
        for path in [&link, &fifo] {
            let flags = XattrFlags::empty();
            rustix::fs::lsetxattr(path, "trusted.mine", &[7; 300], flags).unwrap();
        }
    }
    let copied = stage.run(&Options::default()).unwrap();
    assert_eq!(copied.losses, []);
    assert_same(&stage.source(), &stage.copy());
}

/// The manifest has no word for them.
#[test]
fn hard_links_of_symlinks_and_fifos_are_told_of() {
    let stage = Stage::new();
    let at = |name: &str| stage.source().join(name);
    symlink("nowhere", at("link")).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap();
    for (name, other) in [("link", "again"), ("link", "and-again"), ("fifo", "other")] {
        // Of the symlink itself.
        let flags = AtFlags::empty();
        rustix::fs::linkat(CWD, at(name), CWD, at(other), flags).unwrap();
    }
    let copied = stage.run(&Options::default()).unwrap();
    let [loss] = copied.losses.as_slice() else {
        panic!("{:?}", copied.losses);
    };
    assert_eq!((&loss.what, loss.count), (&Lost::HardLink, 3));
    for name in ["link", "again", "and-again", "fifo", "other"] {
        let stat = fs::symlink_metadata(stage.copy().join(name)).unwrap();
        assert_eq!(stat.nlink(), 1, "{name}");
    }
}
