//! A file or a symlink in place of a directory of `.xpmfs/archive`: nothing is archived, and the command names it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::stage::{Stage, assert_tree, said, whole, write_job};

/// Puts something else in the place of a directory.
fn damage(directory: &Path, with_symlink: bool) {
    fs::remove_dir_all(directory).unwrap();
    match with_symlink {
        true => symlink("/nowhere", directory).unwrap(),
        false => fs::write(directory, "").unwrap(),
    }
}

#[test]
fn without_the_memory_of_folders_no_folder_is_written_to() {
    for mode in ["backup", "move"] {
        for with_symlink in [false, true] {
            let stage = Stage::new(&[mode]);
            write_job(&stage.job());
            stage.archive();
            let memory = stage.primary().join(".xpmfs/archive/folders");
            damage(&memory, with_symlink);
            // Its disk is not mounted: its mount point is empty.
            let folder = stage.folder(mode);
            fs::rename(&folder, stage.top().join("disk")).unwrap();
            fs::create_dir(&folder).unwrap();
            let other = stage.job().with_file_name("other");
            write_job(&other);
            let job = whole(&other).unwrap();
            let output = stage.jobs(&["archive", "--all"]);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            let memory = memory.to_str().unwrap();
            assert!(said(&output).contains(memory), "{}", said(&output));
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
            assert_tree("the job", &job, whole(&other).as_ref());
        }
    }
}

#[test]
fn without_the_memory_of_recovered_jobs_none_is_moved_or_recovered() {
    for with_symlink in [false, true] {
        let stage = Stage::new(&["move"]);
        write_job(&stage.job());
        stage.archive();
        let hash = stage
            .job()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let output = stage.jobs(&["recover", &hash]);
        assert!(output.status.success(), "{}", said(&output));
        let memory = stage.primary().join(".xpmfs/archive/kept");
        damage(&memory, with_symlink);
        for command in [["archive", "--all"], ["recover", &hash]] {
            let output = stage.jobs(&command);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{command:?}: {}",
                said(&output)
            );
            let memory = memory.to_str().unwrap();
            assert!(
                said(&output).contains(memory),
                "{command:?}: {}",
                said(&output)
            );
            assert!(!stage.job().is_symlink(), "{command:?}");
        }
    }
}
