//! A source that does not hold still is noticed, and the entry is named.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use xpmfs::transfer::{self, Bandwidth, Copied, Options, Progress};

use super::{Stage, eventually};

/// Copies a tree, and does something to its source after all but one file is read.
fn meanwhile(stage: &Stage, change: impl FnOnce(&Path) + Send) -> transfer::Result<Copied> {
    stage.file("dir/small", "small");
    stage.file("dir/sub/other", "other");
    stage.file("large", vec![1; 2 << 20]);
    let (progress, bandwidth) = (Progress::new(), Bandwidth::new(Some(1 << 18)));
    let options = Options {
        last: Some("large".as_ref()),
        progress: Some(&progress),
        bandwidth: Some(&bandwidth),
        ..Options::default()
    };
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| stage.run(&options));
        eventually("the last file is being read", || progress.bytes() > 10);
        assert!(!copy.is_finished());
        change(&stage.source());
        bandwidth.set(None);
        copy.join().unwrap()
    })
}

fn names(expected: &str, change: impl FnOnce(&Path) + Send) {
    let error = meanwhile(&Stage::new(), change).unwrap_err();
    assert!(error.is_changed(), "{error}");
    assert_eq!(error.path().unwrap(), expected, "{error}");
}

#[test]
fn nothing_changed_is_no_error() {
    meanwhile(&Stage::new(), |source| {
        drop(fs::read(source.join("dir/small")).unwrap());
        assert!(fs::read_dir(source).unwrap().count() > 0);
    })
    .unwrap();
}

#[test]
fn a_file_that_was_written_to_is_named() {
    names("dir/small", |source| {
        let mut file = OpenOptions::new()
            .append(true)
            .open(source.join("dir/small"))
            .unwrap();
        file.write_all(b"more").unwrap();
    });
}

#[test]
fn a_change_that_keeps_size_and_time_is_noticed() {
    names("dir/small", |source| {
        let path = source.join("dir/small");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"S", 0).unwrap();
        file.set_modified(modified).unwrap();
    });
}

#[test]
fn the_file_that_is_being_read_is_named() {
    names("large", |source| {
        let file = OpenOptions::new()
            .write(true)
            .open(source.join("large"))
            .unwrap();
        file.set_len(1).unwrap();
    });
}

#[test]
fn another_mode_is_a_change() {
    names("dir/small", |source| {
        fs::set_permissions(source.join("dir/small"), Permissions::from_mode(0o600)).unwrap();
    });
}

#[test]
fn a_file_that_was_made_removed_or_replaced_names_its_directory_or_itself() {
    names("dir", |source| {
        fs::write(source.join("dir/new"), "").unwrap()
    });
    names("dir", |source| {
        fs::remove_file(source.join("dir/small")).unwrap()
    });
    // The top has another name in it for a moment, and is met first.
    names("", |source| {
        fs::write(source.join("tmp"), "other").unwrap();
        fs::rename(source.join("tmp"), source.join("dir/sub/other")).unwrap();
    });
}

#[test]
fn a_directory_that_was_removed_is_noticed() {
    let stage = Stage::new();
    let error = meanwhile(&stage, |source| {
        fs::remove_dir_all(source.join("dir")).unwrap()
    });
    assert!(error.unwrap_err().is_changed());
}

#[test]
fn a_file_that_vanishes_before_it_is_read_is_noticed() {
    let stage = Stage::new();
    stage.file("dir/file", "x");
    // The directory is listed when this is asked, and its files are not read yet.
    let select = |entry: &transfer::Candidate<'_>| {
        if entry.name() == "file" {
            fs::remove_file(stage.source().join("dir/file")).unwrap();
        }
        true
    };
    let error = stage
        .run(&Options {
            select: Some(&select),
            ..Options::default()
        })
        .unwrap_err();
    assert!(
        error.is_changed() && error.path().unwrap() == "dir/file",
        "{error}"
    );
}

#[test]
fn a_file_that_becomes_something_else_before_it_is_read_is_not_followed() {
    let replace: [fn(&Path); 3] = [
        |path| symlink("/etc/passwd", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| super::command("mkfifo", &[&path]),
    ];
    for replace in replace {
        let stage = Stage::new();
        let file = stage.file("file", "x");
        let select = |_: &transfer::Candidate<'_>| {
            fs::remove_file(&file).unwrap();
            replace(&file);
            true
        };
        let options = Options {
            select: Some(&select),
            ..Options::default()
        };
        let error = stage.run(&options).unwrap_err();
        assert!(
            error.is_changed() && error.path().unwrap() == "file",
            "{error}"
        );
    }
}

#[test]
fn a_copy_can_tell_later_whether_its_source_is_still_the_same() {
    let stage = Stage::new();
    let file = stage.file("dir/file", "x");
    let copied = stage.run(&Options::default()).unwrap();
    let source = File::open(stage.source()).unwrap();
    copied.unchanged(&source, None).unwrap();
    fs::write(file, "y").unwrap();
    let error = copied.unchanged(&source, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dir/file changed while it was copied: it was written to"
    );
}
