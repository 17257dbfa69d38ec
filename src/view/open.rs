//! Opens the view of one workspace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::location::beneath::{Beneath, NoBeneath};
use super::location::{self, FolderSpec, Location, watcher};
use super::purged::judgements::Judgements;
use crate::settings::{DEFAULT_FOLDER_TIMEOUT, FOLDERS_MAX};
use crate::workspace::layout;

/// The parts of a view.
#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// The workspace's id, or an empty string for a bare directory.
    pub workspace: String,
    /// The primary's directory, absolute and canonical.
    pub primary: PathBuf,
    /// The folders, in the order in which they are asked for a job.
    pub folders: Vec<FolderSpec>,
    /// The mount point, absolute and canonical, if the view is mounted.
    pub mountpoint: Option<PathBuf>,
}

/// Why a view could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The primary cannot be opened.
    #[error("cannot open the workspace {}: {source}{}", path.display(), remedy(source))]
    Primary {
        /// The primary's directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another entry has the name of a directory of xpmfs.
    #[error(
        "{} is not a directory: xpmfs keeps its own files there; move it out of the way", path.display()
    )]
    InTheWay {
        /// The entry that is in the way.
        path: PathBuf,
    },
    /// A file is in the place of the directory of the jobs.
    #[error("{} is a file: the jobs belong in a directory of this name; move it out of the way", path.display())]
    JobsFile {
        /// The file.
        path: PathBuf,
    },
    /// More folders than there are location numbers.
    #[error(
        "{count} folders are too many: at most {} can be attached",
        FOLDERS_MAX
    )]
    TooManyFolders {
        /// The number of folders in the settings.
        count: usize,
    },
}

/// What to do about a primary that cannot be opened, if anything is known.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => ": create it, or correct the path",
        std::io::ErrorKind::NotADirectory => ": correct the path",
        _ => "",
    }
}

/// The view of one workspace.
#[derive(Debug)]
pub struct View {
    workspace: String,
    mountpoint: Option<PathBuf>,
    /// The primary first, then the folders in the order of the settings.
    locations: Vec<Arc<Location>>,
    pub(super) judgements: Judgements,
    /// Whether a warning about the gate of internal files has been logged since it was last taken.
    pub(super) warned_of_gate: AtomicBool,
}

impl View {
    /// Opens a view: the primary must exist; a folder may be missing or silent, and is used when it replies
    /// ([`View::watch`]).
    ///
    /// `primary` is a descriptor of the primary, if the caller has one; otherwise it is opened by its path, which must not
    /// lead through a mount of this view.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn open(spec: ViewSpec, primary: Option<OwnedFd>) -> Result<View, ViewError> {
        View::open_beneath(spec, primary, Arc::new(NoBeneath), DEFAULT_FOLDER_TIMEOUT)
    }

    /// As [`View::open`]. A folder that lies in a mount of xpmfs is opened beneath that mount by `beneath`; one that does not answer a
    /// question within `timeout` is offline.
    ///
    /// # Errors
    ///
    /// [`ViewError`].
    pub fn open_beneath(
        spec: ViewSpec,
        primary: Option<OwnedFd>,
        beneath: Arc<dyn Beneath>,
        timeout: Duration,
    ) -> Result<View, ViewError> {
        if spec.folders.len() > FOLDERS_MAX {
            return Err(ViewError::TooManyFolders {
                count: spec.folders.len(),
            });
        }
        let first = match primary {
            Some(fd) => Location::primary_from(&spec.primary, fd),
            None => Location::primary(&spec.primary),
        };
        let first = first.map_err(|source| ViewError::Primary {
            path: spec.primary.clone(),
            source: source.into(),
        })?;
        if let Some(name) = first.root().ok().and_then(|root| root.in_the_way()) {
            return Err(ViewError::InTheWay {
                path: spec.primary.join(name),
            });
        }
        if first.root().is_ok_and(|root| root.jobs_is_file()) {
            return Err(ViewError::JobsFile {
                path: spec.primary.join(layout::JOBS),
            });
        }
        let mut locations = vec![Arc::new(first)];
        for (index, folder) in (1..).zip(&spec.folders) {
            let primary = locations.first().and_then(|first| first.root().ok());
            let folder = Location::folder(index, folder, beneath.clone(), timeout, primary);
            locations.push(Arc::new(folder));
        }
        watcher::open_all(&locations[1..], timeout);
        Ok(View {
            workspace: spec.workspace,
            mountpoint: spec.mountpoint,
            locations,
            judgements: Judgements::default(),
            warned_of_gate: AtomicBool::new(false),
        })
    }

    /// Starts a thread for each location that checks, every `interval`, how full it is; and of a folder, whether it has
    /// appeared, gone or been replaced. A folder that hangs blocks only its own threads, and is offline until it answers. The threads
    /// end when the view is dropped.
    pub fn watch(&self, interval: Duration) {
        for location in &self.locations {
            watcher::watch(Arc::downgrade(location), interval);
        }
    }

    /// Sets what is called with a folder's number when its directory is missing or replaced, so that cached entries of it are
    /// invalid.
    pub fn on_change(&self, on_change: impl Fn(u8) + Send + Sync + 'static) {
        let on_change: location::OnChange = Arc::new(on_change);
        for folder in self.folders() {
            folder.on_change(on_change.clone());
        }
    }

    /// The workspace's id; empty for a bare directory.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// The primary's path as given, absolute.
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

    /// The location with a number.
    pub fn location(&self, index: u8) -> Option<&Location> {
        self.locations.get(usize::from(index)).map(AsRef::as_ref)
    }

    /// The folders, in the order in which they are asked for a job.
    pub fn folders(&self) -> &[Arc<Location>] {
        &self.locations[1..]
    }

    /// Looks anew for marks of deleted jobs ([`location::deleted`]): this process, or one that reports it, has made some.
    pub fn look_for_deleted(&self) {
        for folder in self.folders() {
            folder.forget_marks();
        }
    }

    /// Whether a folder is offline.
    pub fn has_offline_folder(&self) -> bool {
        self.folders().iter().any(|folder| folder.is_offline())
    }

    /// How many questions to folders are late and not answered: each holds a thread.
    pub fn late_questions(&self) -> usize {
        let folders = self.folders().iter();
        folders.map(|folder| folder.late_questions()).sum()
    }

    /// The mount point, if it is not the primary itself.
    pub fn elsewhere(&self) -> Option<&Path> {
        self.mountpoint
            .as_deref()
            .filter(|mountpoint| *mountpoint != self.primary_path())
    }
}
