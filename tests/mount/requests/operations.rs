//! Everyday operations, the requests for which they wait, and the system calls that the daemon makes for each request.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::thread::truncate;

/// An operation on a file or directory, which does not exist before the first operation.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// What the kernel must know from earlier operations. It forgets this soon, and a busy machine is slow.
    pub(super) know: fn(&Path),
    pub(super) run: fn(&Path),
    /// The requests as root, separated by semicolons: the kind, a colon, and the names of the system calls that are made for it.
    pub(super) of_root: &'static str,
    /// The same as an ordinary user.
    pub(super) of_user: &'static str,
}

/// The task of a job that a folder serves.
pub(super) const ARCHIVED: &str = "archived";

/// The path of a file of such a job.
pub(super) fn archived(path: &Path) -> PathBuf {
    let job = path.parent().unwrap();
    let jobs = job.parent().unwrap().parent().unwrap();
    let names = [job.file_name().unwrap(), path.file_name().unwrap()];
    jobs.join(ARCHIVED).join(names[0]).join(names[1])
}

/// The path of a file that was not changed lately.
pub(super) fn old(path: &Path) -> PathBuf {
    path.with_extension("old")
}

/// The path of a symlink, and of a directory.
fn link(path: &Path) -> PathBuf {
    path.with_extension("symlink")
}

fn dir(path: &Path) -> PathBuf {
    path.with_extension("dir")
}

/// The path to which a file is renamed.
fn renamed(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn nothing(_: &Path) {}

fn stat(path: &Path) {
    fs::symlink_metadata(path).unwrap();
}

fn read(path: &Path) {
    let mut bytes = [0; 4];
    File::open(path).unwrap().read_exact(&mut bytes).unwrap();
}

fn list(path: &Path) {
    let listed = fs::read_dir(dir(path)).unwrap();
    assert_eq!(listed.count(), 0);
}

/// In the order in which they are done.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create, write, close",
        know: nothing,
        run: |path| fs::write(path, "some").unwrap(),
        // The kernel asks for the set-id bits' attribute before the first write.
        of_root: "GETATTR: statx; LOOKUP: statx statx; CREATE: geteuid getegid statx openat statx geteuid capget capset ioctl capset; GETXATTR: fgetxattr",
        of_user: "LOOKUP: statx statx; CREATE: geteuid statx openat statx; GETXATTR: fgetxattr; WRITE: pwrite64",
    },
    Operation {
        name: "stat of a file that was written",
        know: nothing,
        run: stat,
        of_root: "GETATTR: statx",
        of_user: "GETATTR: statx",
    },
    Operation {
        name: "stat",
        know: stat,
        run: stat,
        of_root: "",
        of_user: "",
    },
    Operation {
        name: "open, read, close",
        know: stat,
        run: read,
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx; READ: pread64 pread64",
    },
    Operation {
        name: "stat of an unknown file",
        know: nothing,
        run: |path| stat(&old(path)),
        of_root: "LOOKUP: statx",
        of_user: "LOOKUP: statx",
    },
    Operation {
        name: "open, read, close of a file that is not new",
        know: |path| stat(&old(path)),
        run: |path| read(&old(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx; READ: pread64 pread64",
    },
    Operation {
        name: "open, read, close of what is cached",
        know: |path| stat(&old(path)),
        run: |path| read(&old(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx",
    },
    Operation {
        name: "stat of an archived file",
        know: nothing,
        run: |path| stat(&archived(path)),
        of_root: "LOOKUP: statx",
        of_user: "LOOKUP: statx",
    },
    Operation {
        name: "open, read, close of an archived file",
        know: |path| stat(&archived(path)),
        run: |path| read(&archived(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx; READ: pread64 pread64",
    },
    Operation {
        name: "open, read, close of what is cached of an archived file",
        know: |path| stat(&archived(path)),
        run: |path| read(&archived(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx",
    },
    Operation {
        name: "chmod",
        know: stat,
        run: |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        of_root: "SETATTR: statx openat statx fchmodat close statx",
        of_user: "SETATTR: statx openat statx fchmodat close statx",
    },
    Operation {
        name: "open, append, close",
        know: stat,
        run: |path| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(b"more").unwrap();
        },
        // It asks again whenever it has asked for the attributes of the file.
        of_root: "OPEN: statx openat statx statx geteuid capget capset ioctl capset; GETXATTR: fgetxattr",
        of_user: "OPEN: statx openat statx statx; WRITE: statx pwritev2 statx",
    },
    Operation {
        name: "truncate a file that was written",
        know: nothing,
        run: |path| truncate(path, 1).unwrap(),
        of_root: "GETATTR: statx; SETATTR: statx openat statx ftruncate close statx; GETXATTR: openat statx getxattr close",
        of_user: "SETATTR: statx geteuid openat statx ftruncate close statx; GETXATTR: openat statx getxattr close",
    },
    Operation {
        name: "symlink",
        know: nothing,
        run: |path| symlink("target", link(path)).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; SYMLINK: geteuid getegid statx symlinkat statx",
        of_user: "LOOKUP: statx statx; SYMLINK: geteuid statx symlinkat statx",
    },
    Operation {
        name: "readlink",
        know: |path| stat(&link(path)),
        run: |path| drop(fs::read_link(link(path)).unwrap()),
        of_root: "READLINK: openat statx readlinkat close",
        of_user: "READLINK: openat statx readlinkat close",
    },
    Operation {
        name: "rename",
        know: stat,
        run: |path| fs::rename(path, renamed(path)).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; RENAME: statx statx statx openat2 renameat2",
        of_user: "LOOKUP: statx statx; RENAME: statx statx statx openat2 renameat2",
    },
    Operation {
        name: "remove a new file",
        know: |path| stat(&renamed(path)),
        run: |path| fs::remove_file(renamed(path)).unwrap(),
        // A descriptor is kept, since the next file may look like this one.
        of_root: "GETATTR: statx; UNLINK: statx statx openat statx openat2 unlinkat sendmsg",
        of_user: "UNLINK: statx statx openat statx openat2 unlinkat sendmsg",
    },
    Operation {
        name: "remove",
        know: |path| stat(&old(path)),
        run: |path| fs::remove_file(old(path)).unwrap(),
        of_root: "GETATTR: statx; UNLINK: statx statx openat2 unlinkat",
        of_user: "UNLINK: statx statx openat2 unlinkat",
    },
    Operation {
        name: "link",
        know: |path| stat(&link(path)),
        run: |path| fs::hard_link(link(path), path).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; LINK: statx statx openat statx linkat statx close",
        of_user: "LOOKUP: statx statx; LINK: statx statx openat statx linkat statx close",
    },
    Operation {
        name: "mkdir",
        know: nothing,
        run: |path| fs::create_dir(dir(path)).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; MKDIR: geteuid getegid statx mkdirat statx",
        of_user: "LOOKUP: statx statx; MKDIR: geteuid statx mkdirat statx",
    },
    Operation {
        name: "list an empty directory",
        know: |path| stat(&dir(path)),
        run: list,
        // The second request is for what follows the end.
        of_root: "READDIRPLUS: openat statx statx getdents64 getdents64; READDIRPLUS",
        of_user: "OPENDIR: openat statx; READDIRPLUS: statx getdents64 getdents64; READDIRPLUS",
    },
    Operation {
        name: "list it again",
        know: |path| stat(&dir(path)),
        run: list,
        of_root: "GETATTR: statx",
        of_user: "OPENDIR: openat statx close; GETATTR: statx",
    },
    Operation {
        name: "rmdir",
        know: |path| stat(&dir(path)),
        run: |path| fs::remove_dir(dir(path)).unwrap(),
        of_root: "GETATTR: statx; RMDIR: statx statx unlinkat sendmsg",
        of_user: "RMDIR: statx statx unlinkat sendmsg",
    },
];
