//! Reads the settings file: the text, the tree, the types.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::decode::{Decode, Decoder};
use super::environment::{self, Environment};
use super::error::{Finding, SettingsError, Severity};
use super::interpolate::{Unset, interpolate};
use super::model::Settings;
use super::yaml::{self, Document, Position};

/// The default path of the settings: `~/.config/experimaestro/settings.yaml`.
///
/// # Errors
///
/// [`SettingsError::Path`] if there is no home directory.
pub fn default_path(environment: &Environment) -> Result<PathBuf, SettingsError> {
    let path = Path::new("~/.config/experimaestro/settings.yaml");
    environment::expand_user(path, environment).map_err(|error| SettingsError::Path {
        path: path.to_path_buf(),
        reason: format!("{error}: set HOME, or give --settings FILE"),
    })
}

impl Settings {
    /// Reads a settings file, by default `~/.config/experimaestro/settings.yaml`, in this process's environment.
    ///
    /// A missing file counts as an empty one, as in experimaestro's `get_settings`.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Read`] if the file exists and cannot be read, [`SettingsError::Invalid`] if it has a mistake, or one of xpmfs's own keys
    /// is wrong.
    pub fn load(path: Option<&Path>) -> Result<Settings, SettingsError> {
        Settings::load_in(path, &Environment::of_process())
    }

    /// [`Settings::load`] in another environment.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_in(
        path: Option<&Path>,
        environment: &Environment,
    ) -> Result<Settings, SettingsError> {
        let path = match path {
            Some(path) => path.to_path_buf(),
            None => default_path(environment)?,
        };
        let Some(text) = read(&path)? else {
            return Ok(Settings {
                file: path,
                ..Settings::default()
            });
        };
        let reading = parse(&text, &path, environment);
        let errors: Vec<Finding> = reading
            .findings
            .into_iter()
            .filter(|finding| finding.severity == Severity::Error)
            .collect();
        if errors.is_empty() {
            Ok(reading.settings)
        } else {
            Err(SettingsError::Invalid {
                path,
                findings: errors,
            })
        }
    }
}

/// The text of a settings file; `None` if it is missing, or not a regular file.
pub(super) fn read(path: &Path) -> Result<Option<String>, SettingsError> {
    let failed = |source| SettingsError::Read {
        path: path.to_path_buf(),
        source,
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        // For these, Python's `Path.is_file` returns false.
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    let limit = yaml::MAX_BYTES as u64;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > yaml::MAX_BYTES {
        let message = format!("it is larger than {limit} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(valid);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        let message = format!("line {line} is not UTF-8 text");
        failed(io::Error::new(io::ErrorKind::InvalidData, message))
    })
}

/// The text of a settings file that must exist.
pub(super) fn read_existing(path: &Path) -> Result<String, SettingsError> {
    read(path)?.ok_or_else(|| SettingsError::Read {
        path: path.to_path_buf(),
        source: match path.exists() {
            true => io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"),
            false => io::Error::new(io::ErrorKind::NotFound, "there is no such file"),
        },
    })
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::EBADF | libc::ELOOP)
    )
}

/// A file that was read, with its mistakes.
pub(super) struct Reading {
    /// The settings, with defaults in the place of mistakes.
    pub(super) settings: Settings,
    /// The mistakes, sorted by place.
    pub(super) findings: Vec<Finding>,
    /// The tree after interpolation; `None` if the text is not YAML.
    pub(super) document: Option<Document>,
    /// Variables that are not set.
    pub(super) unset: Vec<Unset>,
}

/// Reads the text of a file.
pub(super) fn parse(text: &str, file: &Path, environment: &Environment) -> Reading {
    let mut document = match yaml::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let finding = Finding::error(
                error.at,
                format!("not valid YAML: {}", error.message),
                syntax_advice(text, error.at, &error.message),
            );
            let settings = Settings {
                file: file.to_path_buf(),
                ..Settings::default()
            };
            return Reading {
                settings,
                findings: vec![finding],
                document: None,
                unset: Vec::new(),
            };
        }
    };
    let unset = interpolate(&mut document.root, environment);
    let mut decoder = Decoder::new(text, environment);
    let settings = Settings {
        file: file.to_path_buf(),
        ..Settings::decode(&mut decoder, "", &document.root).unwrap_or_default()
    };
    let mut findings = decoder.findings;
    findings.sort();
    Reading {
        settings,
        findings,
        document: Some(document),
        unset,
    }
}

/// The usual remedy for a text that is not YAML.
fn syntax_advice(text: &str, at: Position, message: &str) -> String {
    let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or("");
    if line.contains('\t') {
        "replace tabs by spaces".to_owned()
    } else if ["alias", "anchor"]
        .iter()
        .any(|word| message.contains(word))
    {
        "write the value out, or put `*` in quotes if it is a part of the text".to_owned()
    } else if line.matches(": ").count() > 1 || line.contains(['*', '@', '`', '%']) {
        "put values that hold `: ` or begin with a special character in quotes".to_owned()
    } else {
        "check that keys of one mapping have the same indentation, and that quotes and brackets are closed"
            .to_owned()
    }
}
