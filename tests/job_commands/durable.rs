//! What has its name is on the disk.

use super::common::program;
use super::stage::{Stage, run_again, said, write_job};

/// A rename may reach the disk before the bytes of the file: a power cut between leaves an empty one.
#[test]
fn a_manifest_is_durable_before_it_gets_its_name() {
    if program("strace").is_none() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    for round in 0..2 {
        let log = stage.top().join("strace");
        let strace = [
            "--trace=openat,syncfs,fsync,rename,renameat,renameat2".to_owned(),
            "-o".to_owned(),
            log.to_str().unwrap().to_owned(),
        ];
        let output = stage
            .by_one_thread_at_once("archive", &strace)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let log = std::fs::read_to_string(log).unwrap();
        let at = |what: &str, also: &str| {
            let found = log
                .lines()
                .position(|line| line.contains(what) && line.contains(also));
            found.unwrap_or_else(|| panic!("{what} {also} in round {round}:\n{log}"))
        };
        let (written, renamed) = (at(".new", "O_CREAT"), at("rename", ".json"));
        let mut between = log.lines().take(renamed).skip(written);
        assert!(between.any(|line| line.contains("sync")), "{log}");
        // And the copy before both.
        assert!(at("rename", ".tmp.") < renamed, "{log}");
        stage.verify();
        if round == 0 {
            run_again(&stage.job());
        }
    }
}
