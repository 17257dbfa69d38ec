//! Reports what `verify` recorded: damaged and missing copies, and when all copies of a folder were verified last.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::archive::experiments::damage;
use crate::archive::experiments::verify as items;
use crate::archive::job::verify::remedy;
use crate::archive::last_verify::{self, LastVerify};
use crate::archive::{places, state_dir};
use crate::view::location::explain;
use crate::view::{Location, View};
use crate::workspace::jobs::JobId;

/// A copy that `verify` found damaged or missing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DamagedCopy {
    /// `task_id/hash`; `None` for a run or partial.
    pub job: Option<String>,
    /// The run or partial; `None` for a job.
    #[serde(default)]
    pub item: Option<String>,
    /// The folder.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub finding: String,
    /// The command that replaces the copy, as a clause.
    #[serde(default)]
    pub remedy: String,
}

/// The last verification of all copies of a folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifiedFolder {
    /// The folder.
    pub folder: PathBuf,
    /// Its time and result; `wrong` without those that were made anew or found intact since.
    #[serde(flatten)]
    pub last: LastVerify,
    /// How many of the wrong copies were made anew or found intact since.
    #[serde(default)]
    pub mended: u64,
}

impl VerifiedFolder {
    /// `7 copies, all OK`, and how many were made anew since and how many could not be verified.
    #[must_use]
    pub fn result(&self) -> String {
        let copies = match self.last.copies {
            0 if self.lacking_manifests() > 0 => "no copy could be verified",
            0 => return "it had no copies".to_owned(),
            1 => "1 copy",
            copies => &format!("{copies} copies"),
        };
        let mut text = match (self.last.copies, self.last.wrong) {
            (0, _) => copies.to_owned(),
            (_, 0) => format!("{copies}, all OK"),
            (_, wrong) => format!("{copies}, {wrong} not OK"),
        };
        if self.mended > 0 {
            text.push_str(&format!(" ({} mended since)", self.mended));
        }
        let lacking = self.lacking_manifests();
        if lacking > 0 {
            let more = match self.last.copies {
                0 => ": ",
                _ => "; not verified: ",
            };
            text.push_str(&format!(
                "{more}{lacking} without a manifest (`xpmfs jobs verify --all -v` shows how to write one)"
            ));
        }
        text
    }

    /// How many copies had no manifest to be compared with.
    #[must_use]
    pub fn lacking_manifests(&self) -> u64 {
        self.last.no_manifest.unwrap_or_default()
    }
}

impl fmt::Display for DamagedCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DamagedCopy {
            job,
            item,
            folder,
            finding,
            remedy,
        } = self;
        let name = job.as_ref().or(item.as_ref()).map_or("", |name| name);
        write!(f, "{name} in {}: {finding}", folder.display())?;
        match remedy.is_empty() {
            true => Ok(()),
            false => write!(f, "; {remedy}"),
        }
    }
}

/// What is recorded of all folders of a workspace.
#[derive(Debug, Default)]
pub(super) struct VerifyRecords {
    /// The first damaged and missing copies.
    pub(super) damaged: Vec<DamagedCopy>,
    /// How many these are in all.
    pub(super) damages: usize,
    /// The folders that were verified.
    pub(super) verified: Vec<VerifiedFolder>,
    /// The folders whose records cannot be read, and why not.
    pub(super) unread: Vec<(PathBuf, String)>,
}

impl VerifyRecords {
    /// Reads the records, which are in the primary; of the damaged copies, the first `most`.
    pub(super) fn read(view: &View, most: usize) -> VerifyRecords {
        let mut records = VerifyRecords::default();
        for folder in places::archives(view) {
            records.add(view, folder, most);
        }
        records
    }

    /// Adds the copies that folders have lost since a mount recorded them. Asks the folders' disks, without a limit.
    pub(super) fn add_lost(&mut self, view: &View, most: usize) {
        for folder in places::archives(view) {
            let lost = match view.lost_since_recorded(folder) {
                Ok(lost) => lost,
                Err(error) => {
                    let why = format!("cannot look for lost copies: {}", explain(error));
                    self.unread.push((folder.path().to_owned(), why));
                    continue;
                }
            };
            // Those that `verify` has found are reported already.
            let primary = view.primary();
            let is_new =
                |job: &JobId| !state_dir::is_damaged(primary, folder, job).unwrap_or(false);
            let lost: Vec<JobId> = lost.into_iter().filter(is_new).collect();
            self.damages += lost.len();
            let limit = most.saturating_sub(self.damaged.len());
            let first = lost.into_iter().take(limit).map(|job| DamagedCopy {
                remedy: remedy(view, folder, &job),
                job: Some(job.to_string()),
                item: None,
                folder: folder.path().to_owned(),
                finding: state_dir::LOST.to_owned(),
            });
            self.damaged.extend(first);
        }
    }

    fn add(&mut self, view: &View, folder: &Location, most: usize) {
        let (primary, path) = (view.primary(), folder.path().to_owned());
        let limit = most.saturating_sub(self.damaged.len());
        let found = state_dir::damaged(primary, folder, limit);
        let found = found.and_then(|jobs| {
            let limit = limit.saturating_sub(jobs.first.len());
            Ok((jobs, damage::list(primary, folder, limit)?))
        });
        let damaged = found.as_ref().map_or(usize::MAX, |(jobs, _)| jobs.count);
        // A record that cannot be read is not worth an error: the next verification replaces it.
        if let Ok(Some(mut last)) = last_verify::of(primary, folder) {
            let mended = last.mended(u64::try_from(damaged).unwrap_or(u64::MAX));
            last.wrong = last.wrong.saturating_sub(mended);
            self.verified.push(VerifiedFolder {
                folder: path.clone(),
                last,
                mended,
            });
        }
        let (jobs, items) = match found {
            Ok(found) => found,
            Err(error) => {
                let why = state_dir::explain(primary, error);
                return self.unread.push((path, why));
            }
        };
        self.damages += jobs.count + items.count;
        let of_jobs = jobs.first.into_iter().map(|(job, finding)| DamagedCopy {
            remedy: remedy(view, folder, &job),
            job: Some(job.to_string()),
            item: None,
            folder: path.clone(),
            finding,
        });
        let of_items = items.first.into_iter().map(|(item, finding)| DamagedCopy {
            remedy: items::remedy(&finding).to_owned(),
            job: None,
            item: Some(item),
            folder: path.clone(),
            finding,
        });
        self.damaged.extend(of_jobs.chain(of_items));
    }
}
