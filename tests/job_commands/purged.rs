//! An archived copy never gives way to less than it holds.

use std::fs::{self, FileTimes};

use super::stage::{
    Stage, assert_tree, duplicate, job_id, moment, run_again, said, set_time, whole, write_job,
};

/// A workspace whose folder has the job, which the primary has, too.
fn archived(mode: &'static str) -> Stage {
    let modes: &[&str] = match mode {
        "move" => &["move"],
        _ => &["backup"],
    };
    let stage = Stage::new(modes);
    write_job(&stage.job());
    let other = Stage::new(&["backup"]);
    duplicate(&stage.primary(), &other.primary());
    other.archive();
    duplicate(&other.folder("backup"), &stage.folder(mode));
    stage
}

/// Something that is done to the job in the primary.
type Change<'a> = &'a dyn Fn(&Stage);

fn touch(stage: &Stage, name: &str, time: std::time::SystemTime) {
    let file = fs::File::options()
        .append(true)
        .open(stage.job().join(name))
        .unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn what_a_purge_left_is_not_archived() {
    for mode in ["backup", "move"] {
        for purged in [
            &["data/model.bin"][..],
            &["best.bin"],
            &["train.out", "uv.lock", "params.json"],
            &["latest"],
        ] {
            let stage = archived(mode);
            let before = whole(&stage.archived(mode)).unwrap();
            for name in purged {
                fs::remove_file(stage.job().join(name)).unwrap();
            }
            let left = whole(&stage.job()).unwrap();
            for arguments in [&["archive", "--all"][..], &["archive", &job_id()]] {
                let output = stage.jobs(arguments);
                assert!(output.status.success(), "{}", said(&output));
                assert!(said(&output).contains("skipped in"), "{}", said(&output));
                assert_tree("the copy", &before, whole(&stage.archived(mode)).as_ref());
                assert!(!stage.job().is_symlink());
                assert_tree("the job", &left, whole(&stage.job()).as_ref());
            }
            stage.assert_clean();
        }
    }
}

#[test]
fn an_older_state_of_a_job_is_not_archived() {
    for mode in ["backup", "move"] {
        let stage = archived(mode);
        let older = stage.top().join("older");
        duplicate(&stage.job(), &older);
        // The folder gets the newer state from elsewhere.
        let other = Stage::new(&["backup"]);
        duplicate(&older, &other.job());
        run_again(&other.job());
        other.archive();
        fs::remove_dir_all(stage.folder(mode)).unwrap();
        duplicate(&other.folder("backup"), &stage.folder(mode));
        let before = whole(&stage.archived(mode)).unwrap();
        let output = stage.jobs(&["archive", "--all"]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("skipped in"), "{}", said(&output));
        assert_tree("the copy", &before, whole(&stage.archived(mode)).as_ref());
        assert!(!stage.job().is_symlink());
        stage.assert_clean();
    }
}

#[test]
fn what_lacks_something_and_has_something_new_is_for_a_person_to_decide() {
    for mode in ["backup", "move"] {
        let stage = archived(mode);
        let before = whole(&stage.archived(mode)).unwrap();
        fs::remove_file(stage.job().join("uv.lock")).unwrap();
        fs::write(stage.job().join("note"), "new").unwrap();
        let job = whole(&stage.job()).unwrap();
        let output = stage.jobs(&["archive", "--all"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        for say in ["uv.lock", "--force", stage.folder(mode).to_str().unwrap()] {
            assert!(said(&output).contains(say), "{}", said(&output));
        }
        assert_tree("the copy", &before, whole(&stage.archived(mode)).as_ref());
        assert_tree("the job", &job, whole(&stage.job()).as_ref());
        assert!(!stage.job().is_symlink());
        stage.assert_clean();
        let output = stage.jobs(&["archive", "--force", &job_id()]);
        assert!(output.status.success(), "{}", said(&output));
        assert_tree("the copy", &job, whole(&stage.archived(mode)).as_ref());
        assert_eq!(stage.job().is_symlink(), mode == "move");
        stage.verify();
        stage.assert_clean();
    }
}

#[test]
fn what_was_run_again_or_has_changed_is_archived_again() {
    let changes: [(&str, Change<'_>); 4] = [
        ("run again", &|stage| run_again(&stage.job())),
        ("a file has more", &|stage| {
            fs::write(stage.job().join("train.out"), "more than before\nstep 4\n").unwrap();
        }),
        ("of the same size", &|stage| {
            fs::write(stage.job().join("train.out"), "STEP 1\nSTEP 2\n").unwrap();
        }),
        ("an old file is new here", &|stage| {
            fs::write(stage.job().join("data/new"), "x").unwrap();
            touch(stage, "data/new", moment(0));
        }),
    ];
    for mode in ["backup", "move"] {
        for (what, change) in &changes {
            let stage = archived(mode);
            change(&stage);
            let job = whole(&stage.job()).unwrap();
            stage.archive();
            assert_tree(what, &job, whole(&stage.archived(mode)).as_ref());
            assert_eq!(stage.job().is_symlink(), mode == "move");
            stage.verify();
            stage.assert_clean();
        }
    }
}

#[test]
fn a_folder_whose_disk_is_not_mounted_is_not_written_to() {
    for mode in ["backup", "move"] {
        let stage = Stage::new(if mode == "move" {
            &["move"]
        } else {
            &["backup"]
        });
        write_job(&stage.job());
        stage.archive();
        // All that is left is the directory where the disk was mounted. The workspace has another job now.
        let (folder, disk) = (stage.folder(mode), stage.top().join("disk"));
        fs::rename(&folder, &disk).unwrap();
        fs::create_dir(&folder).unwrap();
        let other = stage.job().with_file_name("other");
        write_job(&other);
        let job = whole(&other).unwrap();
        let output = stage.jobs(&["archive", "--all"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        for say in ["see whether its disk is mounted", folder.to_str().unwrap()] {
            assert!(said(&output).contains(say), "{}", said(&output));
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert_tree("the job", &job, whole(&other).as_ref());
        assert!(!other.is_symlink());
        fs::remove_dir(&folder).unwrap();
        fs::rename(&disk, &folder).unwrap();
        stage.archive();
        let there = stage.archived(mode).with_file_name("other");
        assert_tree("the copy", &job, whole(&there).as_ref());
        stage.assert_clean();
    }
}

/// As when it is appended to through the symlink of a moved job, which is put back then.
#[test]
fn what_was_written_into_a_copy_is_not_replaced_by_what_is_newer() {
    for mode in ["backup", "move"] {
        let stage = archived(mode);
        stage.archive();
        let held = stage.archived(mode);
        if mode == "move" {
            fs::remove_file(stage.job()).unwrap();
            duplicate(&held, &stage.job());
        }
        for (name, text) in [("train.out", "step 1\nstep 2\nthird\n"), ("note", "mine")] {
            let train = held.join("train.out");
            let (before, time) = (
                fs::read(&train).unwrap(),
                fs::metadata(&train).unwrap().modified().unwrap(),
            );
            fs::write(held.join(name), text).unwrap();
            set_time(&held.join(name), moment(500));
            fs::write(stage.job().join("train.out"), "step 1\nstep 2\nother\n").unwrap();
            touch(&stage, "train.out", moment(600));
            let output = stage.jobs(&["archive", "--all"]);
            let told = said(&output);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(told.contains(&format!("also has {name}, which")), "{told}");
            assert_eq!(fs::read_to_string(held.join(name)).unwrap(), text);
            // Whose it is not: that is the archive as it was.
            match name {
                "note" => fs::remove_file(held.join(name)).unwrap(),
                _ => {
                    fs::write(&train, before).unwrap();
                    set_time(&train, time);
                }
            }
        }
        // A new run counts, whatever is in the copy.
        fs::write(held.join("note"), "mine").unwrap();
        run_again(&stage.job());
        let job = whole(&stage.job()).unwrap();
        stage.archive();
        assert_tree("the copy", &job, whole(&held).as_ref());
        stage.verify();
    }
}
