//! Everyday operations, the requests for which they wait, and the system calls that the daemon makes for each request.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::thread::truncate;

/// An operation on a file or directory, which does not exist before the first operation.
pub(super) struct Operation {
    pub(super) name: &'static str,
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

fn read(path: &Path) {
    let mut bytes = [0; 4];
    File::open(path).unwrap().read_exact(&mut bytes).unwrap();
}

fn list(path: &Path) {
    let listed = fs::read_dir(path.with_extension("dir")).unwrap();
    assert_eq!(listed.count(), 0);
}

/// In the order in which they are done.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create, write, close",
        run: |path| fs::write(path, "some").unwrap(),
        // The kernel asks for the set-id bits' attribute before the first write.
        of_root: "GETATTR: statx; LOOKUP: statx statx; CREATE: geteuid getegid statx openat statx geteuid capget capset ioctl capset; GETXATTR: fgetxattr",
        of_user: "LOOKUP: statx statx; CREATE: geteuid statx openat statx; GETXATTR: fgetxattr; WRITE: pwrite64",
    },
    Operation {
        name: "stat of a file that was written",
        run: |path| assert!(path.exists()),
        of_root: "GETATTR: statx",
        of_user: "GETATTR: statx",
    },
    Operation {
        name: "stat",
        run: |path| assert!(path.exists()),
        of_root: "",
        of_user: "",
    },
    Operation {
        name: "open, read, close",
        run: read,
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx; READ: pread64 pread64",
    },
    Operation {
        name: "stat of an unknown file",
        run: |path| assert!(old(path).exists()),
        of_root: "LOOKUP: statx",
        of_user: "LOOKUP: statx",
    },
    Operation {
        name: "open, read, close of a file that is not new",
        run: |path| read(&old(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx; READ: pread64 pread64",
    },
    Operation {
        name: "open, read, close of what is cached",
        run: |path| read(&old(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx",
    },
    Operation {
        name: "stat of an archived file",
        run: |path| assert!(archived(path).exists()),
        of_root: "LOOKUP: statx",
        of_user: "LOOKUP: statx",
    },
    Operation {
        name: "open, read, close of an archived file",
        run: |path| read(&archived(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx; READ: pread64 pread64",
    },
    Operation {
        name: "open, read, close of what is cached of an archived file",
        run: |path| read(&archived(path)),
        of_root: "OPEN: openat statx geteuid capget capset ioctl capset",
        of_user: "OPEN: openat statx",
    },
    Operation {
        name: "chmod",
        run: |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        of_root: "SETATTR: statx openat statx fchmodat close statx",
        of_user: "SETATTR: statx openat statx fchmodat close statx",
    },
    Operation {
        name: "open, append, close",
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
        run: |path| truncate(path, 1).unwrap(),
        of_root: "GETATTR: statx; SETATTR: statx openat statx ftruncate close statx; GETXATTR: openat statx getxattr close",
        of_user: "SETATTR: statx geteuid openat statx ftruncate close statx; GETXATTR: openat statx getxattr close",
    },
    Operation {
        name: "symlink",
        run: |path| symlink("target", path.with_extension("symlink")).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; SYMLINK: geteuid getegid statx symlinkat statx",
        of_user: "LOOKUP: statx statx; SYMLINK: geteuid statx symlinkat statx",
    },
    Operation {
        name: "readlink",
        run: |path| drop(fs::read_link(path.with_extension("symlink")).unwrap()),
        of_root: "READLINK: openat statx readlinkat close",
        of_user: "READLINK: openat statx readlinkat close",
    },
    Operation {
        name: "rename",
        run: |path| fs::rename(path, path.with_extension("new")).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; RENAME: statx statx statx statx openat2 renameat2",
        of_user: "LOOKUP: statx statx; RENAME: statx statx statx statx openat2 renameat2",
    },
    Operation {
        name: "remove a new file",
        run: |path| fs::remove_file(path.with_extension("new")).unwrap(),
        // A descriptor is kept, since the next file may look like this one.
        of_root: "GETATTR: statx; UNLINK: statx statx openat statx statx openat2 unlinkat sendmsg",
        of_user: "UNLINK: statx statx openat statx statx openat2 unlinkat sendmsg",
    },
    Operation {
        name: "remove",
        run: |path| fs::remove_file(old(path)).unwrap(),
        of_root: "GETATTR: statx; UNLINK: statx statx statx openat2 unlinkat",
        of_user: "UNLINK: statx statx statx openat2 unlinkat",
    },
    Operation {
        name: "link",
        run: |path| fs::hard_link(path.with_extension("symlink"), path).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; LINK: statx statx openat statx linkat statx close",
        of_user: "LOOKUP: statx statx; LINK: statx statx openat statx linkat statx close",
    },
    Operation {
        name: "mkdir",
        run: |path| fs::create_dir(path.with_extension("dir")).unwrap(),
        of_root: "GETATTR: statx; LOOKUP: statx statx; MKDIR: geteuid getegid statx mkdirat statx",
        of_user: "LOOKUP: statx statx; MKDIR: geteuid statx mkdirat statx",
    },
    Operation {
        name: "list an empty directory",
        run: list,
        // The second request is for what follows the end.
        of_root: "READDIRPLUS: openat statx statx getdents64 getdents64; READDIRPLUS",
        of_user: "OPENDIR: openat statx; READDIRPLUS: close openat statx statx getdents64 getdents64; READDIRPLUS",
    },
    Operation {
        name: "list it again",
        run: list,
        of_root: "GETATTR: statx",
        of_user: "OPENDIR: openat statx close; GETATTR: statx",
    },
    Operation {
        name: "rmdir",
        run: |path| fs::remove_dir(path.with_extension("dir")).unwrap(),
        of_root: "GETATTR: statx; RMDIR: statx statx unlinkat sendmsg",
        of_user: "RMDIR: statx statx unlinkat sendmsg",
    },
];
