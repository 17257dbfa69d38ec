//! Finds out which jobs are being written through the mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::mount::tables::handles::{File, Handles};
use crate::mount::tables::nodes::{Node, Nodes, Role};
use crate::sys::at;
use crate::view::PRIMARY;
use crate::workspace::internal::{Class, classify, classify_nested};
use crate::workspace::jobs::JobId;
use crate::workspace::layout;

/// Whether a file of a job in the primary is open for writing.
pub(super) fn is_written(handles: &Handles, nodes: &Nodes, job: &JobId) -> bool {
    let mut files = handles.writable().into_iter();
    files.any(|file| belongs(nodes, &file, job) && has_a_name(&file))
}

fn belongs(nodes: &Nodes, file: &File, job: &JobId) -> bool {
    let first = nodes.get(file.node).into_iter();
    let mut names = first.chain(nodes.other_names(file.node));
    names.any(|node| is_data_of(nodes, &node, job))
}

/// Whether a file belongs to a job in the primary and is archived with it.
fn is_data_of(nodes: &Nodes, file: &Node, job: &JobId) -> bool {
    if file.place != PRIMARY || file.role != Role::Inside {
        return false;
    }
    // The entry directly in the job on the path to the file, and the entry below that.
    let (mut top, mut second) = (file.clone(), None);
    loop {
        let Some(parent) = nodes.get(top.parent) else {
            return false;
        };
        match parent.role {
            Role::Inside => second = Some(std::mem::replace(&mut top, parent)),
            Role::Job => {
                let is_it = parent.place == PRIMARY
                    && *parent.name == *job.hash()
                    && nodes
                        .get(parent.parent)
                        .is_some_and(|task| *task.name == *job.task_id());
                return is_it && !is_internal(&top, second.as_ref(), job.name());
            }
            _ => return false,
        }
    }
}

/// Whether a file is never archived. A lock that is internal only as long as it is empty may be about to be filled.
fn is_internal(top: &Node, second: Option<&Node>, job_name: &OsStr) -> bool {
    let (name, job_name) = (top.name.as_bytes(), job_name.as_bytes());
    let nested = match second {
        Some(second) if *top.name == *layout::JOB_STATE => {
            classify_nested(second.name.as_bytes(), job_name, second.directory, None)
        }
        _ => Class::Data,
    };
    classify(name, job_name, top.directory, None) == Class::Internal || nested == Class::Internal
}

/// Whether a file still has a name.
fn has_a_name(file: &File) -> bool {
    at::stat_fd(&file.fd).is_ok_and(|stat| stat.stx_nlink > 0)
}
