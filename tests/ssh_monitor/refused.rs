//! What is not experimaestro's monitor server, and workspaces that are not there.

use crate::stage::Stage;

#[test]
fn what_is_not_a_monitor_server_says_so_and_leaves_the_terminal_as_it_was() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let greeting = r#"{"jsonrpc": "2.0", "id": 0, "result": {"protocol_version": "9.1"}}"#;
    let version = format!("sh -c \"echo '{}'; cat\"", greeting.replace('"', "\\\""));
    for (program, timeout, expected) in [
        (
            version.as_str(),
            "60",
            "speaks version 9.1 of the monitoring protocol",
        ),
        (
            "sh -c 'echo what is this >&2; exit 1'",
            "60",
            "what is this",
        ),
        (
            "sh -c 'yes'",
            "60",
            "does not speak the monitoring protocol",
        ),
        (
            "sh -c 'printf {; exit'",
            "60",
            "the connection ended within a message",
        ),
        (
            "sh -c 'cat >/dev/null'",
            "0.5",
            "has not answered within 0.5 s",
        ),
        ("/missing", "60", "not found"),
    ] {
        let arguments = ["--remote-xpm", program, "--request-timeout", timeout];
        let mut terminal = stage.start(&arguments);
        terminal.wait_for(expected);
        assert_eq!(terminal.end().code(), Some(1), "{program}");
        assert!(terminal.is_restored(), "{program}");
    }
}

#[test]
fn a_directory_that_is_no_workspace_is_named() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let mut terminal = stage.start(&["127.0.0.1", "/missing/'here'"]);
    terminal.wait_for("/missing/'here'");
    assert_eq!(terminal.end().code(), Some(1));
}
