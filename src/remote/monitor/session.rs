//! One connection to a monitor server: `ssh`, and a thread at each of its pipes.
//!
//! Each thread waits for its pipe and for a channel of a few messages; the caller waits for neither. What the server prints that is not a
//! message of the protocol, as the profile of a shell may, is passed on as a text, up to a number of lines.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use serde_json::json;

use super::super::ssh::{Connection, SshError};
use super::lines::{self, Line};
use super::model::{Answer, Notice, RemoteQuestion};
use super::protocol::{self, Envelope, Greeting, HANDSHAKE, VERSION};
use super::server::MonitorServer;
use super::words::OpenQuote;

/// The longest message: some 200,000 jobs.
const MESSAGE_MAX: usize = 128 << 20;

/// The longest line of standard error.
const TEXT_MAX: u64 = 4096;

/// How many lines that are not messages a connection may send.
const STRAYS_MAX: usize = 1000;

/// How many messages wait for the caller: the server waits then.
const MESSAGES_MAX: usize = 8;

/// How many questions wait for a server that does not read.
const QUESTIONS_MAX: usize = 64;

/// How many of the last lines are the reason why a connection ended.
const LAST_LINES: usize = 3;

/// How often it is looked whether anybody still waits for the connection.
const TICK: Duration = Duration::from_millis(100);

/// How long the server may take to end when its input has ended.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// `ssh` cannot be run.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// `xpm_path` cannot be read.
    #[error("cannot use `xpm_path`: {0}")]
    Command(#[from] OpenQuote),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The connection ended.
    #[error("{host}: {why}")]
    Ended {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// The server did not answer.
    #[error(
        "{host} has not answered within {} s: if the server starts slowly there, use a longer --request-timeout",
        waited.as_secs_f64()
    )]
    Silent {
        /// The host.
        host: String,
        /// For how long.
        waited: Duration,
    },
    /// The server speaks another version of the protocol.
    #[error(
        "{host} speaks version {theirs} of the monitoring protocol, and this xpmfs version {VERSION}: experimaestro 2.7 there speaks it"
    )]
    Version {
        /// The host.
        host: String,
        /// Its version.
        theirs: String,
    },
}

/// What a connection reports.
pub(super) enum Incoming {
    /// The answer to a question, and how long it took.
    Answer(RemoteQuestion, Result<Answer, String>, Duration),
    Notice(Notice),
    /// A line of standard error, or one that is not a message.
    Said(String),
    /// The server's answer to the first question.
    Greeting(Result<Greeting, String>),
    /// The connection has ended, and why.
    End(String),
}

/// A question without an answer.
struct Pending {
    /// `None`: the first question.
    question: Option<RemoteQuestion>,
    since: Instant,
}

type Questions = Arc<Mutex<HashMap<u64, Pending>>>;

/// A connection. Dropping it ends the server.
pub(super) struct Session {
    host: String,
    child: Child,
    /// `None` when it ends.
    questions: Option<Sender<Vec<u8>>>,
    pub(super) incoming: Receiver<Incoming>,
    pending: Questions,
    number: u64,
    /// The workspace's directory there, as the server names it.
    pub(super) workdir: Option<String>,
}

impl Session {
    /// Connects, starts the server, and compares versions. `said` gets what the other machine prints meanwhile; `ends`: stop.
    ///
    /// # Errors
    ///
    /// There is no connection, the server does not start or answer, or it speaks another version.
    pub(super) fn open(
        connection: &Connection,
        server: &MonitorServer,
        timeout: Duration,
        said: &dyn Fn(String),
        ends: &AtomicBool,
    ) -> Result<Session, MonitorError> {
        let child = connection.spawn_first(&server.command()?)?;
        Session::of(child, &connection.host, timeout, said, ends)
    }

    /// The session of a program that was started.
    pub(super) fn of(
        mut child: Child,
        host: &str,
        timeout: Duration,
        said: &dyn Fn(String),
        ends: &AtomicBool,
    ) -> Result<Session, MonitorError> {
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (questions, to_write) = bounded(QUESTIONS_MAX);
        let (report, incoming) = bounded(MESSAGES_MAX);
        let pending = Questions::default();
        let mut session = Session {
            host: host.to_owned(),
            child,
            questions: Some(questions),
            incoming,
            pending: pending.clone(),
            number: 0,
            workdir: None,
        };
        if let (Some(input), Some(output), Some(errors)) = pipes {
            let last = Arc::new(Mutex::new(VecDeque::new()));
            let reader = Reader {
                report: report.clone(),
                pending,
                last: last.clone(),
            };
            let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
                let thread = Builder::new().name(name.to_owned());
                thread.spawn(work).map_err(MonitorError::Thread)
            };
            let errors = {
                let work = move || read_errors(errors, &report, &last);
                start("xpmfs-ssh-stderr", Box::new(work))?
            };
            start("xpmfs-ssh-in", Box::new(move || write(input, &to_write)))?;
            let read = move || {
                let why = reader.read(output);
                // What was printed last on standard error says more, and may be on its way.
                let deadline = Instant::now() + END_TIMEOUT;
                while why.is_none() && !errors.is_finished() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(5));
                }
                reader.end(why);
            };
            start("xpmfs-ssh-out", Box::new(read))?;
        }
        session.greet(timeout, said, ends)?;
        Ok(session)
    }

    fn greet(
        &mut self,
        timeout: Duration,
        said: &dyn Fn(String),
        ends: &AtomicBool,
    ) -> Result<(), MonitorError> {
        let host = || self.host.clone();
        let deadline = Instant::now() + timeout;
        let pending = Pending {
            question: None,
            since: Instant::now(),
        };
        self.pending.lock().insert(0, pending);
        let line = protocol::request(0, HANDSHAKE, &json!({}));
        if let Some(questions) = &self.questions {
            let _ = questions.try_send(line);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let greeting = match self.incoming.recv_timeout(left.min(TICK)) {
                Ok(Incoming::Greeting(greeting)) => greeting,
                Ok(Incoming::Said(text)) => {
                    said(text);
                    continue;
                }
                Ok(Incoming::Notice(Notice::Shutdown(why)) | Incoming::End(why)) => {
                    return Err(MonitorError::Ended { host: host(), why });
                }
                Ok(Incoming::Notice(_) | Incoming::Answer(..)) => continue,
                Err(RecvTimeoutError::Timeout)
                    if Instant::now() < deadline && !ends.load(Ordering::Relaxed) =>
                {
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(MonitorError::Silent {
                        host: host(),
                        waited: timeout,
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let why = "the connection ended".to_owned();
                    return Err(MonitorError::Ended { host: host(), why });
                }
            };
            let greeting = greeting.map_err(|why| MonitorError::Ended { host: host(), why })?;
            let theirs = match greeting.protocol_version.as_str() {
                Some(version) => version.to_owned(),
                None => greeting.protocol_version.to_string(),
            };
            if theirs != VERSION {
                return Err(MonitorError::Version {
                    host: host(),
                    theirs,
                });
            }
            self.workdir = greeting.workspace_path;
            return Ok(());
        }
    }

    /// Asks. Returns false if too many questions wait: the server does not read.
    pub(super) fn ask(&mut self, question: RemoteQuestion, refresh: bool) -> bool {
        self.number += 1;
        let (method, params) = protocol::method(&question, refresh);
        let line = protocol::request(self.number, method, &params);
        let pending = Pending {
            question: Some(question),
            since: Instant::now(),
        };
        self.pending.lock().insert(self.number, pending);
        let sent = self.questions.as_ref().map(|it| it.try_send(line));
        let sent = !matches!(sent, None | Some(Err(TrySendError::Full(_))));
        if !sent {
            self.pending.lock().remove(&self.number);
        }
        sent
    }

    /// Whether a question has no answer yet.
    pub(super) fn is_pending(&self, question: &RemoteQuestion) -> bool {
        let pending = self.pending.lock();
        pending
            .values()
            .any(|it| it.question.as_ref() == Some(question))
    }

    /// Since when the oldest question waits for its answer.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.pending.lock().values().map(|it| it.since).min()
    }

    /// Forgets the actions that have waited for so long, and returns them.
    pub(super) fn give_up(&self, timeout: Duration) -> Vec<RemoteQuestion> {
        let is_late = |pending: &Pending| {
            let question = pending.question.as_ref();
            question.is_some_and(RemoteQuestion::is_action) && pending.since.elapsed() > timeout
        };
        let mut pending = self.pending.lock();
        let late = pending.extract_if(|_, pending| is_late(pending));
        late.filter_map(|(_, pending)| pending.question).collect()
    }

    /// The actions without an answer.
    pub(super) fn open_actions(&self) -> Vec<RemoteQuestion> {
        let pending = self.pending.lock();
        let questions = pending.values().filter_map(|it| it.question.clone());
        questions.filter(RemoteQuestion::is_action).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The thread that writes ends, which closes the pipe, which ends the server, which ends `ssh`.
        self.questions = None;
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline {
            // What is still read must not keep the server from its end.
            while self.incoming.try_recv().is_ok() {}
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(mut input: ChildStdin, lines: &Receiver<Vec<u8>>) {
    for line in lines {
        // If this fails, the output ends, too, and says why.
        if input.write_all(&line).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

type Last = Arc<Mutex<VecDeque<String>>>;

/// Keeps a line, if it is among the last.
fn keep(last: &Last, text: &str) {
    let mut last = last.lock();
    if last.len() >= LAST_LINES {
        last.pop_front();
    }
    last.push_back(text.to_owned());
}

fn read_errors(errors: ChildStderr, report: &Sender<Incoming>, last: &Last) {
    let mut errors = BufReader::new(errors);
    while let Ok(Some(text)) = lines::next_part(&mut errors, TEXT_MAX) {
        if text.is_empty() {
            continue;
        }
        keep(last, &text);
        if report.send(Incoming::Said(text)).is_err() {
            return;
        }
    }
}

/// Reads the messages of the server.
struct Reader {
    report: Sender<Incoming>,
    pending: Questions,
    last: Last,
}

impl Reader {
    /// Reads to the end. Returns why, unless the server just ended.
    fn read(&self, output: ChildStdout) -> Option<String> {
        let mut output = BufReader::with_capacity(1 << 16, output);
        let mut strays = 0;
        loop {
            let line = match lines::next(&mut output, MESSAGE_MAX) {
                Ok(Line::Whole(line)) => line,
                Ok(Line::Half(line)) => {
                    keep(&self.last, &cut(&line));
                    return Some("the connection ended within a message".to_owned());
                }
                Ok(Line::TooLong) => {
                    let most = MESSAGE_MAX >> 20;
                    return Some(format!("it sent a message of more than {most} MiB"));
                }
                Ok(Line::End) => return None,
                Err(error) => return Some(error.to_string()),
            };
            let message = match protocol::envelope(&line) {
                Envelope::Notice(Notice::Other) => continue,
                Envelope::Notice(notice) => Incoming::Notice(notice),
                Envelope::Answer(number, error) => match self.answer(number, error, &line) {
                    Some(message) => message,
                    None => continue,
                },
                Envelope::Stray if line.trim_ascii().is_empty() => continue,
                Envelope::Stray => {
                    strays += 1;
                    if strays > STRAYS_MAX {
                        return Some("it does not speak the monitoring protocol".to_owned());
                    }
                    let text = cut(&line);
                    keep(&self.last, &text);
                    Incoming::Said(text)
                }
            };
            drop(line);
            if self.report.send(message).is_err() {
                return None;
            }
        }
    }

    /// What an answer is an answer to; `None` if nothing was asked.
    fn answer(&self, number: u64, error: Option<String>, line: &[u8]) -> Option<Incoming> {
        let pending = self.pending.lock().remove(&number)?;
        Some(match pending.question {
            None => Incoming::Greeting(match error {
                Some(error) => Err(error),
                None => protocol::result(line),
            }),
            Some(question) => {
                let answer = match error {
                    Some(error) => Err(error),
                    None => protocol::answer(&question, line),
                };
                Incoming::Answer(question, answer, pending.since.elapsed())
            }
        })
    }

    fn end(&self, why: Option<String>) {
        // The last line says most, and where there is little room, the others do not show.
        let last: Vec<String> = self.last.lock().iter().rev().cloned().collect();
        let why = match (why, last.is_empty()) {
            (Some(why), _) => why,
            (None, false) => format!("the connection ended: {}", last.join("; ")),
            (None, true) => "the connection ended".to_owned(),
        };
        let _ = self.report.send(Incoming::End(why));
    }
}

/// The start of a line that is not a message, for a person.
fn cut(line: &[u8]) -> String {
    let start = line.get(..line.len().min(TEXT_MAX as usize));
    lines::text(start.unwrap_or_default())
}
