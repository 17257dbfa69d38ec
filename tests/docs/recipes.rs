//! The recipes and the commands of the README do what they say.

use std::fs;

use crate::blocks;
use crate::home::{Home, JOB, OTHER, TRAIN};

/// The recipes in the order in which they can follow each other, each checked by what it is for.
#[test]
fn the_recipes_do_what_they_say() {
    let home = Home::new();
    let follow = |heading: &str, number: usize| {
        home.does(&home.placed(&blocks("recipes", heading, "sh")[number]));
    };
    let job = home.path(TRAIN).join(JOB);
    let (free, purge) = ("Free my fast disk", "Restore after a purge");
    let (disk, delete) = ("Move an archive to another disk", "Delete a job for good");

    home.does("xpmfs mount -w nlp");
    follow(free, 1);
    assert!(
        home.location(JOB).starts_with("backup:"),
        "{}",
        home.location(JOB)
    );
    assert_eq!(
        fs::read_to_string(job.join("train.out")).unwrap(),
        "loss 0.1\n"
    );

    follow(purge, 0);
    assert_eq!(home.location(JOB), "primary");
    fs::remove_file(job.join("train.out")).unwrap();
    follow(purge, 1);
    assert_eq!(
        fs::read_to_string(job.join("train.out")).unwrap(),
        "loss 0.1\n"
    );

    home.does("xpmfs jobs archive --all -w nlp");
    follow(disk, 0);
    follow(disk, 1);
    home.does("rm -r slow/backup && xpmfs jobs verify --all -w nlp");
    assert!(
        fs::read_to_string(home.settings())
            .unwrap()
            .contains("/new/backup/nlp")
    );
    home.does("xpmfs umount -w nlp && mkdir -p slow/backup && mv new/backup/nlp slow/backup/nlp");
    home.does("sed -i 's|/new/backup|/slow/backup|' .config/experimaestro/settings.yaml && xpmfs mount -w nlp");

    follow(delete, 0);
    assert!(!job.exists());
    follow(delete, 1);
    home.does("xpmfs jobs archive --all -w nlp && xpmfs jobs recover --all -w nlp && xpmfs jobs verify --all -w nlp");
    let left = home.does(&format!("find . -name '*{JOB}*'"));
    assert_eq!(left, "", "something of the job is left");
    home.does("xpmfs umount -w nlp");

    let mut settings = fs::read_to_string(home.settings()).unwrap();
    settings += &home.placed(&blocks("recipes", free, "yaml")[0]);
    fs::write(home.settings(), settings).unwrap();
    follow(free, 0);
    assert!(home.path(TRAIN).join(OTHER).is_symlink());
    home.does("mkdir -p new/moved && mv slow/moved/nlp new/moved/nlp");
    follow(disk, 2);
    home.does("sed -i 's|/slow/moved|/new/moved|' .config/experimaestro/settings.yaml");
    home.does("xpmfs jobs archive --all -w nlp && xpmfs mount -w nlp");
    assert!(
        home.location(OTHER).starts_with("move:"),
        "{}",
        home.location(OTHER)
    );
    home.does("xpmfs umount -w nlp");
}

#[test]
fn the_commands_of_the_readme_work_in_a_fresh_home() {
    let home = Home::new();
    fs::remove_dir_all(home.path(".config")).unwrap();
    fs::remove_dir_all(home.path("experiments")).unwrap();
    let readme = |heading: &str, number: usize| blocks("../README", heading, "sh")[number].clone();
    home.does(&readme("Install", 1));
    assert!(home.path(".local/share/man/man1/xpmfs-mount.1").is_file());
    let completions = home.path(".local/share/bash-completion/completions/xpmfs");
    assert!(fs::metadata(completions).unwrap().len() > 0);
    let status = home.does(&readme("Set up", 0));
    assert!(status.contains("experiments/nlp (in place)"), "{status}");

    fs::create_dir_all(home.path(".config/experimaestro")).unwrap();
    let settings = home.placed(&blocks("../README", "Set up", "yaml")[0]);
    fs::write(home.settings(), settings).unwrap();
    home.does("xpmfs settings check");
}

#[test]
fn the_batch_script_works_in_two_jobs_at_once() {
    let home = Home::new();
    let script = blocks("mounting", "A mount that several programs share", "sh")[0].clone();
    let plan =
        "for try in $(seq 20); do test -d experiments/nlp/jobs/my.module.train/only-archived; done";
    let script = script.replace("python experiment.py", plan);
    fs::write(home.path("job.sh"), script).unwrap();
    home.does("mkdir -p slow/backup/nlp/jobs/my.module.train/only-archived");
    home.does("bash -eu job.sh & first=$!; bash -eu job.sh & wait $first; wait $!");
    let left = home.does("xpmfs status -w nlp");
    assert!(left.contains("Nothing is mounted"), "{left}");
}

/// Adds a run of the first job, with a partial, that ended two hours ago.
pub(crate) fn add_run(home: &Home) {
    home.does(&format!(
        "cd experiments/nlp && run=experiments/tune/20261122_095106 && mkdir -p $run partials/t/ck/1f && touch experiments/tune/lock \
         && echo '{{\"status\": \"done\"}}' > $run/status.json && echo weights > partials/t/ck/1f/model.pt \
         && echo '{{\"job_id\": \"{JOB}\", \"task_id\": \"my.module.train\"}}' > $run/jobs.jsonl \
         && ln -s 20261122_095106 experiments/tune/current \
         && ln -s $PWD/partials/t/ck/1f jobs/my.module.train/{JOB}/.experimaestro/partial"
    ));
    home.does(&format!(
        "cd experiments/nlp/jobs/my.module.train/{JOB}/.experimaestro && mkdir partials && mv partial partials/ck && sleep 2.2"
    ));
}

#[test]
fn the_recipe_for_a_lost_disk_brings_everything_back() {
    let home = Home::new();
    add_run(&home);
    home.does("xpmfs archive -w nlp && rm -rf experiments/nlp");
    home.does(&home.placed(&blocks("recipes", "Restore after losing the whole disk", "sh")[0]));
    for path in [
        "experiments/tune/current/jobs.jsonl",
        "partials/t/ck/1f/model.pt",
        "jobs/my.module.train/0defac9f07c4/train.done",
        ".__experimaestro__",
    ] {
        assert!(home.path("experiments/nlp").join(path).exists(), "{path}");
    }
}

#[test]
fn the_commands_on_jobs_and_orphans_work() {
    let home = Home::new();
    add_run(&home);
    home.does(&format!("touch {TRAIN}/{JOB}/train.err"));
    for command in blocks("listing", "", "sh")[0].lines() {
        home.does(command);
    }
    let listed = home.does("xpmfs jobs list -w nlp --fullpath");
    assert!(listed.contains(&format!("{TRAIN}/{JOB}")), "{listed}");
}
