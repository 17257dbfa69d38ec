//! Deep and large directories.

use super::*;

/// A directory that is removed however deep it is.
struct Deep(PathBuf);

impl Drop for Deep {
    fn drop(&mut self) {
        let _ = Command::new("rm").arg("-rf").arg(&self.0).output();
    }
}

const DEPTH: usize = 3000;

/// The directory at the bottom of a deep tree below `top`, which is made if `make`.
fn descend(top: &Path, make: bool) -> OwnedFd {
    let mut here = open(top, OFlags::PATH | OFlags::DIRECTORY).unwrap();
    for level in 0..DEPTH {
        if make {
            rustix::fs::mkdirat(&here, "deeper", RWX).unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "deeper", flags, Mode::empty())
            .unwrap_or_else(|error| panic!("level {level}: {error}"));
    }
    here
}

fn at(dir: &OwnedFd, name: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, RWX).unwrap()
}

#[test]
fn a_deep_tree_is_made_seen_and_removed() {
    let workspace = Workspace::new();
    let _remove = Deep(workspace.top());
    let archived = workspace.finished("backup", TASK, "archived");
    let bottom = descend(&archived, true);
    rustix::io::write(
        at(&bottom, "file", OFlags::WRONLY | OFlags::CREATE),
        b"deep",
    )
    .unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let new = mounted.job(TASK, "new");
    fs::create_dir_all(&new).unwrap();
    let bottom = descend(&new, true);
    rustix::io::write(
        at(&bottom, "file", OFlags::WRONLY | OFlags::CREATE),
        b"deep",
    )
    .unwrap();
    drop(bottom);
    mounted.unmount();
    let mounted = workspace.mount_at(&elsewhere);
    for hash in ["new", "archived"] {
        let bottom = descend(&mounted.job(TASK, hash), false);
        // What the mount keeps open of it has long been closed again.
        let file = at(&bottom, "file", OFlags::RDONLY);
        assert_eq!(contents(file).unwrap(), "deep", "{hash}");
        let removed = rustix::fs::unlinkat(&bottom, "file", AtFlags::empty());
        let expected = match hash {
            "new" => Ok(()),
            _ => Err(Errno::ROFS),
        };
        assert_eq!(removed, expected, "{hash}");
    }
    run(Command::new("rm").arg("-rf").arg(mounted.job(TASK, "new")));
    assert_eq!(names(&mounted.path().join("jobs").join(TASK)), ["archived"]);
}

/// The names that are listed, each as often as it is.
fn listed(dir: &mut rustix::fs::Dir) -> Vec<Vec<u8>> {
    let mut listed = Vec::new();
    while let Some(entry) = dir.read() {
        let name = entry.unwrap().file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            listed.push(name);
        }
    }
    listed
}

/// Asserts that each of `count` stable entries was listed once.
fn assert_once(listed: &[Vec<u8>], count: usize) {
    let stable: Vec<_> = listed
        .iter()
        .filter(|name| name.starts_with(b"stable"))
        .collect();
    let different: HashSet<_> = stable.iter().collect();
    assert_eq!((stable.len(), different.len()), (count, count));
}

fn directory(path: &Path) -> rustix::fs::Dir {
    rustix::fs::Dir::new(open(path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap()).unwrap()
}

#[test]
fn each_of_a_hundred_thousand_files_is_listed_once_while_others_come_and_go() {
    const FILES: usize = 100_000;
    let workspace = Workspace::new();
    let job = workspace.finished("primary", TASK, "large");
    for number in 0..FILES {
        File::create(job.join(format!("stable-{number}"))).unwrap();
    }
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let seen = mounted.job(TASK, "large");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for through in [&job, &seen] {
            let done = &done;
            scope.spawn(move || {
                for number in (0..500).cycle() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = through.join(format!("fleeting-{number}"));
                    let _ = File::create(&path);
                    let _ = fs::remove_file(through.join(format!("fleeting-{}", number / 2)));
                }
            });
        }
        let result = std::panic::catch_unwind(|| {
            for _ in 0..2 {
                assert_once(&listed(&mut directory(&seen)), FILES);
            }
        });
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_union_is_listed_from_wherever_one_has_been() {
    const EACH: usize = 1500;
    let workspace = Workspace::new();
    for number in 0..EACH {
        for (location, offset) in [
            (workspace.primary(), 0),
            (workspace.folder("backup"), EACH / 2),
        ] {
            let name = format!("stable-{}", number + offset);
            fs::create_dir_all(job(&location, &name)).unwrap();
            let task = location
                .join("jobs")
                .join(format!("stable.{}", number + offset));
            fs::create_dir_all(task).unwrap();
        }
    }
    let count = EACH + EACH / 2;
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let jobs = mounted.path().join("jobs");
    for path in [jobs.join(TASK), jobs] {
        let mut dir = directory(&path);
        assert_once(&listed(&mut dir), count);
        dir.rewind();
        let mut positions = Vec::new();
        let mut order = Vec::new();
        while let Some(entry) = dir.read() {
            let entry = entry.unwrap();
            positions.push(entry.offset());
            order.push(entry.file_name().to_owned());
        }
        let different: HashSet<_> = positions.iter().collect();
        assert_eq!(
            different.len(),
            positions.len(),
            "two entries have one position"
        );
        // Back and forth, on the boundary between the locations too.
        for index in [
            0,
            1,
            EACH - 1,
            EACH,
            EACH + 1,
            EACH + 2,
            EACH + 3,
            7,
            count,
            count - 1,
        ] {
            dir.seek(positions[index]).unwrap();
            let rest: Vec<_> = std::iter::from_fn(|| dir.read())
                .map(|entry| entry.unwrap().file_name().to_owned())
                .collect();
            assert_eq!(rest, order[index + 1..], "after entry {index}");
        }
        dir.rewind();
        assert_once(&listed(&mut dir), count);
    }
}
