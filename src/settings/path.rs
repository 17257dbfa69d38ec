//! Paths as Python's `pathlib` sees them: what experimaestro makes of the text of a path.
//!
//! To be used before mounting only: [`resolve`] looks at every directory on the way.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::environment::Environment;

/// Why a path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("there is no home directory for `{0}`")]
    NoHome(String),
    #[error("a symbolic link on the way leads back to itself")]
    Loop,
    #[error("a path cannot hold a null character")]
    Null,
}

/// `Path(text)`: single slashes, no `.` components, no slash at the end; `..` stays; two leading slashes stay two.
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

/// `Path.resolve()`: absolute, symbolic links followed as far as the path exists, `..` taken where links lead.
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

/// `~` replaced, then resolved.
pub(crate) fn expand_and_resolve(
    path: &Path,
    environment: &Environment,
) -> Result<PathBuf, PathError> {
    resolve(&expand_user(path, environment)?, environment)
}

/// `posixpath._joinrealpath`
struct Walk {
    /// Links met: where they lead, or nothing while that is being found out.
    seen: HashMap<PathBuf, Option<PathBuf>>,
}

/// More links than the kernel follows (40), to bound the recursion.
const MOST_LINKS: usize = 200;

impl Walk {
    fn follow(&mut self, from: PathBuf, rest: &[u8], links: usize) -> Result<PathBuf, PathError> {
        if links > MOST_LINKS {
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
            // What cannot be looked at is taken as it is written.
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
