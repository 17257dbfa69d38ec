//! What settings depend on besides their file: environment variables, the home directory, the current one.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// The surroundings in which a settings file is read.
#[derive(Debug, Clone)]
pub struct Environment {
    vars: HashMap<OsString, OsString>,
    current_dir: PathBuf,
}

impl Environment {
    /// Those of this process, now.
    #[must_use]
    pub fn of_process() -> Environment {
        // Without a current directory (it was removed), relative paths are left relative.
        Environment {
            vars: env::vars_os().collect(),
            current_dir: env::current_dir().unwrap_or_default(),
        }
    }

    /// Made-up ones: these variables and no others, and this current directory.
    pub fn new<K: Into<OsString>, V: Into<OsString>>(
        vars: impl IntoIterator<Item = (K, V)>,
        current_dir: impl Into<PathBuf>,
    ) -> Environment {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Environment {
            vars,
            current_dir: current_dir.into(),
        }
    }

    /// A variable's value.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The current directory.
    #[must_use]
    pub fn current_dir(&self) -> &Path {
        &self.current_dir
    }

    /// The home directory that `~` or `~user` stands for, as Python's `os.path.expanduser`: `HOME`, or what the
    /// user database says; none for a user that nobody knows. `tilde` is the first component of a path.
    pub(crate) fn home(&self, tilde: &[u8]) -> Option<PathBuf> {
        let home = match tilde.strip_prefix(b"~")? {
            b"" => match self.vars.get(OsStr::new("HOME")) {
                Some(home) => home.clone(),
                None => User::from_uid(Uid::current()).ok()??.dir.into_os_string(),
            },
            name => User::from_name(std::str::from_utf8(name).ok()?)
                .ok()??
                .dir
                .into_os_string(),
        };
        let mut bytes = home.into_vec();
        while bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        let home = if bytes.is_empty() {
            PathBuf::from("/")
        } else {
            PathBuf::from(OsString::from_vec(bytes))
        };
        // A home that is itself written with a tilde is none: `pathlib` refuses it.
        (!home.as_os_str().as_bytes().starts_with(b"~")).then_some(home)
    }
}
