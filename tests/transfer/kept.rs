//! What a tree is made of stands in its copy.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use xpmfs::transfer::{Candidate, Kind, Manifest, Options, scan};

use super::tree::{assert_same, bytes};
use super::{Stage, command};

#[test]
fn every_kind_of_entry_is_copied() {
    let stage = Stage::new();
    stage.file("data/a.txt", "content");
    stage.file("empty", "");
    stage.file("uv.lock", "version = 1");
    fs::create_dir_all(stage.source().join("nothing/in/here")).unwrap();
    let at = |name: &str| stage.source().join(name);
    symlink("gone/for/ever", at("dangling")).unwrap();
    symlink("/etc/passwd", at("outside")).unwrap();
    symlink("data", at("to-directory")).unwrap();
    symlink(bytes(b"\xff\xfe"), at("odd-target")).unwrap();
    rustix::fs::mknodat(
        CWD,
        at("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let names: [&[u8]; 7] = [
        b"new\nline",
        b" ",
        b"\\",
        b"-rf",
        b"\xff\x01",
        b"...",
        &[b'x'; 255],
    ];
    for name in names {
        fs::write(at("data").join(bytes(name)), name).unwrap();
        let dir = at("nothing").join(bytes(name));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "in it").unwrap();
    }
    let copied = stage.run(&Options::default()).unwrap();
    assert_same(&stage.source(), &stage.copy());
    assert_eq!(copied.losses, []);
    let copy = scan(File::open(stage.copy()).unwrap(), &Options::default()).unwrap();
    assert_eq!(copied.manifest, copy);
    let mut written = Vec::new();
    copied.manifest.write(&mut written).unwrap();
    assert_eq!(Manifest::read(&*written).unwrap(), copy);
}

#[test]
fn a_manifest_has_the_hash_of_each_file() {
    let stage = Stage::new();
    let large: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    for (name, content) in [("small", &b"abc"[..]), ("empty", b""), ("large", &large)] {
        stage.file(name, content);
    }
    let manifest = stage.run(&Options::default()).unwrap().manifest;
    assert_same(&stage.source(), &stage.copy());
    for (index, entry) in manifest.entries().iter().enumerate().skip(1) {
        let content = fs::read(stage.source().join(manifest.path(index))).unwrap();
        let Kind::File { size, hash, link } = entry.kind else {
            panic!("{entry:?}");
        };
        assert_eq!((size, hash), (content.len() as u64, blake3::hash(&content)));
        assert_eq!(link, None);
    }
}

#[test]
fn a_hole_stays_one_in_a_file_whose_attributes_take_as_many_blocks() {
    let stage = Stage::new();
    let file = File::create(stage.source().join("file")).unwrap();
    file.write_all_at(&[7; 3000], 4096).unwrap();
    rustix::fs::fsetxattr(&file, "user.a", &[1; 3000], rustix::fs::XattrFlags::empty()).unwrap();
    stage.run(&Options::default()).unwrap();
    assert_same(&stage.source(), &stage.copy());
}

#[test]
fn holes_stay_holes() {
    let stage = Stage::new();
    let file = |name: &str, size: u64, data: &[u64]| {
        let file = File::create(stage.source().join(name)).unwrap();
        file.set_len(size).unwrap();
        for offset in data {
            file.write_all_at(b"data", *offset).unwrap();
        }
    };
    file("all", 1 << 27, &[]);
    file("front", (64 << 20) + 5, &[40 << 20]);
    file("back", 64 << 20, &[0, 9 << 20]);
    file("both", 64 << 20, &[20 << 20, 50 << 20]);
    file("none", 10, &[0, 6]);
    file("tail", (1 << 20) + 1, &[(1 << 20) - 3]);
    stage.run(&Options::default()).unwrap();
    assert_same(&stage.source(), &stage.copy());
    let blocks = |name: &str| fs::metadata(stage.copy().join(name)).unwrap().blocks();
    assert!(
        blocks("all") < 16 && blocks("both") < 64,
        "{}",
        blocks("both")
    );
}

#[test]
fn hard_links_stay_links_across_directories() {
    let stage = Stage::new();
    let first = stage.file("z/first", "shared");
    stage.file("a/x/other", "other");
    for name in ["a/second", "a/x/third", "fourth"] {
        fs::hard_link(&first, stage.source().join(name)).unwrap();
    }
    // And one that leads out of the tree.
    let outside = stage.file("outside", "is also elsewhere");
    fs::hard_link(&outside, stage.top().join("elsewhere")).unwrap();
    let manifest = stage.run(&Options::default()).unwrap().manifest;
    assert_same(&stage.source(), &stage.copy());
    let meta = |name: &str| fs::metadata(stage.copy().join(name)).unwrap();
    assert_eq!(meta("z/first").ino(), meta("a/x/third").ino());
    assert_eq!(meta("z/first").nlink(), 4);
    assert_eq!(meta("outside").nlink(), 1);
    assert_eq!(manifest.bytes(), 6 + 5 + 17);
}

#[test]
fn what_is_selected_is_copied_and_the_rest_is_not() {
    let stage = Stage::new();
    for (name, content) in [
        ("train.lock", "x"),
        ("empty.lock", ""),
        ("uv.lock", "version = 1"),
        (".scheduler/log", "x"),
        ("data/empty.lock", ""),
        (".experimaestro/train.lock", ""),
        (".experimaestro/status.json", "{}"),
    ] {
        stage.file(name, content);
    }
    let select = |entry: &Candidate<'_>| {
        let name = entry.name().to_str().unwrap();
        match (entry.depth(), entry.parent().to_str().unwrap()) {
            (0, "") => {
                name != "train.lock"
                    && !(entry.is_directory() && name == ".scheduler")
                    && !(name.ends_with(".lock") && entry.size() == Some(0))
            }
            (1, ".experimaestro") => name != "train.lock",
            (1, "data") => true,
            other => panic!("{other:?}"),
        }
    };
    let options = Options {
        select: Some(&select),
        ..Options::default()
    };
    let copied = stage.run(&options).unwrap();
    let paths: Vec<_> = (1..copied.manifest.entries().len())
        .map(|index| copied.manifest.path(index).to_str().unwrap().to_owned())
        .collect();
    let expected = [
        ".experimaestro",
        ".experimaestro/status.json",
        "data",
        "data/empty.lock",
        "uv.lock",
    ];
    assert_eq!(paths, expected);
    assert_eq!(super::tree::tree(&stage.copy()).len(), 6);
    // A lock that was empty, and that somebody writes into, is data.
    let source = File::open(stage.source()).unwrap();
    copied.unchanged(&source, options.select).unwrap();
    fs::write(stage.source().join("empty.lock"), "data now").unwrap();
    let error = copied.unchanged(&source, options.select).unwrap_err();
    assert!(error.is_changed(), "{error}");
    assert_eq!(error.path().unwrap(), "empty.lock");
}

#[test]
fn many_files_are_copied_by_several_threads() {
    let stage = Stage::new();
    for index in 0..3000 {
        stage.file(
            &format!("{}/{}/{index}", index % 7, index % 13),
            index.to_string(),
        );
    }
    let copied = stage.run(&Options::default()).unwrap();
    assert_same(&stage.source(), &stage.copy());
    assert_eq!(copied.manifest.files(), 3000);
}

#[test]
fn depth_needs_neither_stack_nor_descriptors_nor_short_paths() {
    const DEPTH: usize = 3000;
    let stage = Stage::new();
    let limit = Rlimit {
        current: Some(400),
        ..rustix::process::getrlimit(Resource::Nofile)
    };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    let mut dir = OwnedFd::from(File::open(stage.source()).unwrap());
    let name = "d".repeat(20);
    for depth in 0..DEPTH {
        let rwx = Mode::RWXU;
        let create = OFlags::WRONLY | OFlags::CREATE;
        drop(rustix::fs::openat(&dir, format!("file{depth}"), create, rwx).unwrap());
        rustix::fs::mkdirat(&dir, &*name, rwx).unwrap();
        dir = rustix::fs::openat(&dir, &*name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let copied = stage.run(&Options::default()).unwrap();
    assert_eq!(copied.manifest.entries().len(), 2 * DEPTH + 1);
    let copy = scan(File::open(stage.copy()).unwrap(), &Options::default()).unwrap();
    assert!(copied.manifest.differences(&copy).is_empty());
    assert!(copy.path(DEPTH).as_os_str().len() > 4096);
    command("rm", &[&"-rf", &stage.source(), &stage.copy()]);
}

#[test]
fn what_is_to_be_last_is_written_last() {
    let stage = Stage::new();
    for index in 0..200 {
        stage.file(&format!("{index}"), "x");
    }
    stage.file("train.done", "");
    stage
        .run(&Options {
            last: Some(OsStr::new("train.done")),
            ..Options::default()
        })
        .unwrap();
    let changed = |name: &str| {
        let meta = fs::metadata(stage.copy().join(name)).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    for index in 0..200 {
        assert!(changed(&index.to_string()) <= changed("train.done"));
    }
    assert_same(&stage.source(), &stage.copy());
}
