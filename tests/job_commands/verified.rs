//! `jobs verify`, and copies that are damaged, incomplete or without a manifest.

use std::fs::{self, OpenOptions};

use crate::stage::{Stage, job_id, said, write_job};

#[test]
fn a_copy_with_a_manifest_is_recovered_before_one_without() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    stage.archive();
    let manifests = stage.folder("backup").join(".xpmfs/manifests");
    fs::remove_dir_all(manifests).unwrap();
    let done = stage.jobs(&["recover", "--json", &job_id()]);
    assert!(done.status.success(), "{}", said(&done));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        report[0]["folder"].as_str().unwrap().starts_with("move:"),
        "{report}"
    );
}

#[test]
fn a_damaged_copy_is_replaced_by_force() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    let file = stage.archived("backup").join("params.json");
    let (mut bytes, time) = (
        fs::read(&file).unwrap(),
        fs::metadata(&file).unwrap().modified().unwrap(),
    );
    bytes[0] ^= 1;
    fs::write(&file, bytes).unwrap();
    OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let verified = stage.jobs(&["verify", "--all"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    let forced = stage.jobs(&["archive", "--force", &job_id()]);
    assert!(forced.status.success(), "{}", said(&forced));
    stage.verify();
}

#[test]
fn to_verify_a_folder_that_is_not_there_fails() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    stage.verify();
    // As an empty mount point is.
    fs::rename(stage.folder("backup"), stage.top().join("elsewhere")).unwrap();
    fs::create_dir(stage.folder("backup")).unwrap();
    let verified = stage.jobs(&["verify", "--all"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(said(&verified).contains("mounted"), "{}", said(&verified));
}

#[test]
fn verify_says_which_of_the_two_has_what_the_other_lacks() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    fs::write(stage.job().join("new"), "").unwrap();
    fs::write(stage.job().join("train.out"), "other").unwrap();
    fs::remove_file(stage.job().join("latest")).unwrap();
    let output = stage.jobs(&["verify", "--all"]);
    assert_eq!(output.stdout, b"", "the copy is right");
    let summary = "1 copy OK, 0 damaged, 1 differs from the workspace's job: -v shows how";
    assert!(said(&output).contains(summary), "{}", said(&output));
    let output = stage.jobs(&["verify", "--all", "-v"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for line in [
        "  the workspace has new, which the copy lacks\n",
        "  the copy has latest, which the workspace lacks\n",
        "  in the workspace, train.out has 5 bytes in place of 14\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_copy_without_manifest_and_marker_is_incomplete() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    fs::remove_dir_all(stage.folder("backup").join(".xpmfs")).unwrap();
    let verified = stage.jobs(&["verify", "--all", "-v"]);
    let text = String::from_utf8_lossy(&verified.stdout);
    assert!(
        text.contains(": no manifest, the same as in the workspace ("),
        "{text}"
    );
    assert!(verified.status.success(), "{}", said(&verified));
    fs::remove_file(stage.archived("backup").join("train.done")).unwrap();
    let verified = stage.jobs(&["verify", "--all"]);
    let text = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{text}");
    let told = "INCOMPLETE: it has neither a manifest nor its `.done`";
    assert!(text.contains(told), "{text}");
    let said = said(&verified);
    assert!(
        said.contains("0 copies OK, 0 damaged, 1 incomplete ("),
        "{said}"
    );
    let verified = stage.jobs(&["verify", "--all", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report[0]["whole"], false);
    assert_eq!(report[0]["finished"], false);
}
