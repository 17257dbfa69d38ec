//! Random trees.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustix::fs::XattrFlags;
use xpmfs::transfer::{Manifest, Options, scan, verify};

use super::Stage;
use super::tree::assert_same;

/// What is made at a path; indices choose among what has been made before.
#[derive(Debug, Clone)]
enum Make {
    File {
        parts: Vec<(u32, Vec<u8>)>,
        size: u32,
        mode: u32,
        attribute: Option<Vec<u8>>,
    },
    Directory {
        mode: u32,
    },
    Symlink(Vec<u8>),
    HardLink(usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(
        any::<u8>().prop_map(|byte| {
            if byte == 0 || byte == b'/' {
                b'_'
            } else {
                byte
            }
        }),
        1..40,
    )
    .prop_filter("a name", |name| name != b"." && name != b"..")
}

fn make() -> impl Strategy<Value = Make> {
    prop_oneof![
        4 => (
            vec((0..3_000_000u32, vec(any::<u8>(), 0..5000)), 0..4),
            prop_oneof![3 => Just(0), 1 => 0..3_000_000u32],
            0..0o10000u32,
            proptest::option::of(vec(any::<u8>(), 0..100)),
        )
            .prop_map(|(parts, size, mode, attribute)| Make::File {
                parts,
                size,
                // Whoever is not root reads it too.
                mode: mode | 0o400,
                attribute
            }),
        2 => (0..0o10000u32).prop_map(|mode| Make::Directory { mode: mode | 0o700 }),
        1 => name().prop_map(Make::Symlink),
        1 => any::<usize>().prop_map(Make::HardLink),
    ]
}

fn build(stage: &Stage, entries: &[(usize, Vec<u8>, Make, u64)]) {
    let (mut directories, mut files) = (vec![stage.source()], Vec::<PathBuf>::new());
    let mut all = Vec::new();
    for (index, name, make, time) in entries {
        let name = std::ffi::OsString::from_vec(name.clone());
        let path = directories[index % directories.len()].join(name);
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match make {
            Make::File {
                parts,
                size,
                attribute,
                mode,
            } => {
                let file = File::create(&path).unwrap();
                file.set_len((*size).into()).unwrap();
                for (offset, data) in parts {
                    file.write_all_at(data, (*offset).into()).unwrap();
                }
                if let Some(value) = attribute {
                    rustix::fs::setxattr(&path, "user.a", value, XattrFlags::empty()).unwrap();
                }
                files.push(path.clone());
                all.push((path, *mode, *time));
            }
            Make::Directory { mode } => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
                all.push((path, *mode, *time));
            }
            Make::Symlink(target) => {
                symlink(std::ffi::OsString::from_vec(target.clone()), path).unwrap();
            }
            Make::HardLink(_) if files.is_empty() => {}
            Make::HardLink(index) => fs::hard_link(&files[index % files.len()], path).unwrap(),
        }
    }
    for (path, mode, time) in all.into_iter().rev() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time);
        let times = FileTimes::new().set_modified(time).set_accessed(time);
        File::open(&path).unwrap().set_times(times).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

/// The same trees each time; others, and more of them, when there is time.
fn trees() -> ProptestConfig {
    let (cases, rng_seed) = match std::env::var_os("XPMFS_SOAK") {
        None => (48, RngSeed::Fixed(1)),
        Some(_) => (2000, RngSeed::Random),
    };
    ProptestConfig {
        cases,
        rng_seed,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(trees())]

    #[test]
    fn any_tree_is_copied(
        entries in vec((any::<usize>(), name(), make(), 0..4_000_000_000_000_000_000u64), 0..60),
        threads in 1..5usize,
    ) {
        let stage = Stage::new();
        build(&stage, &entries);
        let options = Options { threads, ..Options::default() };
        let copied = stage.run(&options).unwrap();
        assert_same(&stage.source(), &stage.copy());
        let copy = File::open(stage.copy()).unwrap();
        prop_assert_eq!(&scan(&copy, &options).unwrap(), &copied.manifest);
        let differences = verify(&copy, &copied.manifest, &options).unwrap();
        prop_assert!(differences.is_empty(), "{:?}", differences);
        let mut written = Vec::new();
        copied.manifest.write(&mut written).unwrap();
        prop_assert_eq!(&Manifest::read(&*written).unwrap(), &copied.manifest);
    }
}
