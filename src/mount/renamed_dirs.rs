//! Finds directories of the primary again that other processes rename.
//!
//! The rename may be made through another mount or beneath.
//!
//! On a disk, a process continues to work in a directory that is renamed. A node stores only a parent and a name, so
//! the directory is found again, in this order:
//!
//! 1. By a descriptor of it, if one is kept: the kernel has the names of the directory and of those above it. Each is
//!    checked, up to the primary's own directory, so that a directory that has left the primary is not followed.
//! 2. Without a descriptor by its identity: among the entries of the directory in which it was, of the directory above
//!    that, and of the directories below either, up to a limit of entries.
//!
//! The nodes on the path then get their new parents and names, all at once. If the kernel does not know one of these
//! directories, the parent has no node, and the descriptor is kept instead.
//!
//! A job that was moved to a folder is not followed to where its directory is put aside: it is served from the folder.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::mount::Mount;
use crate::mount::locate;
use crate::mount::tables::nodes::{Node, NodeRole};
use crate::mount::tables::numbers::ROOT;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::view::PRIMARY;
use crate::workspace::layout;

/// Limit of entries that are examined to find one directory.
const ENTRIES_MAX: usize = 10_000;

/// Limit of directories above one that are checked.
const DEPTH_MAX: usize = 256;

const PATH: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const LIST: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// A directory, with its name in the one above.
struct Step {
    identity: FileId,
    name: OsString,
}

/// The path to a directory, from the primary's own directory or from its `jobs/` down.
struct Chain {
    from: FileId,
    steps: Vec<Step>,
}

impl Mount {
    /// Returns a descriptor of a directory of the primary whose name leads elsewhere or nowhere, if it is still in the
    /// primary under another name. Its node gets that name.
    pub(super) fn find_renamed(&self, node: &Node) -> Option<Arc<OwnedFd>> {
        if !node.directory
            || node.location != PRIMARY
            || matches!(node.role, NodeRole::Root | NodeRole::Jobs)
        {
            return None;
        }
        let id = self.nodes.id_of(&self.devices, &node.identity)?;
        let kept = self.dir_cache.get(id, &node.identity);
        let fd = match kept.or_else(|| self.dir_cache.removed(id)) {
            Some(fd) => fd,
            None => self.search(id, node)?,
        };
        let chain = self.chain_in_primary(&fd, &node.identity)?;
        if !self.name_nodes(&chain) {
            self.dir_cache.pin(id, fd.clone());
            // If the kernel has forgotten the node meanwhile, no later request would remove the descriptor.
            if self.nodes.get(id).is_none() {
                self.dir_cache.forget(id);
            }
        }
        Some(fd)
    }

    /// Searches for a directory near where it was.
    fn search(&self, id: u64, node: &Node) -> Option<Arc<OwnedFd>> {
        if self.renamed.was_searched(id) {
            return None;
        }
        let mut left = ENTRIES_MAX;
        let mut found = None;
        let mut above = node.parent;
        for _ in 0..2 {
            let Ok(dir) = self.holding(above, PRIMARY) else {
                break;
            };
            found = search_below(&dir, &node.identity, &mut left);
            let parent = self.nodes.get(above).filter(|_| found.is_none());
            match parent {
                Some(parent) if above != ROOT => above = parent.parent,
                _ => break,
            }
        }
        let Some(found) = found.map(Arc::new) else {
            self.renamed.note_not_found(id);
            return None;
        };
        self.dir_cache.insert(id, found.clone(), node.identity);
        Some(found)
    }

    /// Returns the path to an open directory, unless it is outside the primary or in one of its internal directories.
    fn chain_in_primary(&self, fd: &OwnedFd, identity: &FileId) -> Option<Chain> {
        let root = self.root(PRIMARY).ok()?;
        let top = FileId::of(&at::stat_fd(root.fd()).ok()?);
        // `jobs/` may lie on another disk.
        let jobs = root.jobs().and_then(at::stat_fd);
        let jobs = jobs.ok().map(|stat| FileId::of(&stat));
        let path = rustix::fs::readlink(at::proc_path(fd), Vec::new()).ok()?;
        let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
        let mut names = path.components().rev();
        let mut steps = Vec::new();
        let mut at = rustix::io::fcntl_dupfd_cloexec(fd, 0).ok()?;
        let mut identity = *identity;
        while identity != top && Some(identity) != jobs {
            let Some(Component::Normal(name)) = names.next() else {
                return None;
            };
            if steps.len() >= DEPTH_MAX {
                return None;
            }
            // Never into a mount that lies over the primary, which may be our own.
            let above = rustix::fs::openat2(&at, "..", PATH, Mode::empty(), ResolveFlags::NO_XDEV);
            at = match above {
                Err(Errno::XDEV) => rustix::io::fcntl_dupfd_cloexec(root.fd(), 0).ok()?,
                above => above.ok()?,
            };
            let there = at::stat_at(&at, name).ok()?;
            if FileId::of(&there) != identity {
                return None;
            }
            steps.push(Step {
                identity,
                name: name.to_owned(),
            });
            identity = FileId::of(&at::stat_fd(&at).ok()?);
        }
        steps.reverse();
        let internal = match identity == top {
            true => steps.first().is_some_and(|step| step.name == layout::XPMFS),
            false => steps.get(1).is_some_and(|job| {
                let prefix = layout::STAGING_PREFIX.as_bytes();
                job.name.as_bytes().starts_with(prefix)
            }),
        };
        let from = identity;
        (!internal).then_some(Chain { from, steps })
    }

    /// Updates parents and names of the nodes of all directories on a path; `false` if the kernel does not know them
    /// all.
    fn name_nodes(&self, chain: &Chain) -> bool {
        let _updating = self.renamed.updating.lock();
        let mut named = Vec::with_capacity(chain.steps.len());
        let Some(mut parent) = self.nodes.id_of(&self.devices, &chain.from) else {
            return false;
        };
        for step in &chain.steps {
            let id = self.nodes.id_of(&self.devices, &step.identity);
            let node = id.and_then(|id| self.nodes.get(id));
            let (Some(id), Some(node)) = (id, node) else {
                return false;
            };
            if node.location != PRIMARY || !node.directory {
                return false;
            }
            named.push((id, node, parent, &step.name));
            parent = id;
        }
        for (id, was, parent, name) in named {
            if was.parent == parent && *was.name == **name {
                continue;
            }
            let Some(above) = self.nodes.get(parent) else {
                return false;
            };
            let role = above.role.of_entry(name, true);
            let node = Node {
                parent,
                name: Name::from(&**name),
                role,
                ..was.clone()
            };
            self.nodes.moved(id, (was.parent, &was.name), node);
            if was.role != role {
                self.nodes.change_roles(id, NodeRole::of_directory);
            }
        }
        true
    }
}

/// Searches a directory for another one, then its subdirectories, until `left` entries have been checked.
fn search_below(dir: &locate::Dir, wanted: &FileId, left: &mut usize) -> Option<OwnedFd> {
    let top = rustix::fs::openat(dir, ".", LIST, Mode::empty()).ok()?;
    at::keep_atime(&top);
    let mut beside = Vec::new();
    let found = search_in(&top, wanted, left, &mut |name| beside.push(name.to_owned()));
    if found.is_some() {
        return found;
    }
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    for name in beside {
        if *left == 0 {
            break;
        }
        // A directory that cannot be opened is skipped.
        let Ok(dir) = rustix::fs::openat2(&top, &name, LIST, Mode::empty(), within) else {
            continue;
        };
        at::keep_atime(&dir);
        let found = search_in(&dir, wanted, left, &mut |_| ());
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Searches one directory; reports the other directories in it.
fn search_in(
    dir: impl AsFd,
    wanted: &FileId,
    left: &mut usize,
    report: &mut dyn FnMut(&OsStr),
) -> Option<OwnedFd> {
    let found = read_dir::read(&dir, &mut EntryBuffer::default(), |entry| {
        let name = entry.name();
        if !matches!(entry.kind(), FileType::Directory | FileType::Unknown) {
            return ControlFlow::Continue(());
        }
        if wanted.inode() == entry.inode()
            && let Ok(fd) = rustix::fs::openat(&dir, name, PATH, Mode::empty())
            && at::file_id(&fd) == Ok(*wanted)
        {
            return ControlFlow::Break(Some(fd));
        }
        let Some(fewer) = left.checked_sub(1) else {
            return ControlFlow::Break(None);
        };
        *left = fewer;
        report(name);
        ControlFlow::Continue(())
    });
    found.ok()?.break_value()?
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::mount::testing::{Fixture, ROOT_CALLER};
    use crate::settings::Mode as FolderMode;

    struct Tree(Fixture);

    impl Tree {
        /// A tree with these directories in the primary.
        fn new(directories: &[&str]) -> Tree {
            let paths: Vec<String> = directories
                .iter()
                .map(|path| format!("primary/{path}"))
                .collect();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            Tree(Fixture::new(FolderMode::Move, &paths))
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.primary(path)
        }

        fn look_up(&self, path: &str) -> u64 {
            *self.0.look_up(path).last().unwrap()
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).unwrap();
        }

        /// Closes the cached descriptor of a directory, as happens when many others have been used since.
        fn close(&self, id: u64) {
            self.0.mount.dir_cache.close(id);
        }

        /// Whether a process that is in a directory can examine it, list it and create files in it.
        fn works(&self, id: u64, path: &Path) -> bool {
            let attributes = self.0.mount.getattr(id, None);
            let listed = self.0.mount.list(id, 0, |_| true);
            let target = self
                .0
                .mount
                .target(&ROOT_CALLER, id, OsStr::new("new"), false);
            let found = self.0.mount.lookup(id, OsStr::new("none"));
            let there = |target: &crate::mount::copy_up::Target| {
                let stat = at::stat_at(&target.dir, OsStr::new(".")).unwrap();
                let at = fs::File::open(path).unwrap();
                FileId::of(&stat) == FileId::of(&at::stat_fd(at).unwrap())
            };
            attributes.is_ok()
                && listed.is_ok()
                && found.is_err_and(|error| error == Errno::NOENT)
                && target.is_ok_and(|target| there(&target))
        }
    }

    /// Each: the directory of a process, the directory that another process renames, its new name, and the new path of
    /// the first.
    const RENAMES: [(&str, &str, &str, &str); 9] = [
        ("a/b", "a/b", "a/c", "a/c"),
        ("a/b/deep/er", "a/b", "a/c", "a/c/deep/er"),
        ("a/b/deep/er", "a", "other", "other/b/deep/er"),
        ("a/b", "a/b", "known/c", "known/c"),
        ("jobs/t/h", "jobs/t/h", "jobs/t/i", "jobs/t/i"),
        ("jobs/t/h/deep", "jobs/t/h", "jobs/t/i", "jobs/t/i/deep"),
        ("jobs/t/h/deep", "jobs/t", "jobs/u", "jobs/u/h/deep"),
        ("jobs/t/h/deep", "jobs/t/h/deep", "jobs/t/h/d", "jobs/t/h/d"),
        ("jobs/t/h", "jobs/t/h", "jobs/known/h", "jobs/known/h"),
    ];
    const MADE: [&str; 5] = [
        "a/b/deep/er",
        "known",
        "jobs/t/h/deep",
        "jobs/known",
        "unknown",
    ];

    #[test]
    fn renamed_directory_is_found_with_and_without_descriptor() {
        for closed in [false, true] {
            for (at, from, to, then) in RENAMES {
                let tree = Tree::new(&MADE);
                tree.look_up("known");
                tree.look_up("jobs/known");
                let id = tree.look_up(at);
                assert!(tree.works(id, &tree.path(at)), "{at}");
                tree.rename(from, to);
                if closed {
                    tree.0
                        .mount
                        .dir_cache
                        .kept()
                        .into_iter()
                        .for_each(|id| tree.close(id));
                }
                // Drops the view's cache of tasks, which is kept for a second.
                tree.0.mount.root(PRIMARY).unwrap().forget_tasks();
                assert!(
                    tree.works(id, &tree.path(then)),
                    "{at} after {from} is {to}, closed: {closed}"
                );
                // Also once another directory has the name.
                fs::create_dir_all(tree.path(from)).unwrap();
                assert!(tree.works(id, &tree.path(then)), "{at} with another {from}");
                tree.close(id);
                assert!(tree.works(id, &tree.path(then)), "{at} under its new name");
            }
        }
    }

    #[test]
    fn directory_is_found_below_unknown_parent() {
        let tree = Tree::new(&MADE);
        let id = tree.look_up("a/b");
        assert!(tree.works(id, &tree.path("a/b")));
        tree.rename("a/b", "unknown/c");
        assert!(tree.works(id, &tree.path("unknown/c")));
        tree.close(id);
        assert!(tree.works(id, &tree.path("unknown/c")));
        tree.0.mount.forget(id, u64::MAX);
        assert!(tree.0.mount.cached_directory(id).is_none());
    }

    #[test]
    fn swapped_directories_form_no_cycle() {
        let tree = Tree::new(&["a/b"]);
        let (outer, inner) = (tree.look_up("a"), tree.look_up("a/b"));
        tree.rename("a/b", "b");
        tree.rename("a", "b/a");
        for (id, path) in [(outer, "b/a"), (inner, "b")] {
            tree.close(outer);
            tree.close(inner);
            assert!(tree.works(id, &tree.path(path)), "{path}");
        }
        assert_eq!(tree.0.mount.node(outer).unwrap().parent, inner);
        assert_eq!(tree.0.mount.node(inner).unwrap().parent, ROOT);
    }

    #[test]
    fn removed_or_moved_out_directory_is_not_found() {
        for closed in [false, true] {
            let tree = Tree::new(&["gone", "left", "jobs/t/h", ".xpmfs/trash"]);
            let ids = ["gone", "left", "jobs/t/h"].map(|path| tree.look_up(path));
            for id in ids {
                tree.0.mount.list(id, 0, |_| true).unwrap();
            }
            fs::remove_dir(tree.path("gone")).unwrap();
            fs::rename(tree.path("left"), tree.0.top().join("left")).unwrap();
            tree.rename("jobs/t/h", ".xpmfs/trash/h");
            for id in ids {
                if closed {
                    tree.close(id);
                }
                for _ in 0..2 {
                    assert_eq!(tree.0.mount.getattr(id, None).unwrap_err(), Errno::STALE);
                }
            }
        }
    }

    #[test]
    fn search_is_bounded() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..20 {
            fs::create_dir_all(top.path().join(format!("{number}/in"))).unwrap();
        }
        let wanted = fs::File::open(top.path().join("7/in")).unwrap();
        let wanted = FileId::of(&at::stat_fd(&wanted).unwrap());
        let dir = locate::Dir::from(OwnedFd::from(fs::File::open(top.path()).unwrap()));
        let mut left = 40;
        assert!(search_below(&dir, &wanted, &mut left).is_some());
        let mut left = 20;
        assert!(search_below(&dir, &wanted, &mut left).is_none());
        assert_eq!(left, 0);
    }
}
