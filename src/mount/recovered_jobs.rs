//! Makes the nodes of an archived job stand for the recovered one.
//!
//! The kernel has looked the job up in a folder; processes are in its directories and have its files open. The recovered
//! job has other inodes:
//!
//! 1. A directory keeps its node, which from now on stands for the recovered directory: current directories and open
//!    directories lead to it. The kernel must not notice, so the node keeps its number and its generation.
//! 2. A file keeps its node, and what was opened by it stays readable. The recovered file gets another node, which the
//!    kernel finds when it looks the name up again. Calls that change the old node change the recovered file
//!    (`tables::superseded`).
//! 3. The nodes of what a purge has left of the job, which are the primary's already, change as those of the folder do; so do those of
//!    the job as it was before it was moved or released.
//! 4. An internal file is the same file in another directory (`archive::job::internal_files`): its node gets the location.
//!
//! 5. A job that was recovered and not changed is moved or released again, with the copy that the folder has had all the time. A file of
//!    this copy then has the node that it had before, which stands for itself again. So does a new file that gets the inode of a
//!    removed one on a disk that keeps no times of birth.
//!
//! The disk is read first; then all nodes change at once. Requests that find some nodes changed and others not are
//! attempted again (`deferred`).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::Statx;
use rustix::io::Result;

use crate::mount::Mount;
use crate::mount::moved_jobs::JobCaches;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole, Version};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::{InPrimary, PRIMARY};
use crate::workspace::jobs::JobId;

/// A node of an archived job, and the attributes of what has its path in the recovered job.
struct Known {
    id: u64,
    node: Node,
    there: Statx,
}

impl JobCaches {
    /// Makes the nodes of a job stand for its directory in the primary, if it is there. Returns whether the kernel knows
    /// that directory by a node that it knew before.
    pub(super) fn recovered(&self, job: &JobId) -> bool {
        let Ok(Some(top)) = self.in_primary(job) else {
            return false;
        };
        let Ok(stat) = at::stat_fd(&top) else {
            return false;
        };
        let mut known: Vec<Known> = Vec::new();
        let jobs = self.nodes_of(job);
        for (id, node) in jobs.clone() {
            if node.location == PRIMARY && node.identity == FileId::of(&stat) {
                self.dir_cache.put_back(id);
            }
            let is_replaced = self.is_replaced(id, &node, &stat);
            let first = known.len();
            known.push(Known {
                id,
                node,
                there: stat,
            });
            self.add_below(id, &top, &mut known);
            if !is_replaced {
                let below = known.split_off(first);
                known.extend(
                    below
                        .into_iter()
                        .filter(|known| known.node.location != PRIMARY),
                );
            }
        }
        if known.is_empty() {
            return false;
        }
        let _changing = self.node_changes.begin();
        for known in &known {
            self.change(known);
        }
        let known: HashSet<u64> = known.iter().map(|known| known.id).collect();
        self.change_late(&jobs, &top, &known);
        true
    }

    /// Changes the nodes that were entered while the others were read, as far as they were found in a folder. A later request finds
    /// the directories changed (`Mount::enter_found`).
    fn change_late(&self, jobs: &[(u64, Node)], top: &OwnedFd, known: &HashSet<u64>) {
        let mut late = Vec::new();
        for (id, _) in jobs {
            self.add_below(*id, top, &mut late);
        }
        late.retain(|late| late.node.location != PRIMARY && !known.contains(&late.id));
        for late in &late {
            self.change(late);
        }
    }

    /// Whether a node is a directory in the primary that the recovered job has replaced: a purge has left it, or an archiver has moved or
    /// released the job.
    fn is_replaced(&self, id: u64, node: &Node, there: &Statx) -> bool {
        let is_removed = self.dir_cache.removed(id).is_some() && !self.dir_cache.is_moved_job(id);
        node.location == PRIMARY && node.identity != FileId::of(there) && !is_removed
    }

    /// Opens the directory of a job in the primary, if the primary serves it. What a purge has left of a job is not the
    /// job.
    fn in_primary(&self, job: &JobId) -> Result<Option<OwnedFd>> {
        if self.view.in_primary(job.task_id(), job.hash())? != InPrimary::Job {
            return Ok(None);
        }
        let task = at::absent(self.view.primary().root()?.task(job.task_id()))?;
        match task {
            Some(task) => at::absent(at::open_dir(task, job.hash())),
            None => Ok(None),
        }
    }

    /// Returns the nodes that the kernel knows as the directory of a job, in any location.
    fn nodes_of(&self, job: &JobId) -> Vec<(u64, Node)> {
        let mut called_so = Vec::new();
        self.nodes.each(|id, node| {
            if node.role == NodeRole::Job && *node.name == *job.hash() {
                called_so.push((id, node.clone()));
            }
        });
        called_so.retain(|(_, node)| {
            let task = self.nodes.get(node.parent);
            task.is_some_and(|task| *task.name == *job.task_id())
        });
        called_so
    }

    /// Adds the nodes below the node of a job that have a counterpart in the recovered job.
    fn add_below(&self, job: u64, top: &OwnedFd, to: &mut Vec<Known>) {
        let mut nodes: HashMap<u64, Node> = HashMap::new();
        self.nodes.below(job, |id, node| {
            nodes.insert(id, node.clone());
        });
        // A directory is opened once for all of its entries that follow each other.
        let mut opened: Option<(u64, Option<OwnedFd>)> = None;
        let mut ordered: Vec<_> = nodes.keys().copied().collect();
        ordered.sort_unstable_by_key(|id| nodes[id].parent);
        for id in ordered {
            let node = &nodes[&id];
            if opened
                .as_ref()
                .is_none_or(|(parent, _)| *parent != node.parent)
            {
                let dir = path_below(job, node.parent, &nodes);
                let dir = dir.and_then(|path| {
                    let names = path.iter().map(|name| -> &OsStr { name });
                    at::open_dirs(top, names).ok()
                });
                opened = Some((node.parent, dir));
            }
            if let Some((_, Some(dir))) = &opened
                && let Ok(there) = at::stat(dir, &node.name)
            {
                let node = node.clone();
                to.push(Known { id, node, there });
            }
        }
    }

    fn change(&self, Known { id, node, there }: &Known) {
        let identity = FileId::of(there);
        if node.identity == identity {
            self.nodes.set_location(*id, PRIMARY);
            self.invalidate.attributes(*id);
        } else if node.directory && at::is_dir(there) {
            let own = self.devices.node(&identity);
            self.nodes.replace_directory(*id, identity, PRIMARY, own);
            // Also what was kept of it while its name was contended.
            drop(self.dir_cache.forget(*id));
            self.listings.replace_directory(*id);
            self.invalidate.pages(*id);
        } else if !node.directory && node.location != INTERNAL {
            self.supersede(*id, node, there);
            self.invalidate.name(node.parent, &node.name);
        }
    }

    /// Enters the recovered file that has taken the place of a node.
    fn supersede(&self, id: u64, node: &Node, there: &Statx) {
        let identity = FileId::of(there);
        let recovered = Node {
            identity,
            location: PRIMARY,
            directory: at::is_dir(there),
            ..node.clone()
        };
        let own = self.devices.node(&identity);
        let (recovered, _) = self.nodes.remember(own, recovered, Version::of(there));
        self.nodes.record(recovered);
        let name = (node.parent, node.name.clone());
        let before = self.superseded.add(id, recovered, name);
        let gone = match self.nodes.get(id) {
            Some(_) => before,
            // The kernel has forgotten the node meanwhile.
            None => self.superseded.end(id),
        };
        if let Some(gone) = gone {
            self.nodes.forget(gone, 1, || ());
        }
    }
}

impl Mount {
    /// Makes a node that was found under a name, and that the kernel is about to receive, stand for its own file if the recovered one,
    /// which had taken its place, does not serve the job any more, or if another file has the inode of the archived one.
    pub(super) fn stands_for_itself(&self, id: u64, name: (u64, &OsStr), location: u8) {
        while self.superseded.successor(id).is_some() {
            let epoch = self.node_changes.epoch();
            let is_current = match location {
                PRIMARY | INTERNAL => self.is_found(id, name),
                _ => self.is_served_by_folder(id),
            };
            if !is_current {
                return;
            }
            // The job may have been recovered since it was looked for.
            let Some(changing) = self.node_changes.begin_since(epoch) else {
                continue;
            };
            let before = self.superseded.end(id);
            drop(changing);
            if let Some(before) = before {
                self.forget(before, 1);
            }
        }
    }

    /// Whether a name still leads to a node. If not, the node may be what a purge had left, found before its job was recovered.
    fn is_found(&self, id: u64, (parent, name): (u64, &OsStr)) -> bool {
        let found = self.find(parent, name);
        found.is_ok_and(|found| self.nodes.identity(id) == Some(FileId::of(&found.stat)))
    }

    /// Whether the job of a node is not in the primary. If it is, the node was found before the job was recovered: the kernel has been
    /// asked to look the name up again.
    fn is_served_by_folder(&self, id: u64) -> bool {
        let job = self.nodes.get(id).and_then(|node| self.nodes.job_of(node));
        let in_primary = |job: JobId| self.view.in_primary(job.task_id(), job.hash());
        matches!(
            job.map(in_primary),
            Some(Ok(InPrimary::Nothing | InPrimary::Link | InPrimary::Purged))
        )
    }
}

/// Returns the names that lead from a job to a node below it.
fn path_below(job: u64, mut id: u64, nodes: &HashMap<u64, Node>) -> Option<Vec<Name>> {
    let mut names = Vec::new();
    while id != job {
        let node = nodes.get(&id)?;
        names.push(node.name.clone());
        // A circle cannot be a path.
        if names.len() > nodes.len() {
            return None;
        }
        id = node.parent;
    }
    names.reverse();
    Some(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::mount::testing::Fixture;
    use crate::settings::Mode;

    const FILE: &str = "jobs/t/h/latest";

    /// An archived job with a symlink.
    fn archived() -> Fixture {
        let fixture = Fixture::new(Mode::Backup, &["primary/jobs/t", "folder/jobs/t/h"]);
        symlink("model", fixture.top().join("folder").join(FILE)).unwrap();
        fixture
    }

    /// Recovers the job, and returns the node of its symlink that the kernel had received before.
    fn recovered(fixture: &Fixture) -> u64 {
        let id = fixture.look_up(FILE)[4];
        fs::create_dir(fixture.primary("jobs/t/h")).unwrap();
        symlink("model", fixture.primary(FILE)).unwrap();
        let job = JobId::new("t", "h").unwrap();
        fixture.mount.job_caches().moved(&job);
        assert!(fixture.mount.superseded.successor(id).is_some());
        id
    }

    #[test]
    fn what_was_found_in_the_folder_before_the_recovery_is_not_served() {
        let fixture = archived();
        let (mount, name) = (&fixture.mount, OsStr::new("latest"));
        let job = fixture.look_up("jobs/t/h")[3];
        let found = || fixture.mount.find(job, name).unwrap();
        // The requests below were begun before the recovery.
        let [first, second] = [found(), found()];
        fs::create_dir(fixture.primary("jobs/t/h")).unwrap();
        symlink("other", fixture.primary(FILE)).unwrap();
        let (caches, id) = (mount.job_caches(), JobId::new("t", "h").unwrap());
        caches.moved(&id);
        let entered = mount.enter_found(job, name, first).map(drop);
        assert_eq!(entered, Err(rustix::io::Errno::STALE));
        // Entered before the directory was changed.
        let entered = mount.enter(job, name, second).unwrap().id;
        let top = caches.in_primary(&id).unwrap().unwrap();
        caches.change_late(&caches.nodes_of(&id), &top, &HashSet::new());
        assert_eq!(
            mount.superseded.successor(entered),
            Some(fixture.look_up(FILE)[4])
        );
    }

    /// Removes the job everywhere, and makes a file that gets the inode of its archived symlink.
    fn reuse_inode(fixture: &Fixture) {
        let archived = fixture.top().join("folder").join(FILE);
        let inode = fs::symlink_metadata(&archived).unwrap().ino();
        // A disk that keeps no time of birth would reuse the inode for a new file.
        fs::hard_link(&archived, fixture.primary("new")).unwrap();
        fs::remove_dir_all(fixture.top().join("folder/jobs/t/h")).unwrap();
        fs::remove_dir_all(fixture.primary("jobs/t/h")).unwrap();
        let new = fs::symlink_metadata(fixture.primary("new")).unwrap();
        assert_eq!(new.ino(), inode);
    }

    #[test]
    fn a_new_file_that_reuses_an_inode_does_not_lead_to_what_replaced_the_old_one() {
        let fixture = archived();
        let id = recovered(&fixture);
        reuse_inode(&fixture);
        assert_eq!(fixture.look_up("new")[1], id);
        assert_eq!(fixture.mount.readlink(id).unwrap(), "model");
        fixture.mount.getattr(id, None).unwrap();
    }

    #[test]
    fn a_file_that_the_kernel_has_forgotten_leads_nowhere_in_the_next_process() {
        let mut fixture = archived();
        let keeper = fixture.keep();
        let id = recovered(&fixture);
        let successor = fixture.mount.superseded.successor(id).unwrap();
        fixture.mount.forget(id, 1);
        fixture.take_over(&keeper);
        assert_eq!(fixture.mount.superseded.successor(id), None);
        assert!(!fixture.mount.nodes.is_received(successor));
    }

    /// The kernel may have forgotten a file, and the process that was to read so was killed.
    #[test]
    fn an_inode_is_reused_for_a_file_that_only_the_previous_process_knew() {
        let mut fixture = archived();
        let keeper = fixture.keep();
        let id = recovered(&fixture);
        fixture.take_over(&keeper);
        reuse_inode(&fixture);
        assert_eq!(fixture.look_up("new")[1], id);
        assert_eq!(fixture.mount.readlink(id).unwrap(), "model");
    }

    #[test]
    fn an_open_file_leads_to_the_recovered_one_in_the_next_processes() {
        let mut fixture = archived();
        let keeper = fixture.keep();
        let id = recovered(&fixture);
        // As if it was open.
        fixture.mount.nodes.record(id);
        let successor = fixture.mount.superseded.successor(id);
        for _ in 0..2 {
            fixture.take_over(&keeper);
            assert_eq!(fixture.mount.superseded.successor(id), successor);
            assert_eq!(fixture.mount.readlink(id).unwrap(), "model");
        }
        fixture.mount.forget(id, 1);
        assert!(!fixture.mount.nodes.is_received(successor.unwrap()));
    }
}
