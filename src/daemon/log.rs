//! Where the log goes: to standard error, to the journal, or to a file.
//!
//! Levels: warnings and what a daemon does (`info`) by default; `-v` for more, `-vv` for everything. `-q` leaves errors alone on standard
//! error; a file and the journal are as without it. The environment's `XPMFS_LOG` overrides all, in `tracing`'s syntax:
//! `xpmfs=debug,fuser=info`.
//!
//! Several mounts may log to one file, so each line in a file begins with the time, the machine, the mount point and the process, and is
//! written by one call to the end of the file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::sys::printable::printable;

/// The journal's socket (systemd-journald(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The target of notes: events of level `info` that a person at the terminal sees too, with `note:` before them.
pub const NOTE: &str = "xpmfs::note";

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verbosity {
    /// How often `-v` was given.
    pub verbose: u8,
    /// Whether `-q` was given.
    pub quiet: bool,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Destination {
    /// Standard error of a daemon in the foreground.
    Stderr,
    /// The journal.
    Journal,
    /// A file, to its end.
    File(#[serde(with = "crate::sys::path_bytes")] PathBuf),
}

impl Destination {
    /// Where the log of a daemon in the background goes: the journal if there is one, else
    /// `$XDG_STATE_HOME/xpmfs/<name>.log` (default `~/.local/state`; `/var/log` without a home).
    #[must_use]
    pub fn of_background(name: &str) -> Self {
        if Path::new(JOURNAL).exists() {
            return Self::Journal;
        }
        let name: String = name
            .chars()
            .map(|c| if c == '/' || c.is_control() { '-' } else { c })
            .collect();
        let name = name.trim_matches(['-', '.']);
        let name = if name.is_empty() { "mount" } else { name };
        Self::File(state_directory().join("xpmfs").join(format!("{name}.log")))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("standard error"),
            Self::Journal => f.write_str("journalctl -t xpmfs"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn state_directory() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/log"))
}

/// Whether a daemon in the background still has the terminal of who started it.
static STDERR_IS_OURS: AtomicBool = AtomicBool::new(true);

/// From now on nothing is logged to the terminal that a daemon was started from: it has been left, or what is to be said there is
/// said by another process.
pub fn close_stderr() {
    STDERR_IS_OURS.store(false, Ordering::Release);
}

/// Standard error, as long as it is ours.
struct Startup;

impl Write for Startup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if STDERR_IS_OURS.load(Ordering::Acquire) {
            io::stderr().write(bytes)
        } else {
            Ok(bytes.len())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends the log of a command to the terminal. Only the first call in a process counts.
pub fn to_terminal(verbosity: Verbosity) {
    install(vec![terminal(io::stderr, verbosity)]);
}

/// Sends the log of the daemon of the mount at `mountpoint` to `destination`, and until the mount is ready also to the terminal when that is
/// elsewhere. fuser's own messages come along. Only the first call in a process counts.
///
/// # Errors
///
/// The file cannot be opened or the journal not reached.
pub fn init(destination: &Destination, mountpoint: &Path, verbosity: Verbosity) -> io::Result<()> {
    start(destination, mountpoint, None, verbosity)
}

/// As [`init`], with the log file that another program has opened: its path may lead into the mount.
///
/// # Errors
///
/// The journal cannot be reached.
pub fn resume(
    destination: &Destination,
    mountpoint: &Path,
    file: Option<OwnedFd>,
    verbosity: Verbosity,
) -> io::Result<()> {
    close_stderr();
    start(destination, mountpoint, file.map(File::from), verbosity)
}

/// The log file and its path, if the log of this process goes to one.
static FILE: OnceLock<(PathBuf, Arc<File>)> = OnceLock::new();

/// The open log file and its path, for another program that goes on with it.
pub fn file() -> Option<(&'static Path, BorrowedFd<'static>)> {
    let (path, file) = FILE.get()?;
    Some((path, file.as_fd()))
}

fn start(
    destination: &Destination,
    mountpoint: &Path,
    file: Option<File>,
    verbosity: Verbosity,
) -> io::Result<()> {
    // Only a terminal is quiet: what a log lacks cannot be read later.
    let logged = Verbosity {
        quiet: false,
        ..verbosity
    };
    let log = match destination {
        Destination::Stderr => {
            let layer = tracing_subscriber::fmt::layer()
                .event_format(OneLine::new(
                    format::format().with_ansi(false).without_time(),
                ))
                .with_ansi(false)
                .with_writer(io::stderr);
            filtered(layer, everything(verbosity))
        }
        Destination::Journal => {
            let layer = tracing_journald::layer()?.with_syslog_identifier("xpmfs".into());
            filtered(layer, everything(logged))
        }
        Destination::File(path) => {
            let file = match file {
                Some(file) => file,
                None => open(path)?,
            };
            let (_, file) = FILE.get_or_init(|| (path.clone(), Arc::new(file)));
            let layer = tracing_subscriber::fmt::layer()
                .event_format(OneLine {
                    format: format::format().with_ansi(false),
                    origin: Some(origin(mountpoint)),
                })
                .with_ansi(false)
                .with_writer(file.clone());
            filtered(layer, everything(logged))
        }
    };
    let startup = match destination {
        Destination::Journal | Destination::File(_) => Some(terminal(|| Startup, verbosity)),
        Destination::Stderr => None,
    };
    install([log].into_iter().chain(startup).collect());
    Ok(())
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn install(layers: Vec<BoxedLayer>) {
    // A second call finds the first one's in place; that is enough.
    let _ = Registry::default().with(layers).try_init();
}

/// What the lines of a file begin with after the time: the machine, since nodes may share a home, and the mount point.
fn origin(mountpoint: &Path) -> String {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    format!("{machine} {}", mountpoint.display())
}

fn terminal<W>(writer: W, verbosity: Verbosity) -> BoxedLayer
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .event_format(OneLine::new(Short))
        .with_ansi(false)
        .with_writer(writer);
    filtered(layer, warnings(verbosity))
}

fn filtered<L>(layer: L, filter: EnvFilter) -> BoxedLayer
where
    L: Layer<Registry> + Send + Sync,
{
    WithoutLateReplies(layer).with_filter(filter).boxed()
}

/// What another format makes of an event, as one line whatever is named in it. (The journal keeps messages apart by itself.)
struct OneLine<F> {
    format: F,
    /// Written after the time, with which the other format then begins.
    origin: Option<String>,
}

impl<F> OneLine<F> {
    fn new(format: F) -> OneLine<F> {
        OneLine {
            format,
            origin: None,
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let Some((origin, (time, rest))) = self.origin.as_ref().zip(line.split_once(' ')) else {
            return writeln!(writer, "{}", printable(line));
        };
        // After a fork, the process is another one.
        let line = format!(
            "{time} {origin}[{}]: {}",
            std::process::id(),
            rest.trim_start()
        );
        writeln!(writer, "{}", printable(&line))
    }
}

/// Lines for a person: `xpmfs: warning: …`.
struct Short;

impl<S, N> FormatEvent<S, N> for Short
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::INFO if event.metadata().target() == NOTE => "xpmfs: note: ",
            Level::ERROR => "xpmfs: ",
            Level::WARN => "xpmfs: warning: ",
            Level::INFO => "xpmfs: info: ",
            Level::DEBUG => "xpmfs: debug: ",
            Level::TRACE => "xpmfs: trace: ",
        })?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let context = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "cannot open the log file {}: {error}; give another one with --log",
                path.display()
            ),
        )
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(context)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(context)
}

/// A layer without what fuser calls an error and is none: that a reply came too late, as the process that asked was killed
/// meanwhile. The kernel has forgotten the request then, and answers the reply with `ENOENT`.
///
/// Spans are not passed on, as there are none. Not a filter: one that looks at an event's message (`event_enabled`) breaks the filters of the other layers.
struct WithoutLateReplies<L>(L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for WithoutLateReplies<L> {
    fn on_layer(&mut self, subscriber: &mut S) {
        self.0.on_layer(subscriber);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut late = LateReply(false);
        event.record(&mut late);
        if !late.0 {
            self.0.on_event(event, context);
        }
    }
}

/// Whether a message is that of a reply that came too late.
struct LateReply(bool);

impl Visit for LateReply {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let message = format!("{value:?}");
            self.0 = message.starts_with("Failed to send FUSE reply")
                && message.ends_with("(os error 2)");
        }
    }
}

/// What goes into a log.
fn everything(verbosity: Verbosity) -> EnvFilter {
    filter(match verbosity {
        Verbosity { quiet: true, .. } => "error",
        Verbosity { verbose: 0, .. } => "warn,xpmfs=info",
        Verbosity { verbose: 1, .. } => "info,xpmfs=debug",
        _ => "trace",
    })
}

/// What goes to the terminal of a person who did not ask for a log.
fn warnings(verbosity: Verbosity) -> EnvFilter {
    if verbosity.quiet || verbosity.verbose > 0 {
        return everything(verbosity);
    }
    filter("warn,xpmfs::note=info")
}

fn filter(default: &str) -> EnvFilter {
    std::env::var("XPMFS_LOG")
        .ok()
        .filter(|directives| !directives.is_empty())
        .map_or_else(
            || EnvFilter::new(default),
            |directives| {
                EnvFilter::builder()
                    .with_regex(false)
                    .parse_lossy(directives)
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_named_after_the_mount_and_stays_in_its_directory() {
        if Path::new(JOURNAL).exists() {
            return;
        }
        for (name, file) in [
            ("nlp", "nlp.log"),
            ("/data/a b", "data-a b.log"),
            ("..", "mount.log"),
        ] {
            let Destination::File(path) = Destination::of_background(name) else {
                panic!("not a file");
            };
            assert_eq!(path.file_name().unwrap(), file);
            assert_eq!(path.parent().unwrap().file_name().unwrap(), "xpmfs");
        }
    }

    #[test]
    fn a_reply_that_came_too_late_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("log")).unwrap();
        let log = tracing_subscriber::fmt::layer().with_writer(Arc::new(file));
        let log = WithoutLateReplies(log).with_filter(EnvFilter::new("warn"));
        tracing::subscriber::with_default(Registry::default().with(log), || {
            for errno in [2, 5] {
                let error = io::Error::from_raw_os_error(errno);
                tracing::error!("Failed to send FUSE reply: {error}");
            }
            tracing::info!("below the level");
        });
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("(os error 5)"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = init(
            &Destination::File("/proc/no/such.log".into()),
            Path::new("/"),
            Verbosity::default(),
        );
        assert!(error.unwrap_err().to_string().contains("/proc/no/such.log"));
    }
}
