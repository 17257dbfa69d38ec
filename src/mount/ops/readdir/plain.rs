//! Reads a directory as the disk lists it, with the disk's own positions.

use std::ffi::OsStr;

use rustix::fs::{FileType, Statx};
use rustix::io::{Errno, Result};

use super::{Emit, ReaddirEntry};
use crate::mount::Mount;
use crate::mount::find::Found;
use crate::mount::tables::listings::Listing;
use crate::mount::tables::nodes::NodeRole;
use crate::mount::tables::numbers::ROOT;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::PRIMARY;
use crate::workspace::layout;

/// The position after `jobs` at the top, if it exists only in folders; no disk uses this position.
const AFTER_JOBS: u64 = i64::MAX as u64 - 1;

impl Mount {
    /// Reads entries; returns whether the end was reached.
    pub(in crate::mount) fn read_plain(
        &self,
        listing: &Listing,
        from: u64,
        plus: bool,
        emit: &mut Emit<'_>,
    ) -> Result<bool> {
        if from == AFTER_JOBS {
            return Ok(true);
        }
        let open = listing.sources.first().ok_or(Errno::STALE)?;
        let node = &listing.node;
        let role = match node.role {
            NodeRole::Job | NodeRole::Inside => NodeRole::Inside,
            _ => NodeRole::Outside,
        };
        // At the top, and where internal files may have been created meanwhile, names need further checks.
        let holder = self.holder(node)?;
        let internal = |name: &OsStr, stat: &Statx| {
            holder.as_ref().is_some_and(|holder| {
                holder.is_internal(name, at::is_dir(stat), Some(stat.stx_size))
            })
        };
        let mut emitted = false;
        let fd = open.cursor.fd();
        let asking = || self.asking(node.location, role);
        let end = open.cursor.read(
            from,
            asking,
            |_| (),
            |entry| {
                let name = entry.name();
                if node.role == NodeRole::Root && name == layout::XPMFS {
                    return true;
                }
                emitted = true;
                let asked = plus && node.role != NodeRole::Root && name != "." && name != "..";
                let found = match asked {
                    true => {
                        let _asking = asking();
                        at::stat_at(fd, name).ok()
                    }
                    false => None,
                };
                let found = found.filter(|stat| !internal(name, stat));
                emit(ReaddirEntry {
                    name,
                    kind: entry.kind,
                    inode: self.devices.entry(&open.identity, entry.inode),
                    next: entry.next,
                    found: found.map(|stat| Found {
                        location: node.location,
                        role,
                        stat,
                    }),
                })
            },
        )?;
        if end && node.role == NodeRole::Root {
            return Ok(!self.emit_jobs_of_folders(emit)? && !emitted);
        }
        Ok(end && !emitted)
    }

    /// Returns `jobs` at the end of the top, if a folder has jobs and the primary lacks the directory. Returns whether
    /// there was an entry to return.
    fn emit_jobs_of_folders(&self, emit: &mut Emit<'_>) -> Result<bool> {
        let Some(jobs) = self.find_jobs()?.filter(|jobs| jobs.location != PRIMARY) else {
            return Ok(false);
        };
        if at::absent(at::stat(self.primary_dir()?, OsStr::new(layout::JOBS)))?.is_some() {
            return Ok(false);
        }
        // The top itself does not change when that entry disappears.
        self.invalidate.pages(ROOT);
        emit(ReaddirEntry {
            name: OsStr::new(layout::JOBS),
            kind: FileType::Directory,
            inode: self.devices.inode(&FileId::of(&jobs.stat)),
            next: AFTER_JOBS,
            found: Some(jobs),
        });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::mount::testing::Fixture;
    use crate::settings::Mode;

    /// More than are read from a disk at a time.
    const FILES: usize = 2000;

    fn fill(dir: &Path) {
        for number in 0..FILES {
            fs::write(dir.join(format!("a-file-with-a-longer-name-{number}")), "").unwrap();
        }
    }

    fn names(mount: &Mount, id: u64) -> BTreeSet<OsString> {
        let mut names = BTreeSet::new();
        let emit = |item: &ReaddirEntry<'_>| {
            names.insert(item.name.to_owned());
            true
        };
        mount.list(id, 0, emit).unwrap();
        names.retain(|name| name != "." && name != "..");
        names
    }

    #[test]
    fn an_open_directory_is_listed_as_it_is_when_it_is_read() {
        let fixture = Fixture::new(Mode::Backup, &["primary/jobs/t/h"]);
        let mount = &fixture.mount;
        let job = fixture.primary("jobs/t/h");
        let id = fixture.look_up("jobs/t/h")[3];
        mount.opendir(id).unwrap();
        for made in ["after the opening", "after a part was read"] {
            fs::write(job.join(made), "").unwrap();
            assert!(names(mount, id).contains(OsStr::new(made)), "{made}");
            // Another program reads one entry.
            mount.opendir(id).unwrap();
            mount.list(id, 0, |_| false).unwrap();
        }
        mount.opendir(id).unwrap();
        // Another process moves the job to the folder.
        let moved = fixture.top().join("folder/jobs/t/h");
        fs::create_dir_all(&moved).unwrap();
        fs::write(moved.join("moved"), "").unwrap();
        fs::remove_dir_all(&job).unwrap();
        std::os::unix::fs::symlink(&moved, &job).unwrap();
        assert_eq!(names(mount, id), BTreeSet::from(["moved".into()]));
    }

    #[test]
    fn a_listing_goes_on_in_the_copy_that_has_replaced_its_directory() {
        let job = "folder/jobs/t/h";
        let fixture = Fixture::new(Mode::Backup, &[job]);
        let mount = &fixture.mount;
        let path = fixture.top().join(job);
        fill(&path);
        let id = fixture.look_up("jobs/t/h")[3];
        let mut names = BTreeSet::<OsString>::new();
        let mut next = 0;
        loop {
            let (from, before) = (next, names.len());
            let mut room = 100;
            let emit = |item: &ReaddirEntry<'_>| {
                room -= 1;
                next = item.next;
                names.insert(item.name.to_owned());
                room > 0
            };
            mount.list(id, from, emit).unwrap();
            if names.len() == before {
                break;
            }
            if from == 0 {
                // Another process replaces it, as by archiving the job anew, and removes what was there.
                let aside = path.with_file_name(".replaced");
                fs::rename(&path, &aside).unwrap();
                fs::create_dir(&path).unwrap();
                fill(&path);
                fs::remove_dir_all(&aside).unwrap();
            }
        }
        names.retain(|name| name != "." && name != "..");
        assert_eq!(names.len(), FILES);
    }
}
