//! A symlink in the place of one of xpmfs's own directories is never followed, and the command that needs the directory names it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::stage::{Stage, duplicate, job_id, said, write_job};
use crate::tree::tree;

/// The directories, in the primary (`None`) or in the folder, and the command that needs them.
const OWN: [(Option<&str>, &str, &[&str]); 12] = [
    (None, ".xpmfs", &["release", "--yes"]),
    (None, ".xpmfs/internal", &["release", "--yes"]),
    (None, ".xpmfs/released", &["release", "--yes"]),
    (None, ".xpmfs/pins", &["pin"]),
    (None, ".xpmfs/pins", &["release", "--yes"]),
    (None, ".xpmfs/trash", &["delete", "--yes"]),
    (None, ".xpmfs/archive", &["delete", "--yes"]),
    (None, ".xpmfs/archive/deleted", &["delete", "--yes"]),
    (None, ".xpmfs/archive", &["archive"]),
    (Some("backup"), ".xpmfs", &["archive", "--force"]),
    (Some("backup"), ".xpmfs/manifests", &["archive", "--force"]),
    (Some("backup"), ".xpmfs/trash", &["delete", "--yes"]),
];

#[test]
fn a_symlink_in_place_of_an_own_directory_is_named_and_not_followed() {
    for (folder, name, command) in OWN {
        let stage = Stage::new(&["backup"]);
        write_job(&stage.job());
        stage.archive();
        // Makes the directories that a command makes when it needs them.
        for made in [
            &["pin"][..],
            &["unpin"],
            &["delete", "--yes"],
            &["undelete"],
        ] {
            let output = stage.jobs(&[made, &[&job_id()]].concat());
            assert!(output.status.success(), "{}", said(&output));
        }
        let location = folder.map_or(stage.primary(), |mode| stage.folder(mode));
        let own = location.join(name);
        let outside = stage.top().join("outside");
        match own.exists() {
            true => {
                duplicate(&own, &outside);
                fs::remove_dir_all(&own).unwrap();
            }
            false => fs::create_dir(&outside).unwrap(),
        }
        symlink(&outside, &own).unwrap();
        let before = tree(&outside);
        let output = stage.jobs(&[command, &[&job_id()]].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{name}, {command:?}: {text}");
        assert!(
            text.contains(own.to_str().unwrap()),
            "{name}, {command:?}: {text}"
        );
        assert_eq!(tree(&outside), before, "{name}, {command:?}: {text}");
    }
}
