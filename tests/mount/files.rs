//! Files of the primary and their attributes, as on a disk.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use crate::common::{Workspace, run, xattr};
use crate::{TASK, common, one_job_each};

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
