//! Renames that leave a whiteout under the old name, as overlayfs makes them: like on the disk, and none in the union.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::{Errno, Result};

use crate::common::{Folders, Workspace, as_nobody, names};
use crate::{TASK, one_job_each};

const WHITEOUT: RenameFlags = RenameFlags::WHITEOUT;

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

/// What is in a tree: modes, device numbers, owners and contents.
fn shown(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in names(top) {
        let path = top.join(&name);
        let meta = fs::symlink_metadata(&path).unwrap();
        let (mode, rdev) = (meta.mode(), meta.rdev());
        let content = match meta.is_file() {
            true => fs::read_to_string(&path).unwrap(),
            false => String::new(),
        };
        lines.push(format!(
            "{name:?} {mode:o} {rdev} {}:{} {content}",
            meta.uid(),
            meta.gid()
        ));
        if meta.is_dir() {
            lines.extend(shown(&path));
        }
    }
    lines
}

/// Renames files and directories; returns each result, and what the directory shows then.
fn renames(top: &Path) -> Vec<(Result<()>, Vec<String>)> {
    let at = |name: &str| top.join(name);
    for name in ["dir", "d", "d/in-d"] {
        fs::create_dir(at(name)).unwrap();
    }
    for name in ["a", "b", "c", "d/in-d/file"] {
        fs::write(at(name), name).unwrap();
    }
    fs::hard_link(at("c"), at("link")).unwrap();
    let mut replaced = File::open(at("b")).unwrap();
    let mut renamed = File::open(at("a")).unwrap();
    let results = [
        ("a", "b", WHITEOUT),
        ("c", "dir/c", WHITEOUT),
        ("d", "dir/d", WHITEOUT),
        ("dir/c", "dir/d", WHITEOUT),
        ("dir/c", "b", WHITEOUT | RenameFlags::NOREPLACE),
        ("dir/c", "dir/e", WHITEOUT | RenameFlags::NOREPLACE),
        ("b", "dir/e", WHITEOUT | RenameFlags::EXCHANGE),
        // Whiteouts themselves.
        ("a", "f", WHITEOUT),
        ("a", "dir/e", WHITEOUT),
        ("dir/c", "c", RenameFlags::empty()),
        ("missing", "f", WHITEOUT),
    ]
    .map(|(from, to, flags)| (rename(&at(from), &at(to), flags), shown(top)));
    assert!(
        fs::symlink_metadata(at("a"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert_eq!(fs::symlink_metadata(at("link")).unwrap().nlink(), 1);
    let read = |file: &mut File| {
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        (content, file.metadata().unwrap().nlink())
    };
    assert_eq!(read(&mut replaced), ("b".to_owned(), 0));
    assert_eq!(read(&mut renamed), ("a".to_owned(), 1));
    // The old name is free again once the whiteout is removed.
    fs::remove_file(at("a")).unwrap();
    fs::write(at("a"), "new").unwrap();
    assert_eq!(fs::read(at("a")).unwrap(), b"new");
    fs::write(at("dir/d/in-d/file"), "written").unwrap();
    let mut results = Vec::from(results);
    results.push((Ok(()), shown(top)));
    results
}

/// A directory of the workspace and one of the disk, both as `prepare` leaves them.
fn compare(workspace: &Workspace, mountpoint: &Path, prepare: impl Fn(&Path), options: &[&str]) {
    let (plain, beneath) = (workspace.top().join("plain"), workspace.primary().join("w"));
    for directory in [&plain, &beneath] {
        fs::create_dir(directory).unwrap();
        prepare(directory);
    }
    let mounted = workspace.mount_with(mountpoint, options);
    let through = mounted.path().join("w");
    let other = options.contains(&"allow_other");
    let run = |top: &Path| match other {
        true => as_nobody(|| renames(top)),
        false => workspace.as_user(|| renames(top)),
    };
    assert_eq!(run(&through), run(&plain));
    mounted.unmount();
    assert_eq!(shown(&beneath), shown(&plain));
}

#[test]
fn a_rename_leaves_a_whiteout_as_on_the_disk() {
    let workspace = Workspace::new();
    compare(&workspace, &workspace.primary(), |_| (), &[]);
    let workspace = Workspace::of_ordinary_user();
    compare(
        &workspace,
        &workspace.primary(),
        |path| workspace.give(path),
        &[],
    );
}

#[test]
fn a_whiteout_belongs_to_the_caller() {
    if !crate::common::is_root() {
        return;
    }
    // Sticky, and of a group that new files get.
    let prepare = |path: &Path| {
        chown(path, None, Some(1234)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o3777)).unwrap();
    };
    let workspace = Workspace::new();
    for path in [workspace.top(), workspace.primary()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    compare(&workspace, &mountpoint, prepare, &["-o", "allow_other"]);
    let plain = shown(&workspace.top().join("plain"));
    assert!(
        plain.contains(&"\"dir\" 42755 0 65534:1234 ".to_owned()),
        "{plain:?}"
    );
}

#[test]
fn the_union_and_internal_files_have_no_whiteouts() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let folders = Folders::of(&workspace);
    let mounted = workspace.mount_in_place();
    let (jobs, away) = (mounted.path().join("jobs"), mounted.path().join("away"));
    fs::create_dir(jobs.join("own.task")).unwrap();
    for (from, error) in [
        (jobs.join("own.task"), Errno::INVAL),
        (mounted.job(TASK, "in-primary"), Errno::INVAL),
        (jobs.clone(), Errno::BUSY),
        (mounted.job(TASK, "in-use").join("train.out"), Errno::ROFS),
    ] {
        assert_eq!(rename(&from, &away, WHITEOUT), Err(error), "{from:?}");
        assert!(from.exists() && !away.exists());
    }
    // The job's own file in the primary, while a folder serves the job.
    let archived = mounted.job(TASK, "in-use");
    fs::write(archived.join("train.pid"), "1").unwrap();
    let refused = rename(
        &archived.join("train.pid"),
        &archived.join("a.pid"),
        WHITEOUT,
    );
    assert_eq!(refused, Err(Errno::INVAL));
    assert_eq!(mounted.location(&archived), "use");

    // In a job the old name is an ordinary name; an archived job is recovered for it.
    for hash in ["in-primary", "in-backup"] {
        let job = mounted.job(TASK, hash);
        rename(&job.join("train.out"), &job.join("old.out"), WHITEOUT).unwrap();
        assert_eq!(mounted.location(&job), "primary");
        assert_eq!(fs::read(job.join("old.out")).unwrap(), b"step 1\nstep 2\n");
        let old = fs::symlink_metadata(job.join("train.out")).unwrap();
        assert!(old.file_type().is_char_device() && old.rdev() == 0);
    }
    mounted.unmount();
    folders.assert_unchanged();
}
