//! Servers that send garbage, half a line, a gigabyte without a newline, or nothing.

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::model::RemoteQuestion;
use super::session::{Incoming, MonitorError, Session};

/// Longer than any of these servers needs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The answer to the first question.
const GREETING: &str =
    r#"read line; echo '{"jsonrpc": "2.0", "id": 0, "result": {"protocol_version": "2.0"}}'"#;

/// Connects to a server that is a shell script. Also returns what it printed.
fn open(script: &str, timeout: Duration) -> (Result<Session, MonitorError>, Vec<String>) {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = RefCell::new(Vec::new());
    let session = Session::of(
        command.spawn().unwrap(),
        "cluster",
        timeout,
        &|text| said.borrow_mut().push(text),
        &AtomicBool::new(false),
    );
    (session, said.into_inner())
}

fn refusal(script: &str) -> String {
    let (session, _) = open(script, PATIENCE);
    session.err().map(|error| error.to_string()).unwrap()
}

/// Why an open connection ends.
fn end(session: &Session) -> String {
    loop {
        if let Incoming::End(why) = session.incoming.recv_timeout(PATIENCE).unwrap() {
            return why;
        }
    }
}

#[test]
fn a_server_that_sends_garbage_is_shown_and_left() {
    let (session, said) = open(
        &format!("echo hello; printf '\\033[2J\\377\\n'; {GREETING}"),
        PATIENCE,
    );
    assert!(session.is_ok());
    assert_eq!(said, ["hello", "\u{1b}[2J\u{fffd}"]);
    assert_eq!(
        refusal("yes"),
        "cluster: it does not speak the monitoring protocol"
    );
    let (session, _) = open(&format!("{GREETING}; yes '{{}}'"), PATIENCE);
    assert_eq!(
        end(&session.ok().unwrap()),
        "it does not speak the monitoring protocol"
    );
}

#[test]
fn half_a_message_is_none() {
    let half = "printf '{\"jsonrpc\": \"2.0\", \"id\": 0, \"resu'";
    assert_eq!(
        refusal(half),
        "cluster: the connection ended within a message"
    );
    let (session, _) = open(&format!("{GREETING}; {half}"), PATIENCE);
    assert_eq!(
        end(&session.ok().unwrap()),
        "the connection ended within a message"
    );
}

#[test]
fn a_gigabyte_without_a_newline_is_not_kept() {
    let much = "head -c 1073741824 /dev/zero";
    assert_eq!(
        refusal(much),
        "cluster: it sent a message of more than 128 MiB"
    );
    let (session, _) = open(
        &format!("{GREETING}; head -c 4194304 /dev/zero >&2; exec {much}"),
        PATIENCE,
    );
    let session = session.ok().unwrap();
    assert_eq!(end(&session), "it sent a message of more than 128 MiB");
}

#[test]
fn silence_ends_after_the_time_that_was_given() {
    let (session, _) = open("exec cat >/dev/null", Duration::from_millis(200));
    let why = session.err().unwrap().to_string();
    assert!(
        why.starts_with("cluster has not answered within 0.2 s"),
        "{why}"
    );
}

#[test]
fn another_version_is_named() {
    for (version, shown) in [
        ("\"3.1\"", "3.1"),
        ("1", "1"),
        ("null", "null"),
        ("{\"a\": 1}", "{\"a\":1}"),
    ] {
        let greeting = GREETING.replacen("\"2.0\"}", &format!("{version}}}"), 1);
        let why = refusal(&greeting);
        let expected = format!("cluster speaks version {shown} of the monitoring protocol");
        assert!(why.starts_with(&expected), "{why}");
    }
}

#[test]
fn the_end_of_a_server_has_the_reason_that_it_printed() {
    let why = refusal("echo /x is not a working directory; echo Traceback: no >&2; exit 1");
    assert!(why.contains("/x is not a working directory"), "{why}");
    assert!(why.contains("Traceback: no"), "{why}");
    let error = r#"read line; echo '{"jsonrpc": "2.0", "id": 0, "error": {"code": 1, "message": "no workspace"}}'"#;
    assert_eq!(refusal(error), "cluster: no workspace");
    let shutdown = r#"echo '{"jsonrpc": "2.0", "method": "notification.shutdown", "params": {"reason": "error", "message": "gone"}}'"#;
    assert_eq!(refusal(shutdown), "cluster: gone");
}

#[test]
fn a_server_that_floods_or_does_not_read_can_be_left() {
    let event = r#"{"jsonrpc": "2.0", "method": "notification.state_event", "params": {"event_type": "RunUpdatedEvent"}}"#;
    let (session, _) = open(&format!("{GREETING}; exec yes '{event}'"), PATIENCE);
    let mut session = session.ok().unwrap();
    // What is asked is kept up to a limit, and then refused.
    let mut asked = 0;
    while session.ask(RemoteQuestion::Jobs, false) {
        asked += 1;
        assert!(asked < 100_000);
    }
    assert!(matches!(
        session.incoming.recv_timeout(PATIENCE),
        Ok(Incoming::Notice(_))
    ));
    // It ends although the server does not.
    drop(session);
}

#[test]
fn an_action_without_an_answer_is_given_up() {
    let (session, _) = open(&format!("{GREETING}; exec cat >/dev/null"), PATIENCE);
    let mut session = session.ok().unwrap();
    let job = crate::workspace::jobs::JobId::new("t", "a").unwrap();
    let kill = RemoteQuestion::Kill(job);
    assert!(session.ask(kill.clone(), false) && session.ask(RemoteQuestion::Jobs, false));
    assert!(session.give_up(PATIENCE).is_empty());
    assert_eq!(session.open_actions(), std::slice::from_ref(&kill));
    assert_eq!(session.give_up(Duration::ZERO), [kill]);
    assert!(session.is_pending(&RemoteQuestion::Jobs) && session.waits_since().is_some());
}
