//! What a tool finds in a mount: the union of the locations, and in the primary a plain disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{
    DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use common::{Workspace, eventually, fails, names, run, snapshot, xattr};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, RenameFlags, XattrFlags,
};
use rustix::io::Errno;

const TASK: &str = "my.module.train";

/// A job in every location, called after it.
fn one_job_each(workspace: &Workspace) {
    for location in ["primary", "use", "backup", "move"] {
        workspace.finished(location, TASK, &format!("in-{location}"));
    }
}

#[test]
fn every_job_is_a_directory_under_one_path() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    fs::create_dir_all(
        workspace
            .folder("use")
            .join(format!("jobs/{TASK}/unfinished")),
    )
    .unwrap();
    workspace.finished("backup", "my.module.only.archived", "abc");
    for in_place in [true, false] {
        let mountpoint = match in_place {
            true => workspace.primary(),
            false => workspace.mountpoint("elsewhere"),
        };
        let mounted = workspace.mount_at(&mountpoint);
        assert_eq!(
            names(&mountpoint.join("jobs")),
            ["my.module.only.archived", TASK]
        );
        let task = mountpoint.join("jobs").join(TASK);
        assert_eq!(
            names(&task),
            ["in-backup", "in-move", "in-primary", "in-use"]
        );
        for entry in fs::read_dir(&task).unwrap() {
            let entry = entry.unwrap();
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            assert!(entry.file_type().unwrap().is_dir(), "{entry:?}");
            assert!(meta.is_dir(), "{entry:?}");
            assert_eq!(entry.ino(), meta.ino(), "{entry:?}");
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(format!("in-{}", mounted.location(entry.path())), name);
            let out = entry.path().join("train.out");
            assert_eq!(fs::read_to_string(&out).unwrap(), "step 1\nstep 2\n");
            assert_eq!(format!("in-{}", mounted.location(out)), name);
        }
        mounted.unmount();
    }
}

#[test]
fn the_location_names_mode_and_path_and_is_not_listed() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let mounted = workspace.mount_in_place();
    let location = |path: &Path| xattr(path, "user.xpmfs.location").unwrap();
    let archived = mounted.job(TASK, "in-backup");
    let expected = format!("backup:{}", workspace.folder("backup").display());
    assert_eq!(location(&archived), expected.as_bytes());
    assert_eq!(location(mounted.path()), b"primary");
    assert_eq!(run(Command::new("getfattr").arg("-d").arg(&archived)), "");
    let set = rustix::fs::setxattr(
        mounted.job(TASK, "in-primary"),
        "user.xpmfs.location",
        b"x",
        XattrFlags::empty(),
    );
    assert_eq!(set, Err(Errno::PERM));
    assert_eq!(
        xattr(mounted.path(), "user.xpmfs.nothing"),
        Err(Errno::NODATA)
    );
}

#[test]
fn df_shows_the_primary() {
    let workspace = Workspace::new();
    let beneath = rustix::fs::statvfs(workspace.primary()).unwrap();
    let mounted = workspace.mount_in_place();
    let shown = rustix::fs::statvfs(mounted.path()).unwrap();
    assert_eq!(
        (shown.f_blocks, shown.f_frsize, shown.f_files),
        (beneath.f_blocks, beneath.f_frsize, beneath.f_files)
    );
}

#[test]
fn new_jobs_are_made_in_the_primary_whatever_directories_it_has() {
    let workspace = Workspace::new();
    workspace.finished("backup", TASK, "archived");
    fs::remove_dir(workspace.primary().join("jobs")).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    assert_eq!(names(&elsewhere), [".__experimaestro__", "jobs"]);
    assert_eq!(names(&elsewhere.join("jobs")), [TASK]);
    let job = mounted.job(TASK, "new");
    fs::create_dir(&job).unwrap();
    fs::write(job.join("train.out"), "hello").unwrap();
    let task = workspace.primary().join("jobs").join(TASK);
    assert_eq!(names(&task), ["new"]);
    assert_eq!(fs::read(task.join("new/train.out")).unwrap(), b"hello");
    assert_eq!(names(job.parent().unwrap()), ["archived", "new"]);
    fs::create_dir_all(mounted.job("another.task", "abc")).unwrap();
    assert!(workspace.primary().join("jobs/another.task/abc").is_dir());
    let taken = fs::create_dir(mounted.job(TASK, "archived")).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn removing_the_primarys_copy_shows_the_folders() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "both");
    let archived = workspace.finished("backup", TASK, "both");
    fs::write(archived.join("model.bin"), "archived").unwrap();
    let mounted = workspace.mount_in_place();
    let job = mounted.job(TASK, "both");
    assert_eq!(mounted.location(&job), "primary");
    let before = snapshot(&workspace.folder("backup"));
    // Each removal is ordinary; what appears in its place is an archive.
    let _ = Command::new("rm").arg("-rf").arg(&job).output().unwrap();
    assert_eq!(mounted.location(&job), "backup");
    assert_eq!(fs::read(job.join("model.bin")).unwrap(), b"archived");
    assert_eq!(snapshot(&workspace.folder("backup")), before);
}

#[test]
fn a_directory_becomes_a_job_by_being_moved_into_its_place_and_back() {
    let workspace = Workspace::new();
    workspace.finished("backup", TASK, "archived");
    let mounted = workspace.mount_in_place();
    let staging = mounted.path().join(".xpm-staging/1234");
    fs::create_dir_all(staging.join("deep/er")).unwrap();
    fs::write(staging.join("deep/er/file"), "contents").unwrap();
    let job = mounted.job(TASK, "new");
    fs::rename(&staging, &job).unwrap();
    assert_eq!(fs::read(job.join("deep/er/file")).unwrap(), b"contents");
    fs::write(job.join("deep/er/more"), "more").unwrap();
    assert_eq!(names(job.parent().unwrap()), ["archived", "new"]);
    // A whole task, too, as long as no folder has jobs of it.
    let other = mounted.path().join("jobs/other.task");
    fs::create_dir(&other).unwrap();
    fs::rename(&job, other.join("new")).unwrap();
    let kept = mounted.path().join("kept");
    fs::rename(&other, &kept).unwrap();
    assert_eq!(fs::read(kept.join("new/deep/er/more")).unwrap(), b"more");
    fs::write(kept.join("new/deep/er/last"), "last").unwrap();
    fs::rename(&kept, &other).unwrap();
    assert_eq!(fs::read(other.join("new/deep/er/last")).unwrap(), b"last");
    let task = mounted.path().join("jobs").join(TASK);
    let refused = fs::rename(&task, mounted.path().join("away")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let refused = fs::rename(mounted.path().join("jobs"), mounted.path().join("away"));
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBUSY));
}

#[test]
fn absolute_symlinks_lead_into_a_mount_elsewhere_and_are_stored_for_the_primary() {
    let workspace = Workspace::new();
    workspace.finished("use", TASK, "abc");
    let in_primary = workspace.primary().join("jobs").join(TASK).join("abc");
    symlink(&in_primary, workspace.primary().join("link")).unwrap();
    symlink("/etc/hostname", workspace.primary().join("out")).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let link = elsewhere.join("link");
    let expected = mounted.job(TASK, "abc");
    assert_eq!(fs::read_link(&link).unwrap(), expected);
    let length = fs::symlink_metadata(&link).unwrap().len();
    assert_eq!(length, expected.as_os_str().len() as u64);
    assert!(link.join("train.done").exists());
    let out = fs::read_link(elsewhere.join("out")).unwrap();
    assert_eq!(out, Path::new("/etc/hostname"));

    symlink(&expected, elsewhere.join("made")).unwrap();
    assert_eq!(fs::read_link(elsewhere.join("made")).unwrap(), expected);
    let stored = fs::read_link(workspace.primary().join("made")).unwrap();
    assert_eq!(stored, in_primary);
}

#[test]
fn hard_links_are_one_file_under_every_name() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let job = mounted.job(TASK, "abc");
    fs::create_dir_all(job.join("events")).unwrap();
    fs::create_dir(mounted.path().join(".events")).unwrap();
    let one = mounted.path().join(".events/abc.jsonl");
    let two = job.join("events/event-0.jsonl");
    let mut writer = File::create(&one).unwrap();
    writer.write_all(b"first\n").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let (a, b) = (fs::metadata(&one).unwrap(), fs::metadata(&two).unwrap());
    assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
    writer.write_all(b"second\n").unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"first\nsecond\n");
    let mut reader = File::open(&two).unwrap();
    fs::remove_file(&one).unwrap();
    writer.write_all(b"third\n").unwrap();
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "first\nsecond\nthird\n");
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 1);
    assert_eq!(writer.metadata().unwrap().nlink(), 1);
    writer
        .set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    assert_eq!(fs::metadata(&two).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_is_open_stays_usable_when_its_name_is_gone() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("file");
    fs::write(&path, "contents").unwrap();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    fs::write(mounted.path().join("other"), "other").unwrap();
    fs::rename(mounted.path().join("other"), &path).unwrap();
    let mut contents = String::new();
    file.read_to_string(&mut contents).unwrap();
    assert_eq!(contents, "contents");
    assert_eq!(fs::read(&path).unwrap(), b"other");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.set_len(3).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640))
        .unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    assert_eq!(fs::read(again).unwrap(), b"con");

    let directory = mounted.path().join("directory");
    fs::create_dir(&directory).unwrap();
    let open = File::open(&directory).unwrap();
    fs::remove_dir(&directory).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
}

#[test]
fn attributes_are_set_and_told_as_on_the_disk() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("file");
    fs::write(&path, "contents").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let modified = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let accessed = UNIX_EPOCH - Duration::new(5, 1);
    let times = fs::FileTimes::new()
        .set_modified(modified)
        .set_accessed(accessed);
    file.set_times(times).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.modified().unwrap(), modified);
    assert_eq!(meta.accessed().unwrap(), accessed);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4751);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12, 34));
        symlink("nowhere", mounted.path().join("link")).unwrap();
        let link = mounted.path().join("link");
        std::os::unix::fs::lchown(&link, Some(56), Some(78)).unwrap();
        assert_eq!(fs::symlink_metadata(&link).unwrap().uid(), 56);
    }
    rustix::fs::setxattr(&path, "user.note", b"value", XattrFlags::CREATE).unwrap();
    let twice = rustix::fs::setxattr(&path, "user.note", b"value", XattrFlags::CREATE);
    assert_eq!(twice, Err(Errno::EXIST));
    assert_eq!(xattr(&path, "user.note").unwrap(), b"value");
    rustix::fs::removexattr(&path, "user.note").unwrap();
    assert_eq!(xattr(&path, "user.note"), Err(Errno::NODATA));
}

#[test]
fn the_umask_and_default_acls_decide_the_mode_of_what_is_made() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let made = |directory: &str, umask: &str| {
        let script = format!("umask {umask}; mkdir {directory}/d; : > {directory}/f");
        run(Command::new("sh")
            .arg("-c")
            .arg(script)
            .current_dir(mounted.path()));
        let mode = |name| {
            let path = mounted.path().join(directory).join(name);
            fs::metadata(path).unwrap().mode() & 0o777
        };
        (mode("d"), mode("f"))
    };
    for directory in ["a", "b", "c"] {
        fs::create_dir(mounted.path().join(directory)).unwrap();
    }
    assert_eq!(made("a", "022"), (0o755, 0o644));
    assert_eq!(made("b", "077"), (0o700, 0o600));
    let acl = "d:u::rwx,d:g::rwx,d:o::---";
    run(Command::new("setfacl")
        .args(["-m", acl])
        .arg(mounted.path().join("c")));
    assert_eq!(made("c", "077"), (0o770, 0o660));
}

#[test]
fn special_files_are_made_and_told_apart() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let pipe = mounted.path().join("pipe");
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    let socket = mounted.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    fs::write(&pipe, "through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
}

#[test]
fn renames_replace_refuse_or_exchange() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let (a, b) = (mounted.path().join("a"), mounted.path().join("b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let rename = |flags| rustix::fs::renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"b");
    assert_eq!(fs::read(&b).unwrap(), b"a");
    rename(RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(&b).unwrap(), b"b");
    assert!(!a.exists());
    let (c, d) = (mounted.path().join("c"), mounted.path().join("d"));
    fs::create_dir_all(c.join("in-c")).unwrap();
    fs::create_dir_all(d.join("in-d")).unwrap();
    rustix::fs::renameat_with(CWD, &c, CWD, &d, RenameFlags::EXCHANGE).unwrap();
    assert!(c.join("in-d").is_dir());
    assert!(d.join("in-c").is_dir());
}

#[test]
fn files_have_holes_ranges_and_appends() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("file");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"end", 1 << 20).unwrap();
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert_eq!(hole, 0);
    assert!(data > 0 && data <= 1 << 20, "{data}");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 1 << 20, 4096).unwrap();
    let mut end = [1; 3];
    file.read_exact_at(&mut end, 1 << 20).unwrap();
    assert_eq!(end, [0; 3]);

    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"copy me").unwrap();
    let copy = File::options()
        .write(true)
        .create_new(true)
        .open(mounted.path().join("copy"))
        .unwrap();
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 0), &copy, Some(&mut 0), 7).unwrap();
    assert_eq!(copied, 7);
    assert_eq!(fs::read(mounted.path().join("copy")).unwrap(), b"copy me");

    let mut append = OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(libc::O_SYNC)
        .open(mounted.path().join("log"))
        .unwrap();
    for line in ["one\n", "two\n"] {
        append.write_all(line.as_bytes()).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(workspace_log(&mounted))
            .unwrap()
            .write_all(b"-\n")
            .unwrap();
    }
    append.sync_all().unwrap();
    assert_eq!(
        fs::read(workspace_log(&mounted)).unwrap(),
        b"one\n-\ntwo\n-\n"
    );
}

fn workspace_log(mounted: &common::Mounted<'_>) -> std::path::PathBuf {
    mounted.path().join("log")
}

#[test]
fn locks_through_the_mount_and_beside_it_exclude_each_other() {
    let workspace = Workspace::new();
    fs::write(workspace.primary().join("lock"), "").unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&elsewhere);
    let through = File::open(elsewhere.join("lock")).unwrap();
    let beside = File::open(workspace.primary().join("lock")).unwrap();
    let try_lock = |file: &File| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    try_lock(&through).unwrap();
    assert_eq!(try_lock(&beside), Err(Errno::WOULDBLOCK));
    rustix::fs::flock(&through, FlockOperation::Unlock).unwrap();
    try_lock(&beside).unwrap();
    assert_eq!(try_lock(&through), Err(Errno::WOULDBLOCK));
    let waiter = std::thread::spawn(move || {
        rustix::fs::flock(&through, FlockOperation::LockExclusive).unwrap();
    });
    // It waits: the lock is still ours.
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    drop(beside);
    waiter.join().unwrap();
}

#[test]
fn somebody_who_waits_for_a_lock_can_be_killed() {
    let workspace = Workspace::new();
    fs::write(workspace.primary().join("lock"), "").unwrap();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("lock");
    let held = File::open(&path).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    for signal in ["-INT", "-KILL"] {
        // What runs in a shell's background has been told to ignore SIGINT; the waiter is not to.
        let mut waiter = Command::new("env")
            .args(["--default-signal", "flock"])
            .arg(&path)
            .arg("true")
            .spawn()
            .unwrap();
        let pid = waiter.id().to_string();
        eventually("it waits for the lock", || {
            let stack = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            stack.contains("fuse") || stack.contains("request_wait")
        });
        run(Command::new("kill").args([signal, &pid]));
        let mut status = None;
        eventually("it ends", || {
            status = waiter.try_wait().unwrap();
            status.is_some()
        });
        assert!(!status.unwrap().success());
    }
}

#[test]
fn what_changes_behind_the_mount_is_seen_soon() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let job = mounted.job(TASK, "in-primary");
    assert_eq!(mounted.location(&job), "primary");
    let beneath = workspace
        .primary()
        .join("jobs")
        .join(TASK)
        .join("in-primary");
    let archived = workspace
        .folder("backup")
        .join("jobs")
        .join(TASK)
        .join("in-primary");
    let open = File::open(job.join("model.bin")).unwrap();
    fs::rename(&beneath, &archived).unwrap();
    eventually("the job is served by its folder", || {
        mounted.location(&job) == "backup"
    });
    let mut contents = Vec::new();
    (&open).read_to_end(&mut contents).unwrap();
    assert_eq!(contents, [7; 10_000]);
    fs::write(workspace.primary().join("new"), "1").unwrap();
    assert_eq!(fs::read(elsewhere.join("new")).unwrap(), b"1");
    fs::write(workspace.primary().join("new"), "22").unwrap();
    eventually("the new contents are seen", || {
        fs::read(elsewhere.join("new")).unwrap() == b"22"
    });
    fs::remove_file(workspace.primary().join("new")).unwrap();
    eventually("it is gone", || !elsewhere.join("new").exists());
}

#[test]
fn a_task_is_newer_when_a_folder_gains_a_job() {
    let workspace = Workspace::new();
    for location in ["primary", "use", "backup"] {
        workspace.finished(location, TASK, &format!("old-{location}"));
    }
    for at in [workspace.mountpoint("mnt"), workspace.primary()] {
        let mounted = workspace.mount_at(&at);
        let (jobs, task) = (at.join("jobs"), at.join("jobs").join(TASK));
        let name = at.file_name().unwrap().to_str().unwrap();
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let listed = || {
            let mut entries = fs::read_dir(&jobs).unwrap().map(Result::unwrap);
            let task = entries.find(|entry| entry.file_name() == TASK).unwrap();
            task.metadata().unwrap()
        };
        // Long ago, so that the kernel might believe it for long.
        for location in ["use", "backup", "move"] {
            let folder = workspace.folder(location).join("jobs");
            for directory in [folder.join(TASK), folder] {
                if let Ok(directory) = fs::File::open(directory) {
                    directory.set_modified(UNIX_EPOCH).unwrap();
                }
            }
        }
        for directory in [&task, &jobs] {
            let long_ago = UNIX_EPOCH + Duration::from_secs(1000);
            fs::File::open(directory)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
            eventually("its own time counts", || modified(directory) == long_ago);
        }
        let of_folder = |location: &str| workspace.folder(location).join("jobs");
        workspace.finished("backup", TASK, &format!("new-{name}"));
        let newest = modified(&of_folder("backup").join(TASK));
        eventually("the task is newer", || modified(&task) == newest);
        assert_eq!(listed().modified().unwrap(), newest);
        assert!(task.join(format!("new-{name}")).is_dir());
        workspace.finished("use", &format!("task.{name}"), "hash");
        let newest = modified(&of_folder("use"));
        eventually("`jobs` is newer", || modified(&jobs) == newest);
        mounted.unmount();
    }
}

#[test]
fn file_handles_are_refused_since_none_could_be_kept() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let mounted = workspace.mount_in_place();
    for path in [mounted.path().to_owned(), mounted.job(TASK, "in-use")] {
        let path = CString::new(path.into_os_string().into_vec()).unwrap();
        // struct file_handle: the room for the handle, its type, the handle.
        let mut handle = [0_u32; 34];
        handle[0] = 128;
        let mut mount = 0_i32;
        // SAFETY: the path ends with a NUL, and the handle has the room that it says.
        #[allow(unsafe_code)]
        let status = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                handle.as_mut_ptr(),
                &raw mut mount,
                0,
            )
        };
        let error = std::io::Error::last_os_error();
        assert_eq!(status, -1, "{path:?} has a file handle");
        assert_eq!(
            error.raw_os_error(),
            Some(libc::EOPNOTSUPP),
            "{path:?}: {error}"
        );
    }
}

#[test]
fn names_need_not_be_utf8() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    for folder in common::FOLDERS {
        let job = workspace
            .folder(folder)
            .join("jobs")
            .join(TASK)
            .join(format!("in-{folder}"));
        fs::write(job.join(common::not_utf8()), folder).unwrap();
    }
    let mounted = workspace.mount_in_place();
    for folder in common::FOLDERS {
        let job = mounted.job(TASK, &format!("in-{folder}"));
        assert!(names(&job).contains(&common::not_utf8().to_owned()));
        assert_eq!(
            fs::read(job.join(common::not_utf8())).unwrap(),
            folder.as_bytes()
        );
    }
    let made = mounted.path().join(common::not_utf8());
    fs::write(&made, "made").unwrap();
    assert!(names(mounted.path()).contains(&common::not_utf8().to_owned()));
    assert_eq!(
        made.file_name().unwrap().as_bytes(),
        common::not_utf8().as_bytes()
    );
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let before = snapshot(&workspace.primary());
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["--read-only"]);
    fails(Command::new("touch").arg(elsewhere.join("file")));
    fails(Command::new("rm").arg(mounted.job(TASK, "in-primary").join("train.out")));
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(mounted.job(TASK, "in-use").join("train.lock"));
    assert_eq!(lock.unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(
        fs::read_dir(mounted.path().join("jobs").join(TASK))
            .unwrap()
            .count(),
        4
    );
    assert_eq!(snapshot(&workspace.primary()), before);
}

#[test]
fn rights_are_those_of_the_disk() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let workspace = Workspace::new();
    one_job_each(&workspace);
    for path in [workspace.top(), workspace.primary()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let somebody = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
        ]);
        command.arg(script).current_dir("/").env("M", &elsewhere);
        command
    };
    run(&mut somebody("cat $M/jobs/*/*/train.out && ls -l $M/jobs"));
    fails(&mut somebody(": > $M/file"));
    fails(&mut somebody("rm -r $M/jobs/*/in-primary"));
    fs::create_dir(elsewhere.join("open")).unwrap();
    fs::set_permissions(elsewhere.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    run(&mut somebody(
        "echo x > $M/open/file && mkdir $M/open/dir && ln -s x $M/open/link",
    ));
    for name in ["file", "dir", "link"] {
        let beneath = workspace.primary().join("open").join(name);
        let meta = fs::symlink_metadata(beneath).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (65534, 65534), "{name}");
    }
    fs::set_permissions(
        mounted.job(TASK, "in-primary"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fails(&mut somebody("ls $M/jobs/*/in-primary"));
    let flags = AtFlags::EACCESS;
    rustix::fs::accessat(CWD, &elsewhere, rustix::fs::Access::WRITE_OK, flags).unwrap();
}

#[test]
fn with_allow_other_who_may_write_in_the_workspace_may_lock_archived_jobs() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let workspace = Workspace::new();
    let archived = workspace.finished("use", TASK, "abc");
    fs::write(archived.join("train.lock"), "").unwrap();
    fs::write(archived.join(".lock"), "").unwrap();
    // A workspace of group 1234, which a member has among the supplementary groups.
    let primary = workspace.primary();
    std::os::unix::fs::chown(&primary, None, Some(1234)).unwrap();
    fs::set_permissions(&primary, fs::Permissions::from_mode(0o775)).unwrap();
    fs::set_permissions(workspace.top(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = snapshot(&workspace.folder("use"));
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let job = mounted.job(TASK, "abc");
    let somebody = |groups: &str, script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4321", "--regid=4321", groups, "sh", "-ec", script]);
        command.current_dir("/").env("J", &job);
        command
    };
    let (stranger, member) = ("--clear-groups", "--groups=1234");
    for script in [
        ": >> $J/train.lock",
        ": > $J/new.pid",
        "mkdir $J/.scheduler",
        "chmod 600 $J/.lock",
        "touch $J/train.done",
    ] {
        fails(&mut somebody(stranger, script));
    }
    assert!(!primary.join(".xpmfs/internal").exists());
    run(&mut somebody(
        member,
        "flock -n $J/train.lock true; echo 1 > $J/new.pid; mkdir $J/.scheduler; cat $J/train.out",
    ));
    fails(&mut somebody(stranger, "rm -f $J/new.pid"));
    fails(&mut somebody(member, "touch $J/train.done"));
    run(&mut somebody(member, "rm $J/new.pid; ls $J"));
    assert_eq!(snapshot(&workspace.folder("use")), before);
}

#[test]
fn a_job_that_is_moved_beneath_somebody_in_it_is_an_archive_at_once() {
    let workspace = Workspace::new().never_recovers();
    let beneath = workspace.finished("primary", TASK, "abc");
    fs::create_dir(beneath.join("deep")).unwrap();
    fs::write(beneath.join("deep/file"), "contents").unwrap();
    fs::create_dir_all(workspace.folder("backup").join("jobs").join(TASK)).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let job = mounted.job(TASK, "abc");
    let inside = File::open(job.join("deep")).unwrap();
    fs::write(job.join("deep/new"), "new").unwrap();
    // A rename on one disk: every file stays the inode that it is.
    let archived = workspace
        .folder("backup")
        .join("jobs")
        .join(TASK)
        .join("abc");
    fs::rename(&beneath, &archived).unwrap();
    let before = snapshot(&archived);
    let mode = Mode::from_raw_mode(0o644);
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC;
    let made = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
    rustix::fs::openat(&inside, "file", flags, mode).unwrap_err();
    rustix::fs::openat(&inside, "another", made, mode).unwrap_err();
    rustix::fs::unlinkat(&inside, "file", AtFlags::empty()).unwrap_err();
    rustix::fs::renameat(&inside, "file", &inside, "moved").unwrap_err();
    rustix::fs::mkdirat(&inside, "dir", mode).unwrap_err();
    rustix::fs::chmodat(&inside, "file", mode, AtFlags::empty()).unwrap_err();
    for script in [
        "echo x >> $J/deep/file",
        "rm $J/deep/new",
        "chmod 600 $J/deep",
    ] {
        fails(Command::new("sh").args(["-ec", script]).env("J", &job));
    }
    assert_eq!(snapshot(&archived), before);
    assert_eq!(fs::read(job.join("deep/file")).unwrap(), b"contents");
}

#[test]
fn many_may_list_one_directory_at_the_same_time() {
    let workspace = Workspace::new();
    for (location, letter) in [("primary", "p"), ("use", "u"), ("backup", "b")] {
        for number in 0..400 {
            let root = match location {
                "primary" => workspace.primary(),
                folder => workspace.folder(folder),
            };
            let name = format!("{letter}{number:0>63}");
            let job = root.join("jobs").join(TASK).join(name);
            fs::create_dir_all(&job).unwrap();
            fs::write(job.join("train.done"), "").unwrap();
        }
    }
    let plain = workspace.primary().join("plain");
    fs::create_dir(&plain).unwrap();
    for number in 0..1200 {
        fs::write(plain.join(format!("{number:0>64}")), "").unwrap();
    }
    let mounted = workspace.mount_in_place();
    let task = mounted.path().join("jobs").join(TASK);
    let listers: Vec<_> = (0..8)
        .map(|_| {
            let (task, plain) = (task.clone(), mounted.path().join("plain"));
            std::thread::spawn(move || {
                for _ in 0..12 {
                    for directory in [&task, &plain] {
                        let mut found = names(directory);
                        found.dedup();
                        assert_eq!(found.len(), 1200, "{}", directory.display());
                    }
                }
            })
        })
        .collect();
    for lister in listers {
        lister.join().unwrap();
    }
}

#[test]
fn a_lock_is_free_when_its_holder_is_gone_though_others_have_the_file_open() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("lock");
    let holder = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    drop(holder);
    let next = File::open(&path).unwrap();
    eventually("the lock is free", || {
        rustix::fs::flock(&next, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    drop(reader);
}

#[test]
fn a_program_that_runs_is_not_emptied() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let program = mounted.path().join("program");
    // By another process: while this one has it open for writing, a child that another test starts has it as well, and it is
    // busy.
    run(Command::new("cp").arg("/bin/sleep").arg(&program));
    let length = fs::metadata(&program).unwrap().len();
    let mut running = Command::new(&program).arg("60").spawn().unwrap();
    for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
        let flags = rustix::fs::OFlags::from_bits_retain((flags | libc::O_TRUNC).cast_unsigned());
        let opened = rustix::fs::open(&program, flags, Mode::empty());
        assert_eq!(opened.unwrap_err(), Errno::TXTBSY, "{flags:?}");
        assert_eq!(fs::metadata(&program).unwrap().len(), length);
    }
    running.kill().unwrap();
    running.wait().unwrap();
    File::options()
        .write(true)
        .truncate(true)
        .open(&program)
        .unwrap();
    assert_eq!(fs::metadata(&program).unwrap().len(), 0);
}
