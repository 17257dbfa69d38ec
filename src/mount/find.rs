//! Finds a file by its name in a directory of the view: which location has it, and what it is.

use std::ffi::OsStr;

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::sys::at;
use crate::view::internal::JobDir;
use crate::view::{PRIMARY, Served};
use crate::workspace::{jobs, layout};

/// A file or directory that was found under a name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) location: u8,
    pub(super) role: NodeRole,
    pub(super) stat: Statx,
}

impl Mount {
    /// Updates the nodes of a job that is served from another location than before, by the same directory: its files may
    /// be changed from now on, or no longer.
    pub(super) fn job_changed_location(&self, id: u64, location: u8) {
        self.nodes.below(id, |id, node| {
            if node.location != INTERNAL {
                node.location = location;
            }
            self.invalidate.node(id, node);
        });
    }

    /// Returns the file or directory under a name.
    pub(super) fn find(&self, parent: u64, name: &OsStr) -> Result<Found> {
        let node = self.node(parent)?;
        match node.role {
            NodeRole::Root => self.find_at_top(name),
            NodeRole::Jobs => self.find_task(name),
            NodeRole::Task => self.find_job(&node, name),
            NodeRole::Job | NodeRole::Inside => match self.holder(&node)? {
                Some(holder) => self.find_in_archived_job(parent, &node, &holder, name),
                None => self.find_plain(parent, &node, name, NodeRole::Inside),
            },
            NodeRole::Outside => self.find_plain(parent, &node, name, NodeRole::Outside),
        }
    }

    fn find_plain(&self, parent: u64, node: &Node, name: &OsStr, role: NodeRole) -> Result<Found> {
        let found = self.find_unless_moved(parent, node, name, role);
        found.map_err(|error| match error {
            Errno::NOENT => self.absence(parent, node, name),
            error => error,
        })
    }

    /// Returns the file or directory under a name in a directory of one location. Its job is known to be where its nodes say.
    pub(super) fn find_unless_moved(
        &self,
        parent: u64,
        node: &Node,
        name: &OsStr,
        role: NodeRole,
    ) -> Result<Found> {
        let dir = self.directory(parent)?;
        let _asking = self.asking(node.location, role);
        Ok(Found {
            location: node.location,
            role,
            stat: at::stat(dir, name)?,
        })
    }

    fn find_at_top(&self, name: &OsStr) -> Result<Found> {
        if name == layout::XPMFS {
            return Err(Errno::NOENT);
        }
        if name == "jobs"
            && let Some(found) = self.find_jobs()?
        {
            return Ok(found);
        }
        Ok(Found {
            location: PRIMARY,
            role: NodeRole::Outside,
            stat: at::stat(self.primary_dir()?, name)?,
        })
    }

    /// Finds `jobs/`: the primary's, or the first folder's if the primary has none.
    pub(super) fn find_jobs(&self) -> Result<Option<Found>> {
        for location in self.view.locations() {
            let jobs = location.root().and_then(|root| {
                let _asking = location.asking();
                root.jobs().and_then(at::stat_fd)
            });
            match jobs {
                Ok(stat) => {
                    return Ok(Some(Found {
                        location: location.index(),
                        role: NodeRole::Jobs,
                        stat,
                    }));
                }
                // The primary's `jobs` is not a directory: it is shown unchanged.
                Err(Errno::NOTDIR) if location.index() == PRIMARY => return Ok(None),
                Err(Errno::NOENT) => {}
                Err(error) if location.index() == PRIMARY => return Err(error),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Finds `jobs/<task>/`: the primary's, or that of the first folder with this task.
    pub(super) fn find_task(&self, name: &OsStr) -> Result<Found> {
        let jobs = at::absent(self.root(PRIMARY)?.jobs())?;
        if let Some(jobs) = jobs
            && let Some(stat) = at::absent(at::stat(jobs, name))?
        {
            let role = match at::is_dir(&stat) {
                true => NodeRole::Task,
                false => NodeRole::Outside,
            };
            return Ok(Found {
                location: PRIMARY,
                role,
                stat,
            });
        }
        if !jobs::is_job_entry(name) {
            return Err(Errno::NOENT);
        }
        let in_folder = self.view.folders().iter().find_map(|folder| {
            let root = folder.root().ok()?;
            let _asking = folder.asking();
            match root.task(name).and_then(at::stat_fd) {
                Ok(stat) => Some(Found {
                    location: folder.index(),
                    role: NodeRole::Task,
                    stat,
                }),
                Err(error) => {
                    folder.goes_offline_after(&root, error);
                    None
                }
            }
        });
        let recorded = || {
            let (location, stat) = self.view.recorded_task(name)?;
            Some(Found {
                location,
                role: NodeRole::Task,
                stat,
            })
        };
        in_folder.or_else(recorded).ok_or(Errno::NOENT)
    }

    fn find_job(&self, task: &Node, name: &OsStr) -> Result<Found> {
        match self.view.resolve(&task.name, name)? {
            None => Err(Errno::NOENT),
            Some(Served::Job { location, stat }) => Ok(Found {
                location,
                role: NodeRole::Job,
                stat: *stat,
            }),
            Some(Served::AsItIs { location, stat }) => Ok(Found {
                location,
                role: NodeRole::Outside,
                stat: *stat,
            }),
        }
    }

    /// In a job that a folder serves, internal files come from the primary.
    fn find_in_archived_job(
        &self,
        parent: u64,
        node: &Node,
        holder: &JobDir,
        name: &OsStr,
    ) -> Result<Found> {
        let archived = self.find_plain(parent, node, name, NodeRole::Inside);
        let internal = match &archived {
            Ok(Found { stat, .. }) => {
                holder.is_internal(name, at::is_dir(stat), Some(stat.stx_size))
            }
            // If the name does not exist, checks whether it could become an internal file.
            Err(Errno::NOENT) => {
                holder.is_internal(name, false, None) || holder.is_internal(name, true, None)
            }
            Err(error) => return Err(*error),
        };
        if !internal {
            return archived;
        }
        match self.view.internal_dir(holder)? {
            None => archived,
            Some(dir) => match at::absent(at::stat(dir, name))? {
                None => archived,
                Some(stat) => Ok(Found {
                    location: INTERNAL,
                    role: NodeRole::Inside,
                    stat,
                }),
            },
        }
    }
}
