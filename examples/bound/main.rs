//! A file system that answers every request at once, from memory: the least time that FUSE itself takes.
//!
//! ```text
//! bound MOUNTPOINT LOCATION…
//! ```
//!
//! Reads the names and attributes of the locations, merges them, and serves them until it is unmounted. Files have the sizes
//! that they have on the disk and zeros for contents; what is written is dropped. It caches all that the kernel can cache.
//! `scripts/bench` compares xpmfs with it: no file system in a process can be faster.
#![allow(clippy::cast_possible_truncation)]

mod tree;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Parser;
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow, WriteFlags,
};
use parking_lot::RwLock;

use tree::Tree;

/// For how long the kernel may believe names and attributes: longer than any benchmark takes.
const TTL: Duration = Duration::from_secs(3600);
/// How many threads answer, as many as xpmfs has for each mount.
const THREADS: usize = 8;
/// The largest request to read or write, in bytes.
const TRANSFER_MAX: u32 = 1 << 20;
const GENERATION: Generation = Generation(0);

/// Serves names and attributes from memory, with zeros for contents.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to mount
    mountpoint: PathBuf,
    /// The directories to show, merged
    #[arg(required = true)]
    locations: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tree = Tree::read(&arguments.locations)?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("bound".into()),
        MountOption::DefaultPermissions,
    ];
    // An ordinary user may not let others in unless the administrator allows it.
    config.acl = match rustix::process::geteuid().is_root() {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let served = Bound {
        tree: RwLock::new(tree),
        zeros: vec![0; TRANSFER_MAX as usize],
    };
    fuser::mount(served, &arguments.mountpoint, &config)
        .with_context(|| format!("cannot mount at {}", arguments.mountpoint.display()))
}

struct Bound {
    tree: RwLock<Tree>,
    /// The contents of every file.
    zeros: Vec<u8>,
}

impl Bound {
    /// What is changed of a file by a write, or by `setattr`.
    fn change(&self, node: INodeNo, change: impl FnOnce(&mut FileAttr)) -> Result<FileAttr, Errno> {
        let mut tree = self.tree.write();
        let attributes = &mut tree.node_mut(node.0)?.attributes;
        change(attributes);
        Ok(*attributes)
    }

    /// Makes a file or directory that belongs to the user who asks for it.
    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        kind: FileType,
    ) -> Result<FileAttr, Errno> {
        let made = self.tree.write().create(parent.0, name, mode, kind)?;
        self.change(made.ino, |now| {
            now.uid = request.uid();
            now.gid = request.gid();
        })
    }
}

fn entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&TTL, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn attributes(found: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match found {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(error),
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Bound {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            // A kernel without it asks more often, and that is what FUSE takes there.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(TRANSFER_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self
            .tree
            .read()
            .lookup(parent.0, name)
            .map(|node| node.attributes);
        entry(found, reply);
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let found = self.tree.read().node(node.0).map(|node| node.attributes);
        attributes(found, reply);
    }

    fn setattr(
        &self,
        _request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.change(node, |now| {
            now.perm = mode.map_or(now.perm, |mode| (mode & 0o7777) as u16);
            now.uid = uid.unwrap_or(now.uid);
            now.gid = gid.unwrap_or(now.gid);
            now.size = size.unwrap_or(now.size);
            now.atime = atime.map_or(now.atime, time);
            now.mtime = mtime.map_or(now.mtime, time);
        });
        attributes(changed, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(
            self.make(request, parent, name, mode, FileType::Directory),
            reply,
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.tree.write().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.tree.write().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self
            .tree
            .write()
            .rename((parent.0, name), (new_parent.0, new_name));
        empty(renamed, reply);
    }

    fn open(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // The kernel never asks again, and caches every listing.
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(request, parent, name, mode, FileType::RegularFile) {
            Ok(made) => {
                let how = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&TTL, &made, GENERATION, FileHandle(0), how);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self
            .tree
            .read()
            .node(node.0)
            .map(|node| node.attributes.size)
        {
            Ok(length) => {
                let count = length.saturating_sub(offset).min(size.into()) as usize;
                reply.data(self.zeros.get(..count).unwrap_or(&self.zeros));
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let end = offset + data.len() as u64;
        match self.change(node, |now| now.size = now.size.max(end)) {
            Ok(_) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // The kernel never asks again.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree.read();
        let directory = match tree.node(node.0) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        for (place, (name, id)) in directory.entries.iter().enumerate().skip(offset as usize) {
            let Ok(entry) = tree.node(*id) else { continue };
            if reply.add(INodeNo(*id), place as u64 + 1, entry.attributes.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let tree = self.tree.read();
        let directory = match tree.node(node.0) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        for (place, (name, id)) in directory.entries.iter().enumerate().skip(offset as usize) {
            let Ok(entry) = tree.node(*id) else { continue };
            let next = place as u64 + 1;
            if reply.add(
                INodeNo(*id),
                next,
                name,
                &TTL,
                &entry.attributes,
                GENERATION,
            ) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(
        &self,
        _request: &Request,
        _node: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::NO_XATTR);
    }
}
