//! What settings depend on besides their file: variables, home directories, the current directory, and how paths are resolved
//! with them.
//!
//! Paths are treated as by Python's `pathlib`, as experimaestro does. [`resolve`] looks at every directory on the way: call it
//! before mounting only.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// Variables and directories of a process.
#[derive(Debug, Clone)]
pub struct Environment {
    vars: HashMap<OsString, OsString>,
    current_dir: PathBuf,
}

impl Environment {
    /// The environment of this process, now.
    #[must_use]
    pub fn of_process() -> Environment {
        // Without a current directory (it was removed), relative paths are left relative.
        Environment {
            vars: env::vars_os().collect(),
            current_dir: env::current_dir().unwrap_or_default(),
        }
    }

    /// An environment with these variables and this current directory.
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

    /// The home directory for `~` or `~user`, the first component of a path, as Python's `os.path.expanduser`: `HOME`, or
    /// that of the user database; `None` for an unknown user.
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
        // `pathlib` refuses a home that begins with a tilde.
        (!home.as_os_str().as_bytes().starts_with(b"~")).then_some(home)
    }
}

/// Why a path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("no home directory is known for `{0}`")]
    NoHome(String),
    #[error("a symbolic link on the way leads back to itself")]
    Loop,
    #[error("a path cannot hold a null character")]
    Null,
}

/// `Path(text)`: removes double slashes, `.` components and the slash at the end; keeps `..` and two leading slashes.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let slashes = bytes.iter().take_while(|b| **b == b'/').count();
    let mut out: Vec<u8> = match slashes {
        0 => Vec::new(),
        2 => b"//".to_vec(),
        _ => b"/".to_vec(),
    };
    let parts = bytes
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    out.extend(parts.collect::<Vec<_>>().join(&b'/'));
    if out.is_empty() {
        out.push(b'.');
    }
    PathBuf::from(OsString::from_vec(out))
}

/// `Path(text).expanduser()`
pub(crate) fn expand_user(path: &Path, environment: &Environment) -> Result<PathBuf, PathError> {
    let path = normal(path);
    let bytes = path.as_os_str().as_bytes();
    if !bytes.starts_with(b"~") {
        return Ok(path);
    }
    let end = bytes.iter().position(|b| *b == b'/').unwrap_or(bytes.len());
    let (tilde, rest) = bytes.split_at(end);
    let home = environment
        .home(tilde)
        .ok_or_else(|| PathError::NoHome(String::from_utf8_lossy(tilde).into_owned()))?;
    let mut whole = home.into_os_string().into_vec();
    whole.extend_from_slice(rest);
    Ok(normal(Path::new(&OsString::from_vec(whole))))
}

/// `Path.resolve()`: makes a path absolute, and follows symbolic links as far as it exists.
pub(crate) fn resolve(path: &Path, environment: &Environment) -> Result<PathBuf, PathError> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(PathError::Null);
    }
    let mut walk = Walk {
        seen: HashMap::new(),
    };
    walk.follow(
        environment.current_dir().to_path_buf(),
        path.as_os_str().as_bytes(),
        0,
    )
}

/// Replaces `~`, then resolves the path.
pub(crate) fn expand_and_resolve(
    path: &Path,
    environment: &Environment,
) -> Result<PathBuf, PathError> {
    resolve(&expand_user(path, environment)?, environment)
}

/// `posixpath._joinrealpath`
struct Walk {
    /// The links on the way and their targets; `None` while a target is being resolved.
    seen: HashMap<PathBuf, Option<PathBuf>>,
}

/// The most nested links; the kernel follows 40.
const MAX_LINKS: usize = 200;

impl Walk {
    fn follow(&mut self, from: PathBuf, rest: &[u8], links: usize) -> Result<PathBuf, PathError> {
        if links > MAX_LINKS {
            return Err(PathError::Loop);
        }
        let mut path = if rest.starts_with(b"/") {
            PathBuf::from("/")
        } else {
            from
        };
        for name in rest.split(|b| *b == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => {
                    path.pop();
                    continue;
                }
                _ => path.push(OsString::from_vec(name.to_vec())),
            }
            // What cannot be read stays as it is written.
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            match self.seen.get(&path) {
                Some(Some(known)) => {
                    path = known.clone();
                    continue;
                }
                Some(None) => return Err(PathError::Loop),
                None => {}
            }
            self.seen.insert(path.clone(), None);
            let parent = path.parent().map(Path::to_path_buf).unwrap_or_default();
            let led = self.follow(parent, target.as_os_str().as_bytes(), links + 1)?;
            self.seen.insert(path, Some(led.clone()));
            path = led;
        }
        Ok(path)
    }
}
