//! Reading the file.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::decode::{Decode, Decoder};
use super::environment::Environment;
use super::error::{Error, Finding, Severity};
use super::interpolate::{Unset, interpolate};
use super::model::Settings;
use super::path;
use super::yaml::Position;
use super::yaml::{self, Document};

/// Where the settings are by default: `~/.config/experimaestro/settings.yaml`.
///
/// # Errors
///
/// [`Error::Path`] if there is no home directory.
pub fn default_path(environment: &Environment) -> Result<PathBuf, Error> {
    let path = Path::new("~/.config/experimaestro/settings.yaml");
    path::expand_user(path, environment).map_err(|error| Error::Path {
        path: path.to_path_buf(),
        reason: format!("{error}: set HOME, or give --settings FILE"),
    })
}

impl Settings {
    /// Reads a settings file, by default `~/.config/experimaestro/settings.yaml`, in this process's environment.
    ///
    /// A file that does not exist is as one that says nothing, as in experimaestro's `get_settings`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the file is there and cannot be read, [`Error::Invalid`] if experimaestro would refuse it
    /// or one of our own keys is wrong.
    pub fn load(path: Option<&Path>) -> Result<Settings, Error> {
        Settings::load_in(path, &Environment::of_process())
    }

    /// [`Settings::load`] in an environment of choice.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_in(path: Option<&Path>, environment: &Environment) -> Result<Settings, Error> {
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
            Err(Error::Invalid {
                path,
                findings: errors,
            })
        }
    }
}

/// The text of a settings file; none if there is no such file (or it is not a file, as a directory).
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::Read {
        path: path.to_path_buf(),
        source,
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        // What `Path.is_file` takes for "no".
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

fn absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::EBADF | libc::ELOOP)
    )
}

/// A file that was read, rightly or wrongly.
pub(super) struct Reading {
    /// The settings; where something is wrong, with defaults.
    pub(super) settings: Settings,
    /// What is wrong, sorted by place.
    pub(super) findings: Vec<Finding>,
    /// The tree after interpolation; none if the text is not YAML.
    pub(super) document: Option<Document>,
    /// Variables that are not set.
    pub(super) unset: Vec<Unset>,
}

/// Reads a text.
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

/// What is usually meant where YAML cannot be read.
fn syntax_advice(text: &str, at: Position, message: &str) -> String {
    if message.contains("invalid indentation") {
        return "indent the lines that go on between brackets or quotes further than their key"
            .to_owned();
    }
    let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or("");
    if line.contains('\t') {
        "replace tabs by spaces".to_owned()
    } else if ["alias", "anchor"]
        .iter()
        .any(|word| message.contains(word))
    {
        "write the value out, or put `*` in quotes if it is meant as a letter".to_owned()
    } else if line.matches(": ").count() > 1 || line.contains(['*', '@', '`', '%']) {
        "put values that hold `: ` or begin with a special character in quotes".to_owned()
    } else {
        "see that keys of one mapping are indented alike, and that quotes and brackets are closed"
            .to_owned()
    }
}
