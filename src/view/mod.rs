//! Which location serves a job: the rules of the view, as plain functions over directory
//! descriptors, with no FUSE in them.
//!
//! The view of a workspace is its primary directory, with the union of the primary and every
//! folder below `jobs/`. A job is served whole by one location and never merged file by file.
//!
//! - [`location`]: the primary and the folders: opened, watched, reopened
//! - `root`: a location's directory, open, with the jobs in it
//! - [`resolve`]: which location serves `jobs/<task_id>/<hash>`
//! - [`links`]: symlinks to moved jobs, and absolute symlinks that must lead into the mount
//! - [`find`]: jobs by what a person writes
//! - [`jobs`]: the jobs that a location has
//! - [`listing`]: what `jobs/` and `jobs/<task_id>/` contain
//! - [`change`]: what may happen to something, given where it is served from
//! - [`materialize`]: directories that only a folder has, made in the primary when needed
//! - [`internal`]: where the internal files of a job live that a folder serves
//! - `walk`: paths, walked one name at a time and never into a mount of xpmfs
//! - `covered`: folders that lie in a mount of xpmfs, opened beneath it
//! - `tasks`: descriptors of the directories that every lookup of a job goes through
//! - `times`: when a directory was changed that several locations have
//! - `unreadable`: what of a folder cannot be looked at, so that it does not show
//!
//! `mount` calls this room, and so do the commands; it calls `workspace` and `settings` only.
//!
//! Everything is reached from descriptors that were opened before mounting. That is what makes an
//! in-place mount possible: the workspace's own path leads into the mount afterwards, and walking
//! it would make the daemon wait for itself.

pub mod change;
mod covered;
pub mod find;
pub mod internal;
pub mod jobs;
pub mod links;
pub mod listing;
pub mod location;
pub mod materialize;
pub mod resolve;
mod root;
mod tasks;
mod times;
mod unreadable;
mod walk;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use change::{Change, Verdict};
pub use covered::{Beneath, COVERED, MountId};
pub use jobs::Unlisted;
pub use location::{Location, LocationStatus};
pub use resolve::{InPrimary, Served};
pub use root::Root;
pub use unreadable::Hidden;

use crate::settings::Mode;

/// The number of the primary among a view's locations.
pub const PRIMARY: u8 = 0;

/// A folder to attach, in the order of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSpec {
    /// How it is used.
    pub mode: Mode,
    /// Its directory, absolute.
    pub path: PathBuf,
}

/// What a view is made of.
#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// The workspace's id, or an empty string for a bare directory.
    pub workspace: String,
    /// The primary's directory, absolute and canonical.
    pub primary: PathBuf,
    /// The folders, in the order in which they are asked.
    pub folders: Vec<FolderSpec>,
    /// Where the view is mounted, absolute and canonical, if it is.
    pub mountpoint: Option<PathBuf>,
}

/// Why a view could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The primary cannot be opened.
    #[error("cannot open the workspace {}: {source}", path.display())]
    Primary {
        /// The primary's directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else is where xpmfs keeps its own files.
    #[error(
        "{} is not a directory: xpmfs keeps its own files there; move it out of the way", path.display()
    )]
    InTheWay {
        /// What is in the way.
        path: PathBuf,
    },
    /// More folders than a location number can tell apart.
    #[error(
        "{count} folders are too many: at most {} can be attached",
        FOLDERS_MAX
    )]
    TooManyFolders {
        /// How many were given.
        count: usize,
    },
}

/// The most folders a view can have: location numbers are a byte, and the last ones are reserved.
pub use crate::settings::FOLDERS_MAX;

/// How long opening a view waits for folders to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The view of one workspace.
#[derive(Debug)]
pub struct View {
    workspace: String,
    mountpoint: Option<PathBuf>,
    /// The primary first, then the folders in the order of the settings.
    locations: Vec<Arc<Location>>,
}

impl View {
    /// Opens a view: the primary must be there; a folder may be missing, or not answer for now, and
    /// is picked up when it does (see [`View::watch`]).
    ///
    /// `primary` is a descriptor of the primary, if the caller has one; it is opened by its path
    /// otherwise, which must not lead through a mount of this view.
    ///
    /// # Errors
    ///
    /// The primary that cannot be opened.
    pub fn open(spec: ViewSpec, primary: Option<OwnedFd>) -> Result<View, Error> {
        View::open_beneath(spec, primary, Arc::new(covered::NoBeneath))
    }

    /// Like [`View::open`]. A folder that lies in a mount of xpmfs is opened beneath that mount by `beneath`.
    ///
    /// # Errors
    ///
    /// The primary that cannot be opened.
    pub fn open_beneath(
        spec: ViewSpec,
        primary: Option<OwnedFd>,
        beneath: Arc<dyn Beneath>,
    ) -> Result<View, Error> {
        if spec.folders.len() > FOLDERS_MAX {
            return Err(Error::TooManyFolders {
                count: spec.folders.len(),
            });
        }
        let first = match primary {
            Some(fd) => Location::primary_from(&spec.primary, fd),
            None => Location::primary(&spec.primary),
        };
        let first = first.map_err(|source| Error::Primary {
            path: spec.primary.clone(),
            source: source.into(),
        })?;
        if let Some(name) = internal::in_the_way(&first) {
            return Err(Error::InTheWay {
                path: spec.primary.join(name),
            });
        }
        let mut locations = vec![Arc::new(first)];
        for (index, folder) in (1..).zip(&spec.folders) {
            locations.push(Arc::new(Location::folder(index, folder, beneath.clone())));
        }
        location::open_all(&locations[1..], PATIENCE);
        Ok(View {
            workspace: spec.workspace,
            mountpoint: spec.mountpoint,
            locations,
        })
    }

    /// Starts a thread for each location that looks, every `interval`, how full it is; and of a folder,
    /// whether it has appeared, gone or been replaced. A folder that hangs holds up its own thread only, and is
    /// left out after 10 s until it answers. The threads end when the view is dropped.
    pub fn watch(&self, interval: Duration) {
        for location in &self.locations {
            location::watch(Arc::downgrade(location), interval);
        }
    }

    /// What to do when a folder's directory has gone or been replaced, given the folder's number: nothing that
    /// was found in it is there any more.
    pub fn on_change(&self, on_change: impl Fn(u8) + Send + Sync + 'static) {
        let on_change: location::OnChange = Arc::new(on_change);
        for folder in self.folders() {
            folder.on_change(on_change.clone());
        }
    }

    /// Who tells whether many wait for an answer, so that nobody else should wait for a folder that does not give any.
    pub fn is_crowded_by(&self, crowd: impl Fn() -> bool + Send + Sync + 'static) {
        let crowd: location::Crowd = Arc::new(crowd);
        for folder in self.folders() {
            folder.is_crowded_by(crowd.clone());
        }
    }

    /// The workspace's id; empty for a bare directory.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// The primary's directory as it was given, absolute.
    pub fn primary_path(&self) -> &Path {
        self.locations[0].path()
    }

    /// The primary.
    pub fn primary(&self) -> &Location {
        &self.locations[0]
    }

    /// All locations, the primary first.
    pub fn locations(&self) -> &[Arc<Location>] {
        &self.locations
    }

    /// The location of a number, if there is one.
    pub fn location(&self, index: u8) -> Option<&Location> {
        self.locations.get(usize::from(index)).map(AsRef::as_ref)
    }

    /// The folders, in the order in which they are asked.
    pub fn folders(&self) -> &[Arc<Location>] {
        &self.locations[1..]
    }

    /// Whether a folder does not answer, and is left out.
    pub fn has_silent_folder(&self) -> bool {
        self.folders().iter().any(|folder| folder.is_silent())
    }

    /// Where the view is mounted, if it is mounted somewhere else than on its primary.
    pub fn elsewhere(&self) -> Option<&Path> {
        self.mountpoint
            .as_deref()
            .filter(|mountpoint| *mountpoint != self.primary_path())
    }
}
