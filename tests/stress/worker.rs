//! What each of the processes does, at random.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{CWD, FlockOperation, RenameFlags};

use crate::{MOVING, NAMES, RECORD, SOON, TASK, replace};

pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) mount: PathBuf,
    pub(crate) top: PathBuf,
    pub(crate) random: u64,
    /// Records appended to the log.
    pub(crate) appended: u64,
    /// How often this has counted.
    pub(crate) counted: u64,
    /// Versions of moving jobs that had been published at a time.
    pub(crate) seen: VecDeque<(Instant, usize, u64)>,
}

impl Worker {
    pub(crate) fn step(&mut self) {
        match self.draw(9) {
            0 => self.append(),
            1 => self.count(),
            2 => self.replace_and_read(),
            3 => self.archived(),
            4 | 5 => self.moving(),
            6 => self.list(),
            _ => self.names(),
        }
    }

    /// A number below `limit`.
    fn draw(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn shared(&self, name: &str) -> PathBuf {
        self.mount.join("shared").join(name)
    }

    /// What is appended by one process is never torn apart by another.
    fn append(&mut self) {
        let mut log = OpenOptions::new()
            .append(true)
            .open(self.shared("log"))
            .unwrap();
        for _ in 0..5 {
            let mut record = format!("{} {} ", self.number, self.appended).into_bytes();
            record.resize(RECORD - 1, b'.');
            record.push(b'\n');
            log.write_all(&record).unwrap();
            self.appended += 1;
        }
    }

    /// Nobody counts while another has the lock.
    fn count(&mut self) {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.shared("counter"))
            .unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let count: u64 = text.parse().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        write!(file, "{}", count + 1).unwrap();
        self.counted += 1;
        rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    }

    /// A file that is replaced by renaming is always there and always whole.
    fn replace_and_read(&mut self) {
        let current = self.shared("current");
        if self.draw(3) == 0 {
            let digit = b'0' + (self.number % 10) as u8;
            replace(&current, &vec![digit; 10_000]);
        }
        let contents = fs::read(&current).unwrap();
        assert_eq!(contents.len(), 10_000);
        assert!(contents.iter().all(|byte| *byte == contents[0]), "torn");
        assert_eq!(fs::metadata(&current).unwrap().len(), 10_000);
    }

    /// A job in a folder stays as it is.
    fn archived(&mut self) {
        let job = self.mount.join("jobs").join(TASK).join("archived");
        assert_eq!(fs::read(job.join("model.bin")).unwrap(), [7; 10_000]);
        let error = fs::write(job.join("new"), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }

    /// A job that changes place is always there, has what it had, and no old version for long.
    fn moving(&mut self) {
        let which = self.draw(MOVING.len() as u64) as usize;
        let job = self.mount.join("jobs").join(TASK).join(MOVING[which]);
        let published = fs::read_to_string(self.top.join(MOVING[which])).unwrap();
        self.seen
            .push_back((Instant::now(), which, published.parse().unwrap()));
        match fs::read(job.join("model.bin")) {
            Ok(contents) => assert_eq!(contents, [7; 10_000]),
            Err(error) => moved_meanwhile(&error),
        }
        let read = fs::read_to_string(job.join("version"));
        let now = Instant::now();
        while let Some((at, of, version)) = self.seen.front().copied() {
            if now.duration_since(at) < SOON {
                break;
            }
            self.seen.pop_front();
            if let Ok(read) = &read
                && of == which
            {
                let read: u64 = read.parse().unwrap();
                assert!(
                    read >= version,
                    "{read} read {SOON:?} after {version} was published"
                );
            }
        }
        if let Err(error) = read {
            moved_meanwhile(&error);
        }
        match fs::symlink_metadata(&job) {
            Ok(meta) => assert!(meta.is_dir(), "{meta:?}"),
            Err(error) => moved_meanwhile(&error),
        }
    }

    /// Jobs that stay are listed, each once.
    fn list(&mut self) {
        let task = self.mount.join("jobs").join(TASK);
        let mut names: Vec<String> = fs::read_dir(task)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // What goes and comes while a directory is read may be listed once, twice or not at all.
        names.retain(|name| !MOVING.contains(&name.as_str()));
        assert_eq!(names, ["archived"]);
        let mut few: Vec<_> = fs::read_dir(self.shared("names"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        few.sort();
        assert!(
            few.iter().all(|name| NAMES.iter().any(|one| name == one)),
            "{few:?}"
        );
    }

    /// Files and directories of the same few names come and go.
    fn names(&mut self) {
        let directory = self.shared("names");
        let a = directory.join(NAMES[self.draw(5) as usize]);
        let b = directory.join(NAMES[self.draw(5) as usize]);
        let result = match self.draw(10) {
            0 => fs::create_dir(&a),
            1 => fs::remove_dir(&a),
            2 => fs::remove_file(&a),
            3 => fs::rename(&a, &b),
            4 => fs::hard_link(&a, &b),
            5 => symlink("nowhere", &a),
            6 => fs::symlink_metadata(&a).map(drop),
            7 => rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE)
                .map_err(io::Error::from),
            8 => written_and_read(&a),
            _ => File::create_new(&a).map(drop),
        };
        if let Err(error) = result {
            let usual = [
                libc::ENOENT,
                libc::EEXIST,
                libc::ENOTDIR,
                libc::EISDIR,
                libc::ENOTEMPTY,
                libc::EINVAL,
                // A link to a directory, and removing one as a file.
                libc::EPERM,
            ];
            let number = error.raw_os_error().unwrap();
            assert!(
                usual.contains(&number),
                "{} {}: {error}",
                a.display(),
                b.display()
            );
        }
    }
}

/// What is written through an open file is read through it, whatever becomes of its name.
fn written_and_read(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).custom(path)?;
    let length = file.metadata()?.len();
    assert!(length <= 4, "{length}");
    file.write_all(b"four")?;
    file.seek(SeekFrom::Start(0))?;
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    assert_eq!(contents, b"four");
    assert_eq!(file.metadata()?.len(), 4);
    Ok(())
}

/// Opening that does not follow symlinks.
trait NoFollow {
    fn custom(&mut self, path: &Path) -> io::Result<File>;
}

impl NoFollow for OpenOptions {
    fn custom(&mut self, path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        match self.custom_flags(libc::O_NOFOLLOW).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                Err(io::Error::from_raw_os_error(libc::ENOENT))
            }
            result => result,
        }
    }
}

/// While a job goes from one place to the other, a disk has it nowhere for a moment.
fn moved_meanwhile(error: &io::Error) {
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
}
