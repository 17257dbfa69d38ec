//! A copy is read again, and what differs is named.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use xpmfs::transfer::{Candidate, Manifest, Options, scan, verify};

use super::{Stage, as_nobody, is_root};

fn staged() -> (Stage, Manifest) {
    let stage = Stage::new();
    let first = stage.file("dir/file", "content");
    stage.file("dir/sub/other", "content");
    stage.file("large", vec![7; 1 << 20]);
    fs::hard_link(first, stage.source().join("dir/link")).unwrap();
    symlink("dir/file", stage.source().join("symlink")).unwrap();
    let manifest = stage.run(&Options::default()).unwrap().manifest;
    (stage, manifest)
}

fn differences(copy: &Path, manifest: &Manifest) -> Vec<String> {
    let found = verify(File::open(copy).unwrap(), manifest, &Options::default()).unwrap();
    let text = |difference: &xpmfs::transfer::Difference| {
        format!("{} {}", difference.path.display(), difference.what)
    };
    found.iter().map(text).collect()
}

fn after(change: impl FnOnce(&Path)) -> Vec<String> {
    let (stage, manifest) = staged();
    change(&stage.copy());
    differences(&stage.copy(), &manifest)
}

#[test]
fn a_copy_and_its_source_differ_in_nothing() {
    let (stage, manifest) = staged();
    assert_eq!(differences(&stage.copy(), &manifest), [""; 0]);
    assert_eq!(differences(&stage.source(), &manifest), [""; 0]);
    let source = scan(File::open(stage.source()).unwrap(), &Options::default()).unwrap();
    assert_eq!(source, manifest);
}

#[test]
fn one_changed_bit_is_named_though_size_and_time_are_right() {
    let found = after(|copy| {
        let path = copy.join("large");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[6], 777_777).unwrap();
        file.set_modified(modified).unwrap();
    });
    assert_eq!(found, ["large has another content"]);
}

#[test]
fn each_thing_that_is_not_as_it_should_be_is_named() {
    let found = after(|copy| {
        let modified = fs::metadata(copy.join("dir/sub"))
            .unwrap()
            .modified()
            .unwrap();
        fs::remove_file(copy.join("dir/sub/other")).unwrap();
        fs::write(copy.join("dir/sub/new"), "x").unwrap();
        File::open(copy.join("dir/sub"))
            .unwrap()
            .set_modified(modified)
            .unwrap();
        fs::set_permissions(copy.join("large"), Permissions::from_mode(0o600)).unwrap();
    });
    let expected = [
        "dir/sub/new should not be there",
        "dir/sub/other is missing",
        "large has another mode",
    ];
    assert_eq!(found, expected);
    let found = after(|copy| {
        let file = OpenOptions::new()
            .write(true)
            .open(copy.join("large"))
            .unwrap();
        file.set_len(5).unwrap();
    });
    assert_eq!(
        found,
        [
            "large has 5 bytes in place of 1048576",
            "large has another time of last change"
        ]
    );
}

#[test]
fn links_that_are_not_what_they_were_are_named() {
    let found = after(|copy| {
        fs::copy(copy.join("dir/link"), copy.join("dir/copy")).unwrap();
        fs::rename(copy.join("dir/copy"), copy.join("dir/link")).unwrap();
        fs::remove_file(copy.join("symlink")).unwrap();
        symlink("dir/link", copy.join("symlink")).unwrap();
    });
    for expected in ["dir/link has other hard links", "symlink points elsewhere"] {
        assert!(found.iter().any(|found| found == expected), "{found:?}");
    }
    let found = after(|copy| {
        fs::remove_file(copy.join("symlink")).unwrap();
        fs::create_dir(copy.join("symlink")).unwrap();
    });
    assert!(
        found
            .iter()
            .any(|found| found == "symlink is something else than it should be")
    );
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_compared() {
    if !is_root() {
        return;
    }
    let (stage, manifest) = staged();
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    for path in ["dir/sub", "large"] {
        fs::set_permissions(stage.copy().join(path), Permissions::from_mode(0o000)).unwrap();
    }
    fs::remove_file(stage.copy().join("symlink")).unwrap();
    lchown(stage.copy(), Some(65534), Some(65534)).unwrap();
    let found = as_nobody(|| differences(&stage.copy(), &manifest));
    let expected = [
        " has another time of last change",
        "dir/sub cannot open dir/sub: Permission denied (os error 13)",
        "large cannot open large: Permission denied (os error 13)",
        "symlink is missing",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_left_out_is_not_looked_for() {
    let (stage, manifest) = staged();
    let modified = fs::metadata(stage.copy()).unwrap().modified().unwrap();
    fs::write(stage.copy().join("train.lock"), "").unwrap();
    File::open(stage.copy())
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let select = |entry: &Candidate<'_>| entry.name() != "train.lock";
    let options = Options {
        select: Some(&select),
        ..Options::default()
    };
    let found = verify(File::open(stage.copy()).unwrap(), &manifest, &options).unwrap();
    assert!(found.is_empty(), "{found:?}");
}
