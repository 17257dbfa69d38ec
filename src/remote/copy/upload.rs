//! Copies jobs and a run from a workspace of this machine to another machine.
//!
//! The directory of unfinished copies there belongs to the script that keeps the connection: it makes the directory, holds its lock, and
//! removes it when this process ends, however that ends. A script that is giving a copy its place may still run then. It shares the lock
//! [`PLACING`], which a removal of the directory needs alone: a copy that is half removed must not get its place, where it would be
//! taken for whole.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ends::{Transfer, job_path};
use super::local::why;
use crate::archive::env::Env;
use crate::archive::experiments::RunName;
use crate::archive::experiments::export as runs;
use crate::archive::job::export;
use crate::remote::error::CopyError;
use crate::remote::rsync::{self, Direction, Trees, excluded_of_job, excluded_of_run};
use crate::remote::shell::Script;
use crate::remote::site::{self, Site};
use crate::remote::staging::{self, NOTE, PLACING, STAGING};
use crate::sys::at;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{EXPERIMENTS, JOBS, MARKER};

/// Makes the directory `$id` of unfinished copies, and waits until its input ends. It is in the workspace; and in `jobs`, if that is on
/// another disk. Directories with a note and without a lock are left over.
const KEEP: &str = r#"base=.
[ ! -d jobs ] || [ "$(stat -L -c %d jobs)" = "$(stat -c %d .)" ] || base=jobs
for top in . "$base"; do
    s=$top/$staging
    if [ -L "$s" ]; then echo "$s is a symlink: remove it" >&2; return 1; fi
    mkdir -p "$s" || return 1
    for d in "$s"/*/; do
        l=${d}.lock
        [ ! -L "${d%/}" ] && [ ! -L "$l" ] && [ -f "$l" ] && read -r note <"$l" && [ "$note" = xpmfs ] &&
            [ ! -L "$d$placing" ] && flock -n "$l" flock -n "$d$placing" rm -rf -- "$d"
    done
    [ -d "$s/$id" ] || mkdir -m 700 "$s/$id" || return 1
    : >"$s/$id/$placing" || return 1
done
exec 8>"./$staging/$id/.lock" 9>"$base/$staging/$id/.lock" || return 1
if command -v flock >/dev/null; then
    flock -n 8 && printf '%s' "$note_of_ours" >&8
    [ "$base" = . ] || { flock -n 9 && printf '%s' "$note_of_ours" >&9; }
fi
printf '%s\0ready\0' "$base"
cat >/dev/null
for top in . "$base"; do
    k=$top/$staging/$id
    [ -f "$k/$placing" ] || continue
    exec 7<>"$k/$placing"
    if command -v flock >/dev/null; then flock 7; fi
    # Without locks, a copy under the name from before gets no place from now on.
    mv -T "$k" "$k.removed" || return 1
    rm -rf "$k.removed" || { sleep 1; rm -rf "$k.removed"; }
    rmdir "$top/$staging" 2>/dev/null
done
return 0
"#;

/// Gives `$s`, below `$k`, the place `$d` in the directory `$p`, durably; prints `exists` if another copy has the place.
const PLACE: &str = r#"exec 7<"$k/$placing"
if command -v flock >/dev/null; then flock -s 7; fi
if [ ! -d "$s" ]; then echo "the copy was removed before it was complete" >&2; return 1; fi
if [ -L "$p" ]; then echo "$p is a symlink: nothing is copied through it" >&2; return 1; fi
mkdir -p -- "$p" || return 1
if sync --help 2>&1 | grep -q -e --file-system; then write() { sync -f "$1"; }; else write() { sync; }; fi
write "$s" || return 1
mv -nT -- "$s" "$d"
if [ -e "$s" ]; then
    if [ -e "$d" ] || [ -L "$d" ]; then printf exists; return 0; fi
    return 1
fi
write "$p"
"#;

/// Makes the symlink `$c` name `$r`, unless it leads to a directory.
const SET_CURRENT: &str = r#"if [ -d "$c" ]; then return 0; fi
if [ -e "$c" ] && [ ! -L "$c" ]; then return 0; fi
ln -sfnT -- "$r" "$c"
"#;

/// A copy to another machine.
pub(super) struct Upload<'a> {
    from: Env<'a>,
    to: &'a Site,
    /// The workspace's path there.
    workspace: PathBuf,
    /// The directory of unfinished copies of runs, relative to the workspace; and that of jobs.
    staging: PathBuf,
    staging_of_jobs: PathBuf,
    /// How many directories were made on this machine.
    made: AtomicUsize,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(from: Env<'a>, to: &'a Site) -> Result<Upload<'a>, CopyError> {
        let id = staging::id();
        let script = to
            .script()
            .add("id=")
            .word(&id)
            .add("\nstaging=")
            .word(STAGING);
        let script = script.add("\nnote_of_ours=").word(NOTE);
        let script = script.add("\nplacing=").word(PLACING).add("\n").add(KEEP);
        let printed = to.connection.keep(&script)?;
        let base = printed.strip_suffix(b"\0").unwrap_or(&printed);
        let staging = Path::new(STAGING).join(&id);
        Ok(Upload {
            from,
            to,
            workspace: to.real()?.to_owned(),
            staging_of_jobs: Path::new(OsStr::from_bytes(base)).join(&staging),
            staging,
            made: AtomicUsize::new(0),
        })
    }

    /// An empty directory on this machine, and its path.
    fn make_directory(&self) -> Result<(OwnedFd, PathBuf), String> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.to.connection.directory().join(number.to_string());
        let made = std::fs::DirBuilder::new().create(&path);
        let opened = made.and_then(|()| {
            let opened = at::open_to_list(rustix::fs::CWD, path.as_os_str());
            opened.map_err(std::io::Error::from)
        });
        let opened = opened.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok((opened, path))
    }

    /// A script that makes a directory below that of unfinished copies and enters it, for rsync. Never makes that of unfinished copies
    /// itself: if this process was killed, it is removed for good.
    fn make_and_enter(&self, (staging, below): (&Path, &Path)) -> Script {
        let script = self.to.enter(0, staging).add(" && mkdir -p -- ");
        script.word(below).add(" && cd -- ").word(below)
    }

    /// Gives the copy at `place` in a directory of unfinished copies that place below the workspace.
    fn place(&self, staging: &Path, place: &Path) -> Result<bool, String> {
        let parent = place.parent().unwrap_or(place);
        let script = self.to.script().add("k=").word(staging);
        let script = script.add("\nplacing=").word(PLACING);
        let script = script.add("\ns=").word(staging.join(place));
        let script = script.add("\nd=").word(place).add("\np=").word(parent);
        let printed = self.to.connection.output(&script.add("\n").add(PLACE));
        Ok(printed.map_err(|error| error.to_string())?.is_empty())
    }

    fn copy(
        &self,
        (here, there): (&OwnedFd, (&Path, &Path)),
        overlay: Option<&Path>,
        excluded: Vec<OsString>,
    ) -> Result<(), String> {
        let there = self.make_and_enter(there);
        let trees = Trees::new(&self.to.connection, there, here, excluded);
        rsync::copy(&trees, Direction::Up { overlay }, self.from.progress)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.to.connection.end_last();
    }
}

impl Transfer for Upload<'_> {
    fn job(&self, job: &JobId) -> Result<bool, String> {
        let origins = export::origins(&self.from, job).map_err(|error| why(&error))?;
        let at = job_path(&self.workspace, job);
        let place = Path::new(JOBS).join(job.path());
        let mut first = None;
        for origin in &origins {
            if let Err(error) = export::check(&self.from, job, origin) {
                first.get_or_insert_with(|| why(&error));
                continue;
            }
            let (opened, overlay) = self.make_directory()?;
            let paths = (&opened, &*at);
            let copied = export::export_paths(job, origin, paths, &self.workspace)
                .map_err(|error| why(&error))
                .and_then(|()| {
                    let there = (&*self.staging_of_jobs, &*place);
                    let trees = (&origin.directory, there);
                    self.copy(trees, Some(&overlay), excluded_of_job(job))
                });
            let _ = std::fs::remove_dir_all(&overlay);
            copied?;
            return self.place(&self.staging_of_jobs, &place);
        }
        Err(first.unwrap_or_else(|| "no location has it".to_owned()))
    }

    fn stage_run(&self, run: &RunName) -> Result<(), String> {
        let origin = runs::origin(&self.from, run).map_err(|cause| cause.to_string())?;
        let origin = origin.ok_or_else(|| "the source lost it meanwhile".to_owned())?;
        let path = site::run_path(run);
        let there = (&*self.staging, &*path);
        self.copy((&origin.directory, there), None, excluded_of_run())?;
        let (opened, links) = self.make_directory()?;
        let at = self.workspace.join(&path);
        let made = runs::export_links(&origin, (&opened, &at), &self.workspace);
        made.map_err(|cause| cause.to_string())?;
        let jobs = match at::absent(at::open_to_list(&opened, OsStr::new(JOBS))) {
            Ok(Some(jobs)) => jobs,
            _ => return Ok(()),
        };
        let copied = self.copy(
            (&jobs, (&*self.staging, &*path.join(JOBS))),
            None,
            Vec::new(),
        );
        let _ = std::fs::remove_dir_all(links);
        copied
    }

    fn place_run(&self, run: &RunName) -> Result<bool, String> {
        let path = site::run_path(run);
        let placed = self.place(&self.staging, &path)?;
        let script = self
            .to
            .script()
            .add(&format!("[ -e {MARKER} ] || : >{MARKER}"));
        let marked = self.to.connection.output(&script);
        marked.map_err(|error| error.to_string())?;
        Ok(placed)
    }

    fn set_current(&self, run: &RunName) -> Result<(), String> {
        let current = Path::new(EXPERIMENTS).join(&run.experiment).join("current");
        let script = self.to.script().add("c=").word(current);
        let script = script.add("\nr=").word(&run.run).add("\n").add(SET_CURRENT);
        let set = self.to.connection.output(&script);
        set.map(drop).map_err(|error| error.to_string())
    }
}
