//! No system call changes an archived job.

use super::*;

/// The paths of one attack: the mount, a job in the primary, an archived job.
struct Scene<'a> {
    mount: &'a Path,
    own: &'a Path,
    job: &'a Path,
}

fn opening_for_writing(scene: &Scene<'_>, tried: &mut Attempts) {
    let (write, read) = (OFlags::WRONLY, OFlags::RDONLY);
    for name in [
        "model.bin",
        "uv.lock",
        "data/deep/file",
        "latest",
        "train.done",
    ] {
        let path = scene.job.join(name);
        for flags in [
            write,
            OFlags::RDWR,
            read | OFlags::TRUNC,
            write | OFlags::TRUNC,
            write | OFlags::APPEND,
            write | OFlags::CREATE,
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
        ] {
            tried.read_only(&format!("open {name} {flags:?}"), open(&path, flags));
        }
    }
    for name in [
        "new",
        "data/new",
        "train.failed",
        "new.lock.bak",
        ".experimaestro/new",
    ] {
        let path = scene.job.join(name);
        let flags = write | OFlags::CREATE | OFlags::EXCL;
        tried.read_only(&format!("create {name}"), open(&path, flags));
    }
    // By another way to a file that is open for reading.
    let file = File::open(scene.job.join("model.bin")).unwrap();
    let magic = PathBuf::from(format!("/proc/thread-self/fd/{}", file.as_raw_fd()));
    tried.read_only("reopen", open(&magic, write));
    tried.read_only("reopen and truncate", open(&magic, write | OFlags::TRUNC));
    let temporary = open(scene.job, write | OFlags::TMPFILE);
    tried.refused("O_TMPFILE", &[Errno::OPNOTSUPP, Errno::ROFS], temporary);
}

fn making_and_linking(scene: &Scene<'_>, tried: &mut Attempts) {
    for dir in ["", "data", "empty", ".experimaestro"] {
        let dir = scene.job.join(dir);
        let new = dir.join("new");
        let shown = new.display();
        tried.read_only(&format!("mkdir {shown}"), rustix::fs::mkdir(&new, RWX));
        for kind in [FileType::RegularFile, FileType::Fifo, FileType::Socket] {
            let made = rustix::fs::mknodat(CWD, &new, kind, RWX, 0);
            tried.read_only(&format!("mknod {shown} {kind:?}"), made);
        }
        tried.read_only("symlink", rustix::fs::symlink("/etc/passwd", &new));
        let own = scene.own.join("model.bin");
        tried.read_only("link into", rustix::fs::link(own, &new));
    }
    let taken = rustix::fs::mkdir(scene.job, RWX);
    tried.refused("mkdir of the job", &[Errno::EXIST], taken);
    let model = scene.job.join("model.bin");
    for to in [scene.mount.join("stolen"), scene.own.join("stolen")] {
        tried.read_only("link out", rustix::fs::link(&model, &to));
        let file = File::open(&model).unwrap();
        let magic = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        let linked = rustix::fs::linkat(CWD, &magic, CWD, &to, follow);
        tried.read_only("link out by descriptor", linked);
    }
    tried.read_only(
        "link within",
        rustix::fs::link(&model, scene.job.join("new")),
    );
}

fn removing_and_renaming(scene: &Scene<'_>, tried: &mut Attempts) {
    let at = |name: &str| scene.job.join(name);
    for name in [
        "model.bin",
        "latest",
        "uv.lock",
        "train.done",
        "data/deep/file",
    ] {
        tried.read_only(&format!("unlink {name}"), rustix::fs::unlink(at(name)));
    }
    for name in ["empty", "data", ".experimaestro", ""] {
        tried.read_only(&format!("rmdir {name}"), rustix::fs::rmdir(at(name)));
    }
    let task = scene.job.parent().unwrap();
    tried.read_only("rmdir of the task", rustix::fs::rmdir(task));
    let own = |name: &str| scene.own.join(name);
    let elsewhere = scene.mount.join("elsewhere");
    let exchange = RenameFlags::EXCHANGE;
    let plain = RenameFlags::empty();
    let noreplace = RenameFlags::NOREPLACE;
    let occupied = &[Errno::ROFS, Errno::NOTEMPTY][..];
    let read_only = &[Errno::ROFS][..];
    for (from, to, flags, with) in [
        // Away, within, and over.
        (at("model.bin"), elsewhere.clone(), plain, read_only),
        (at("model.bin"), own("new"), plain, read_only),
        (at("model.bin"), at("new"), plain, read_only),
        (at("model.bin"), at("data/new"), noreplace, read_only),
        (at("model.bin"), at("train.out"), plain, read_only),
        (at("model.bin"), at("train.out"), exchange, read_only),
        (at("model.bin"), at("train.out"), noreplace, &[Errno::EXIST]),
        (at("model.bin"), at("model.lock"), plain, read_only),
        (at("model.bin"), at("model.pid"), noreplace, read_only),
        (at("data"), elsewhere.clone(), plain, read_only),
        (at("data"), at("empty"), plain, occupied),
        (at(""), elsewhere.clone(), plain, read_only),
        (at(""), task.join("renamed"), plain, read_only),
        (at(""), task.join("renamed"), noreplace, read_only),
        (at(""), own(""), exchange, read_only),
        (at(""), own("empty"), plain, read_only),
        (task.into(), elsewhere.clone(), plain, read_only),
        (task.into(), task.with_file_name("other"), plain, read_only),
        // Into.
        (own("model.bin"), at("new"), plain, read_only),
        (own("model.bin"), at("new"), noreplace, read_only),
        (own("model.bin"), at("model.bin"), plain, read_only),
        (own("model.bin"), at("model.bin"), exchange, read_only),
        (own("model.bin"), at("data/deep/file"), plain, read_only),
        (own("model.bin"), at("my.lock"), plain, read_only),
        (own("data"), at("new"), plain, read_only),
        (own("data"), at("empty"), plain, occupied),
        (own("data"), at("data"), exchange, read_only),
        (own(""), at(""), plain, occupied),
        (own(""), at(""), exchange, read_only),
        (own(""), at("data/new"), plain, read_only),
    ] {
        let what = format!("rename {} {} {flags:?}", from.display(), to.display());
        let renamed = rustix::fs::renameat_with(CWD, &from, CWD, &to, flags);
        tried.refused(&what, with, renamed);
    }
}

fn changing_attributes(scene: &Scene<'_>, tried: &mut Attempts) {
    let mode = Mode::from_raw_mode(0o4777);
    for name in [
        "",
        "model.bin",
        "uv.lock",
        "data",
        "data/deep/file",
        "empty",
        "train.py",
    ] {
        let path = scene.job.join(name);
        tried.read_only(&format!("chmod {name}"), rustix::fs::chmod(&path, mode));
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let (uid, gid) = (Uid::from_raw(uid.as_raw()), Gid::from_raw(gid.as_raw()));
        let owned = rustix::fs::chownat(CWD, &path, Some(uid), Some(gid), AtFlags::empty());
        tried.read_only(&format!("chown {name}"), owned);
        let timed = rustix::fs::utimensat(CWD, &path, &now(), AtFlags::empty());
        tried.read_only(&format!("utimes {name}"), timed);
        let set = rustix::fs::setxattr(&path, "user.new", b"1", XattrFlags::empty());
        tried.read_only(&format!("setxattr {name}"), set);
        let file = open(&path, OFlags::RDONLY).unwrap();
        tried.read_only(&format!("fchmod {name}"), rustix::fs::fchmod(&file, mode));
        let owned = rustix::fs::fchown(&file, Some(uid), Some(gid));
        tried.read_only(&format!("fchown {name}"), owned);
        tried.read_only(
            &format!("futimens {name}"),
            rustix::fs::futimens(&file, &now()),
        );
        let set = rustix::fs::fsetxattr(&file, "user.new", b"1", XattrFlags::empty());
        tried.read_only(&format!("fsetxattr {name}"), set);
    }
    let out = scene.job.join("train.out");
    tried.read_only("removexattr", rustix::fs::removexattr(&out, "user.note"));
    let ours = rustix::fs::setxattr(&out, "user.xpmfs.location", b"1", XattrFlags::empty());
    tried.refused("setxattr of ours", &[Errno::PERM], ours);
    let latest = scene.job.join("latest");
    let timed = rustix::fs::utimensat(CWD, &latest, &now(), AtFlags::SYMLINK_NOFOLLOW);
    tried.read_only("utimes of a symlink", timed);
}

fn through_descriptors_for_reading(scene: &Scene<'_>, tried: &mut Attempts) {
    let path = scene.job.join("model.bin");
    let file = open(&path, OFlags::RDONLY).unwrap();
    let own = open(&scene.own.join("train.out"), OFlags::RDWR).unwrap();
    let unfit = &[Errno::BADF, Errno::INVAL, Errno::ROFS][..];
    tried.refused("write", unfit, rustix::io::write(&file, b"x"));
    tried.refused("pwrite", unfit, rustix::io::pwrite(&file, b"x", 0));
    tried.refused("ftruncate", unfit, rustix::fs::ftruncate(&file, 0));
    for mode in [
        FallocateFlags::empty(),
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
    ] {
        let allocated = rustix::fs::fallocate(&file, mode, 0, 4096);
        tried.refused("fallocate", unfit, allocated);
    }
    let copied = rustix::fs::copy_file_range(&own, None, &file, None, 5);
    tried.refused("copy_file_range", unfit, copied);
    // Reading, and locking what is open for that, is nobody's harm.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
    rustix::fs::fsync(&file).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 10_000]);
}

fn attack(scene: &Scene<'_>, tried: &mut Attempts) {
    opening_for_writing(scene, tried);
    making_and_linking(scene, tried);
    removing_and_renaming(scene, tried);
    changing_attributes(scene, tried);
    through_descriptors_for_reading(scene, tried);
}

#[test]
fn no_system_call_changes_an_archived_job() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        let elsewhere = workspace.mountpoint("elsewhere");
        let before = folders(workspace);
        let jobs = snapshot(&workspace.primary().join("jobs"));
        for mountpoint in [workspace.primary(), elsewhere] {
            let mounted = workspace.mount_at(&mountpoint);
            let own = mounted.job(TASK, "in-primary");
            let mut tried = Attempts::default();
            workspace.as_user(|| {
                for folder in FOLDERS {
                    let scene = Scene {
                        mount: mounted.path(),
                        own: &own,
                        job: &mounted.job(TASK, &format!("in-{folder}")),
                    };
                    attack(&scene, &mut tried);
                }
            });
            assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
            assert!(tried.made > 500, "{} attempts", tried.made);
            mounted.unmount();
            assert_same(&before, &folders(workspace));
        }
        assert_same(&[jobs], &[snapshot(&workspace.primary().join("jobs"))]);
    });
}

/// Where the kernel checks rights, it must not be these that save an archive.
#[test]
fn an_archived_job_that_anybody_may_write_is_not_changed_by_others() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new().never_recovers();
    one_job_each(&workspace);
    run(Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(workspace.top()));
    let before = folders(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let mut tried = Attempts::default();
    as_nobody(|| {
        let attributes = &[Errno::PERM, Errno::ROFS][..];
        for folder in FOLDERS {
            let job = mounted.job(TASK, &format!("in-{folder}"));
            let own = mounted.job(TASK, "in-primary");
            let scene = Scene {
                mount: &elsewhere,
                own: &own,
                job: &job,
            };
            opening_for_writing(&scene, &mut tried);
            removing_and_renaming(&scene, &mut tried);
            let mode = rustix::fs::chmod(job.join("model.bin"), RWX);
            tried.refused("chmod", attributes, mode);
            let timed = rustix::fs::utimensat(CWD, &job, &now(), AtFlags::empty());
            tried.refused("utimes", attributes, timed);
            let made = rustix::fs::mkdir(job.join("data/new"), RWX);
            tried.refused("mkdir", attributes, made);
            let set = rustix::fs::setxattr(&job, "user.new", b"1", XattrFlags::empty());
            tried.refused("setxattr", attributes, set);
        }
    });
    assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
    mounted.unmount();
    assert_same(&before, &folders(&workspace));
}
