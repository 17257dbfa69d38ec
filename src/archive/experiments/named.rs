//! Finds the partials that the jobs of a run name.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use super::shown;
use crate::archive::env::Env;
use crate::archive::job::opt_out::{Eligibility, OptOuts};
use crate::archive::places;
use crate::view::{Location, PRIMARY};
use crate::workspace::jobs::JobId;
use crate::workspace::partials::{self, PartialId};
use crate::workspace::runs::Run;

/// The partials of a run.
#[derive(Debug, Default)]
pub(super) struct NamedPartials {
    pub(super) partials: BTreeSet<PartialId>,
    /// Why they may be incomplete, if so.
    pub(super) unknown: Option<String>,
    /// Whether a run that may opt a job out is being written: ask again.
    pub(super) pending: bool,
}

impl NamedPartials {
    /// The partials that the jobs of a run name, without those of jobs that `out` excludes from a folder.
    pub(super) fn of(
        env: &Env<'_>,
        run: &Run,
        (out, folder): (Option<&OptOuts>, u8),
    ) -> NamedPartials {
        let mut named = NamedPartials::default();
        let primary = env.view.primary();
        match run.jobs() {
            Ok(Some(jobs)) => {
                for job in jobs {
                    match job {
                        Ok(job) => named.add(env, &job.id, (out, folder)),
                        Err(error) => named.note_unknown(shown(primary, &error)),
                    }
                }
            }
            // The run was interrupted before its first job, or the file is lost.
            Ok(None) => {
                let links = run.job_links();
                let links = links.found.iter();
                links.for_each(|job| named.add(env, job, (out, folder)));
            }
            Err(error) => named.note_unknown(shown(primary, &error)),
        }
        named
    }

    fn note_unknown(&mut self, why: String) {
        self.unknown.get_or_insert(why);
    }

    fn add(&mut self, env: &Env<'_>, job: &JobId, (out, folder): (Option<&OptOuts>, u8)) {
        if out.is_some_and(|out| out.is_excluded(job) || out.is_excluded_from(folder, job)) {
            return;
        }
        let Some((location, directory)) = find(env, job) else {
            return;
        };
        if location.index() == PRIMARY
            && let Some(out) = out
        {
            match out.of(env.view, job, &directory) {
                Ok(Eligibility::In) => {}
                Ok(Eligibility::Out(_)) => return,
                Ok(Eligibility::Pending) => return self.pending = true,
                Ok(Eligibility::Unknown(file)) => {
                    return self.note_unknown(format!("cannot read {}", file.display()));
                }
                Err(errno) => return self.note_unknown(std::io::Error::from(errno).to_string()),
            }
        }
        let shown = places::path(location, job);
        match partials::named_by(&directory, env.view.primary().path(), &shown) {
            Ok(partials) => self.partials.extend(partials),
            Err(error) => self.note_unknown(error.to_string()),
        }
    }
}

/// The directory of a job: in the primary, or else in the first folder that has it.
fn find<'a>(env: &Env<'a>, job: &JobId) -> Option<(&'a Location, OwnedFd)> {
    let folders = env.view.folders().iter().map(AsRef::as_ref);
    let mut locations = [env.view.primary()].into_iter().chain(folders);
    locations.find_map(|location| Some((location, places::job(location, job).ok()??)))
}
