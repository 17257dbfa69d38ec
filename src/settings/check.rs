//! Finding every mistake in a settings file.
use super::environment::Environment;
use super::error::{Error, Finding};
use super::load;
use std::path::Path;

/// Checks a settings file.
///
/// # Errors
///
/// [`Error::Read`] if there is no such file or it cannot be read.
pub fn check(path: &Path, environment: &Environment) -> Result<Vec<Finding>, Error> {
    let text = load::read(path)?.unwrap_or_default();
    Ok(load::parse(&text, path, environment).findings)
}
