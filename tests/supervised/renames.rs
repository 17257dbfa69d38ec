//! The process that serves a mount is killed in a rename, before the disk has made it or after: the next process makes
//! it once.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, RenameFlags};

use super::common::daemon::kill_worker;
use super::common::tracer::{Tracer, is_in};
use super::common::{self, Workspace, eventually};
use super::killer::processes;

/// Longer than the test takes.
const HOUR: Duration = Duration::from_secs(3600);

/// The contents of a file; of a directory or a device, its type.
fn content(path: &Path) -> String {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => fs::read_to_string(path).unwrap(),
        Ok(meta) => format!("{:?}", meta.file_type()),
        Err(error) => error.kind().to_string(),
    }
}

fn killed_in_a_rename(moment: &str, flags: RenameFlags) {
    let workspace = Workspace::new();
    // Opened before it is mounted over.
    let beneath = fs::File::open(workspace.primary()).unwrap();
    let mounted = workspace.mount_in_place();
    let (plain, through) = (workspace.top().join("plain"), mounted.path().join("dir"));
    let rename = |top: &Path| {
        let (from, to) = (top.join("from"), top.join("to"));
        rustix::fs::renameat_with(CWD, from, CWD, to, flags)
    };
    for top in [&plain, &through] {
        fs::create_dir(top).unwrap();
        fs::write(top.join("from"), "from").unwrap();
        if !flags.contains(RenameFlags::NOREPLACE) {
            fs::write(top.join("to"), "to").unwrap();
        }
    }
    let inode = |path: &str| {
        let stat = rustix::fs::statat(&beneath, path, AtFlags::SYMLINK_NOFOLLOW);
        stat.ok().map(|stat| stat.st_ino)
    };
    let renamed = inode("dir/from").unwrap();
    let (pid, _) = processes(&workspace, mounted.path());
    let tracer = Tracer::delaying(pid, "renameat,renameat2", moment, HOUR);
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| rename(&through));
        let made = || inode("dir/to").is_some_and(|inode| inode == renamed);
        eventually("it is renaming", || {
            is_in(pid, &[libc::SYS_renameat, libc::SYS_renameat2])
                && (moment == "delay_enter" || made())
        });
        kill_worker(pid);
        drop(tracer);
        assert_eq!(renaming.join().unwrap(), Ok(()), "{moment} {flags:?}");
    });
    rename(&plain).unwrap();
    for name in ["from", "to"] {
        let (here, there) = (content(&through.join(name)), content(&plain.join(name)));
        assert_eq!(here, there, "{name} {moment} {flags:?}");
    }
    // The next process knows the files by their new names.
    fs::write(through.join("to"), "written").unwrap();
    assert_eq!(content(&through.join("to")), "written");
    mounted.unmount();
}

#[test]
fn a_rename_that_the_disk_has_made_is_not_made_again() {
    if common::program("strace").is_none() {
        return;
    }
    for flags in [
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
        RenameFlags::WHITEOUT,
    ] {
        killed_in_a_rename("delay_exit", flags);
        killed_in_a_rename("delay_enter", flags);
    }
}
