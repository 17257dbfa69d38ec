//! No command changes an archived job.

use super::*;

/// What people type. `$J` is an archived job, `$P` one in the primary, `$M` the mount.
const COMMANDS: &[&str] = &[
    "rm -rf $J",
    "rm -f $J/model.bin",
    "rmdir $J/empty",
    "find $J -delete",
    "shred -u $J/model.bin",
    "mv $J/model.bin $J/other",
    "mv $J/model.bin $M/stolen",
    "mv $J $T/renamed",
    "mv $J $M/stolen",
    "mv $T $M/stolen",
    "mv -T $P $J",
    "mv $P/model.bin $J/",
    "mv $P/data $J/data",
    "cp $P/train.out $J/model.bin",
    "cp --remove-destination $P/train.out $J/model.bin",
    "cp -r $P/data $J/new",
    "install $P/train.out $J/new",
    "chmod -R a+x $J",
    "chown -R $(id -u):$(id -g) $J",
    "touch $J/model.bin",
    "touch $J",
    "touch -h $J/latest",
    "touch $J/new",
    "echo x > $J/model.bin",
    "echo x >> $J/model.bin",
    ": > $J/model.bin",
    ": > $J/new",
    "echo x | tee $J/train.out",
    "truncate -s 0 $J/model.bin",
    "truncate -s 20K $J/model.bin",
    "dd if=/dev/zero of=$J/model.bin bs=1 count=1 conv=notrunc",
    "fallocate -l 20K $J/model.bin",
    "fallocate -p -o 0 -l 4096 $J/model.bin",
    "ln $J/model.bin $M/link",
    "ln $P/model.bin $J/link",
    "ln -s x $J/link",
    "ln -sfn x $J/latest",
    "mkdir $J/new",
    "mkdir -p $J/data/new/deeper",
    "mkfifo $J/new",
    "mknod $J/new p",
    "setfattr -n user.new -v 1 $J/model.bin",
    "setfattr -x user.note $J/train.out",
    "setfacl -m u:1:r $J/model.bin",
    "setfacl -R -b -m u:1:rwx $J",
    "sed -i s/step/x/ $J/train.out",
    "mkdir $M/void; rsync -a --delete $M/void/ $J/; s=$?; rmdir $M/void; exit $s",
    "rsync -aI $P/ $J/",
    "tar -C $P -c data | tar -C $J -x",
    r#"py 'import os; os.truncate(J + "/model.bin", 0)'"#,
    r#"py 'import shutil; shutil.rmtree(J)'"#,
    r#"py 'import os; os.replace(P + "/model.bin", J + "/model.bin")'"#,
    r#"py 'import pathlib; pathlib.Path(J, "model.bin").write_text("")'"#,
    r#"py 'import mmap; mmap.mmap(open(J + "/model.bin", "r+").fileno(), 0)[0] = 1'"#,
    r#"py 'import mmap; f = open(J + "/model.bin"); mmap.mmap(f.fileno(), 0)[0] = 1'"#,
];

/// What such a command may say.
const EXCUSES: &[&str] = &[
    "Read-only file system",
    "Directory not empty",
    // mmap for writing of what is open for reading.
    "Permission denied",
    // Where the kernel is to check ACLs only with allow_other.
    "Operation not supported",
];

/// Runs Python with the paths as variables.
const PY: &str = r#"py() {
    /usr/bin/python3 -c 'import os, sys; M, P, J = (os.environ[v] for v in "MPJ"); exec(sys.argv[1])' "$1"
}"#;

fn shell(workspace: &Workspace, mount: &Path, job: &Path, script: &str) -> Command {
    let script = format!("{PY}\n{script}");
    let mut command = workspace.command("sh");
    command
        .args(["-c", &script])
        .env("LC_ALL", "C")
        .env("M", mount)
        .env("T", job.parent().unwrap())
        .env("P", job.with_file_name("in-primary"))
        .env("J", job);
    command
}

#[test]
fn no_command_changes_an_archived_job() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        let before = folders(workspace);
        let jobs = snapshot(&workspace.primary().join("jobs"));
        let mounted = workspace.mount_in_place();
        let mut wrong = Vec::new();
        for folder in FOLDERS {
            let job = mounted.job(TASK, &format!("in-{folder}"));
            for command in COMMANDS {
                let mut shell = shell(workspace, mounted.path(), &job, command);
                let output = shell.output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                let excused = EXCUSES.iter().any(|excuse| said.contains(excuse));
                if output.status.success() || !excused {
                    wrong.push(format!("{command}: {}, {said}", output.status));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        mounted.unmount();
        assert_same(&before, &folders(workspace));
        assert_same(&[jobs], &[snapshot(&workspace.primary().join("jobs"))]);
    });
}

#[test]
fn destroying_the_whole_view_destroys_the_primarys_jobs_alone() {
    as_everyone(|workspace| {
        for command in [
            "rm -rf $M/jobs",
            "py 'import shutil; shutil.rmtree(M + \"/jobs\", ignore_errors=True)'; exit 1",
            "cd $M && git -c safe.directory='*' init -q && \
             git -c safe.directory='*' clean -ffdxq jobs; s=$?; rm -rf .git; exit $s",
            "mkdir $M/void; rsync -a --delete $M/void/ $M/jobs/; s=$?; rmdir $M/void; exit $s",
            "find $M/jobs -delete",
            "mv $M/jobs $M/gone",
        ] {
            let task = workspace.primary().join("jobs").join(TASK);
            let _ = fs::remove_dir_all(&task);
            for folder in FOLDERS {
                let _ = fs::remove_dir_all(workspace.folder(folder).join("jobs").join(TASK));
            }
            one_job_each(workspace);
            let before = folders(workspace);
            let mounted = workspace.mount_in_place();
            let job = mounted.job(TASK, "in-use");
            let output = shell(workspace, mounted.path(), &job, command)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{command}: {output:?}");
            workspace.as_user(|| {
                let jobs = names(&mounted.path().join("jobs").join(TASK));
                let gone = !jobs.contains(&"in-primary".into());
                assert_eq!(gone, !command.starts_with("mv"), "{command}: {output:?}");
                for folder in FOLDERS {
                    let job = mounted.job(TASK, &format!("in-{folder}"));
                    assert_eq!(fs::read(job.join("data/deep/file")).unwrap(), b"deep");
                    let own = mounted.location(&job);
                    assert_eq!(own, folder, "after {command}");
                }
            });
            mounted.unmount();
            assert_same(&before, &folders(workspace));
        }
    });
}
