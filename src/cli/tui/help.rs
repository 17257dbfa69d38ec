//! The keys, for the dialog of help.

use super::watchers::Tab;

/// The keys of a tab, then those of all.
pub(super) fn lines(tab: Tab) -> Vec<String> {
    let own: &[&str] = match tab {
        Tab::Jobs => &[
            "Enter       open: copies, files, parameters, log",
            "l           log",
            "n           only finished jobs without a second copy",
            "/           search as you type: words of the name, hash, tags and state,",
            "            or a filter: @state = \"DONE\" and model in [\"a\", \"b\"]",
            "c           clear the search and the marks",
            "S T D O Z   sort by state, task, date, name, size; again: reversed",
            "C Y         sort by copies, tags",
            "Space, A    mark a job, all that show: actions are for the marked ones",
            "a           archive in the folders",
            "b           bring back into the primary (recover)",
            "e           release: free the primary's copy of an archived job",
            "v           verify the archived copies",
            "p           pin (never released), unpin",
            "o           opt out of archiving, opt in",
            "Ctrl+d      delete everywhere, into the trash",
            "f           copy the path of the job to the clipboard",
        ],
        Tab::Folders => &[
            "e           find out what is safe to release, and release it",
            "Z           measure all jobs",
            "f           copy the path of the folder to the clipboard",
        ],
        Tab::Archive => &["            what is copied, what waits, what failed and why"],
        Tab::Experiments => &[
            "Enter       the jobs of the experiment",
            "y           copy the run to another workspace",
            "f           copy the path of the run to the clipboard",
        ],
        Tab::Orphans => &[
            "n           with those that a folder has, too; without",
            "Ctrl+d      remove one, into the trash",
            "X           remove all (Ctrl+Shift+d where the terminal reports it)",
            "f           copy the path of the job to the clipboard",
        ],
        Tab::Trash => &["b           bring back"],
    };
    let all = [
        "",
        "1 to 6, Tab another tab; the mouse works, too",
        "j k g G     down, up, first, last; arrows, PageUp, PageDown, Home, End",
        "r           look at everything again (it is done regularly, too)",
        "m           messages",
        "Esc         back",
        "q, Ctrl+c   quit; Ctrl+z to the shell, fg brings back",
    ];
    own.iter().chain(&all).map(|it| (*it).to_owned()).collect()
}

/// The keys while a job is open.
pub(super) fn of_a_job() -> Vec<String> {
    let keys = [
        "Tab         the next part: copies, files, parameters, log",
        "l           the log",
        "s           in the log: standard output in place of standard error, and back",
        "f           in the log: follow it, or stop; elsewhere: copy the path of the job",
        "r           read it again",
        "j k g G     down, up, first, last; arrows, PageUp, PageDown, Home, End",
        "m           messages",
        "Esc         back to the list, where the keys for actions are",
        "q, Ctrl+c   quit; Ctrl+z to the shell, fg brings back",
    ];
    keys.map(str::to_owned).to_vec()
}

/// The most important keys while a job is open, in a line.
pub(super) const JOB_HINTS: &str =
    "Tab next part  f follow, copy path  s stdout/stderr  g G first, last  Esc back";

/// The most important keys of a tab, in a line.
pub(super) fn hints(tab: Tab) -> &'static str {
    match tab {
        Tab::Jobs => "Enter open  / search  n no second copy  a archive  e release  ? keys  q quit",
        Tab::Folders => "e what is safe to release  Z measure  ? keys  q quit",
        Tab::Archive => "r refresh  ? keys  q quit",
        Tab::Experiments => "Enter jobs  y copy to another workspace  ? keys  q quit",
        Tab::Orphans => "n with those in folders  Ctrl+d remove  X remove all  ? keys  q quit",
        Tab::Trash => "b bring back  ? keys  q quit",
    }
}
