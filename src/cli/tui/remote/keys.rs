//! The keys, for the dialog of help and the last line.

use super::tab::RemoteTab;

/// The keys of a tab, then those of all. `tabs`: how many tabs there are.
pub(super) fn lines(tab: RemoteTab, tabs: usize) -> Vec<String> {
    let own: &[&str] = match tab {
        RemoteTab::Jobs | RemoteTab::Orphans | RemoteTab::Strays => &[
            "Enter       open: state, tags, process, log",
            "l           log",
            "/           search as you type: words of the name, hash, tags and state,",
            "            or a filter: @state = \"DONE\" and model in [\"a\", \"b\"]",
            "c           clear the search",
            "S T D O Y   sort by state, task, date, name, tags; again: reversed",
            "Ctrl+k      kill the job",
            "Ctrl+d      delete the job there, for good",
            "f           copy the path of the job to the clipboard",
        ],
        RemoteTab::Experiments => &[
            "Enter       the jobs of the run",
            "f           copy the path of the run to the clipboard",
        ],
        RemoteTab::Services => &["u, f        copy the address to the clipboard"],
        RemoteTab::Folders => &["f           copy the path of the folder to the clipboard"],
        RemoteTab::Archive => &["            what is copied, what waits, what failed and why"],
    };
    let digits = format!("1 to {tabs}, Tab another tab; the mouse works, too");
    let all = [
        "",
        &digits,
        "j k g G     down, up, first, last; arrows, PageUp, PageDown, Home, End",
        "r           look at everything again; connect at once",
        "m           messages, and what the other machine printed",
        "Esc         back",
        "q, Ctrl+c   quit; Ctrl+z to the shell, fg brings back",
    ];
    own.iter().chain(&all).map(|it| (*it).to_owned()).collect()
}

/// The most important keys while a job is open, in a line.
pub(super) const REMOTE_JOB_HINTS: &str =
    "Tab next part  f follow, copy path  s stdout/stderr  g G first, last  Ctrl+k kill  Esc back";

/// The most important keys of a tab, in a line.
pub(super) fn hints(tab: RemoteTab) -> &'static str {
    match tab {
        RemoteTab::Jobs | RemoteTab::Orphans | RemoteTab::Strays => {
            "Enter open  / search  l log  Ctrl+k kill  Ctrl+d delete  ? keys  q quit"
        }
        RemoteTab::Experiments => "Enter jobs  f copy path  ? keys  q quit",
        RemoteTab::Services => "u copy address  ? keys  q quit",
        RemoteTab::Folders => "f copy path  ? keys  q quit",
        RemoteTab::Archive => "r refresh  ? keys  q quit",
    }
}
