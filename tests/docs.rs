//! The examples of the pages in docs and of the README: the commands run, the JSON has the keys that are listed, the links lead somewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const TRAIN: &str = "experiments/nlp/jobs/my.module.train";
const JOB: &str = "0defac9f07c4";
const OTHER: &str = "18fe96fb701a";

/// A fresh home directory with the settings of the recipes, and two finished jobs.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(TempDir::with_prefix("xpmfs-test-").unwrap());
        for directory in ["slow/backup/nlp/jobs", "slow/moved/nlp/jobs", "new"] {
            fs::create_dir_all(home.path(directory)).unwrap();
        }
        for hash in [JOB, OTHER] {
            let job = home.path(TRAIN).join(hash);
            fs::create_dir_all(job.join(".experimaestro")).unwrap();
            fs::write(job.join("train.out"), "loss 0.1\n").unwrap();
            fs::write(
                job.join(".experimaestro/status.json"),
                r#"{"state": "done"}"#,
            )
            .unwrap();
            fs::write(job.join("train.done"), "").unwrap();
        }
        fs::write(home.path("experiments/nlp/.__experimaestro__"), "").unwrap();
        let settings = home.settings();
        fs::create_dir_all(settings.parent().unwrap()).unwrap();
        fs::write(settings, home.placed(&blocks("recipes", "", "yaml")[0])).unwrap();
        // The jobs have settled.
        home.does("find experiments/nlp/jobs -exec touch -h -d '2 hours ago' {} +");
        home
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn settings(&self) -> PathBuf {
        self.path(".config/experimaestro/settings.yaml")
    }

    /// An example, with the disks that it names below the home directory.
    fn placed(&self, example: &str) -> String {
        let home = self.0.path().to_str().unwrap();
        ["/slow/", "/new/"]
            .iter()
            .fold(example.to_owned(), |text, disk| {
                text.replace(disk, &format!("{home}{disk}"))
            })
    }

    fn tries(&self, script: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_xpmfs")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("timeout");
        command
            .args(["60", "bash", "-euc", script])
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env("PATH", path)
            .stdin(Stdio::null());
        for variable in [
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "XDG_RUNTIME_DIR",
        ] {
            command.env_remove(variable);
        }
        command.output().unwrap()
    }

    fn does(&self, script: &str) -> String {
        let output = self.tries(script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {said}");
        String::from_utf8(output.stdout).unwrap() + &said
    }

    fn json(&self, command: &str) -> Value {
        let output = self.tries(&format!("{command} --json"));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{command}: {error}: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Where the mount serves a job from.
    fn location(&self, hash: &str) -> String {
        let job = self.path(TRAIN).join(hash);
        let mut label = vec![0; 4096];
        let length = rustix::fs::getxattr(job, "user.xpmfs.location", &mut label).unwrap();
        label.truncate(length);
        String::from_utf8(label).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.tries("xpmfs umount -q --lazy ~/experiments/nlp");
    }
}

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The section of a page in docs below a heading; the whole page if none is given.
fn section(name: &str, heading: &str) -> String {
    let page = page(&format!("docs/{name}.md"));
    if heading.is_empty() {
        return page;
    }
    let start = format!("\n## {heading}\n");
    let (_, after) = page
        .split_once(&start)
        .unwrap_or_else(|| panic!("{name}.md lacks {heading}"));
    after.split("\n## ").next().unwrap().to_owned()
}

/// The examples of a section in a language.
fn blocks(name: &str, heading: &str, language: &str) -> Vec<String> {
    let text = section(name, heading);
    let fence = format!("```{language}\n");
    let parts = text.split(fence.as_str()).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_owned())
        .collect()
}

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

/// The keys of the tables of a section of docs/json.md that list keys, one set for each.
fn documented(heading: &str) -> Vec<BTreeSet<String>> {
    let text = section("json", heading);
    let tables = text
        .split("| key | type | meaning |\n| --- | --- | --- |\n")
        .skip(1);
    let rows = |table: &str| -> BTreeSet<String> {
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| {
            let cell = row.split('|').nth(1).unwrap().trim().to_owned();
            cell.split(", ")
                .map(|name| name.trim_matches('`').to_owned())
                .collect::<Vec<_>>()
        });
        names.collect()
    };
    tables.map(rows).collect()
}

#[track_caller]
fn assert_keys(entry: &Value, expected: &BTreeSet<String>) {
    let keys: BTreeSet<String> = entry.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, *expected, "{entry}");
}

#[test]
fn the_json_has_the_keys_of_the_page() {
    let home = Home::new();
    home.does("mkdir -p experiments/nlp/jobs/my.module.train/2aaa experiments/nlp/jobs/my.module.train/3bbb");
    home.does("touch -d '2 hours ago' experiments/nlp/jobs/my.module.train/3bbb/train.done");
    home.does("xpmfs jobs opt-out 3bbb -w nlp");
    let key = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("null").to_owned();
    // What each entry of a list says, in any order; each must have every key.
    let listed = |command: &str, heading: &str, names: [&str; 2]| {
        let json = home.json(command);
        let entries = json.as_array().unwrap();
        entries
            .iter()
            .for_each(|entry| assert_keys(entry, &documented(heading)[0]));
        let said = entries
            .iter()
            .map(|entry| names.map(|name| key(entry, name)).join(" "));
        let mut said: Vec<String> = said.collect();
        said.sort();
        said
    };
    let archive = "jobs archive";
    let all = "xpmfs jobs archive -w nlp --all";
    assert_eq!(
        listed(all, archive, ["result", "reason"]),
        ["copied null", "copied null", "not_archived opted_out"]
    );
    assert_eq!(
        listed(all, archive, ["result", "reason"]),
        ["not_archived opted_out", "present null", "present null"]
    );
    let named = "xpmfs jobs archive -w nlp 2aaa";
    assert_eq!(
        listed(named, archive, ["result", "reason"]),
        ["not_archived unfinished"]
    );
    let folder = format!("backup:{}/slow/backup/nlp", home.0.path().display());
    assert_eq!(
        listed(
            "xpmfs jobs archive -w nlp 0def",
            archive,
            ["result", "folder"]
        ),
        [format!("present {folder}")]
    );

    home.does("rm -r experiments/nlp/jobs/my.module.train/0def*");
    let recover = "xpmfs jobs recover -w nlp my.module.train/0def";
    assert_eq!(
        listed(recover, "jobs recover", ["result", "folder"]),
        [format!("recovered {folder}")]
    );
    assert_eq!(
        listed(recover, "jobs recover", ["result", "folder"]),
        ["present null"]
    );

    home.does("echo more >> slow/backup/nlp/jobs/my.module.train/0defac9f07c4/train.out");
    let verify = "xpmfs jobs verify -w nlp --all";
    assert_eq!(
        listed(verify, "jobs verify", ["result", "why"]),
        ["damaged null", "ok null"]
    );
    let verified = home.json("xpmfs jobs verify -w nlp 0def");
    assert_eq!(verified[0]["differences"][0]["kind"], "size", "{verified}");
    assert_eq!(
        listed(
            "xpmfs jobs verify -w nlp 2aaa",
            "jobs verify",
            ["result", "folder"]
        ),
        ["absent null"]
    );

    assert_eq!(
        listed(
            "xpmfs jobs release -w nlp 18fe 2aaa",
            "jobs release",
            ["result", "reason"]
        ),
        ["kept unfinished", "would_release null"]
    );
    let place = "xpmfs jobs where -w nlp 0def";
    assert_eq!(
        listed(place, "jobs where", ["job", "served"]),
        [format!("my.module.train/{JOB} primary")]
    );
    let copies = home.json(place)[0]["copies"].take();
    for copy in copies.as_array().unwrap() {
        assert_keys(copy, &documented("jobs where")[1]);
    }
    let holder = format!(
        "xpmfs mount --shared --holder pid:{} -w nlp",
        std::process::id()
    );
    home.does(&holder);
    let status = home.json("xpmfs status -w nlp");
    let tables = documented("status");
    assert_keys(&status, &tables[0]);
    let mount = &status["mounts"][0];
    assert_keys(mount, &tables[1]);
    let mut location = tables[2].clone();
    location.remove("hidden");
    location.remove("purged");
    location.remove("why");
    assert_keys(&mount["locations"][1], &location);
    assert_keys(&mount["archive"], &tables[3]);
    assert_keys(&mount["archive"]["folders"][0], &tables[4]);
    assert_keys(&mount["archive"]["experiments"][0], &tables[5]);
    assert_eq!(mount["holders"].as_array().unwrap().len(), 1, "{mount}");
    assert_keys(&mount["holders"][0], tables.last().unwrap());
    let damaged = &mount["archive"]["damaged"][0];
    assert_eq!(damaged["folder"], folder, "{damaged}");
    assert!(mount["since"].as_str().unwrap().ends_with('Z'), "{mount}");
    home.does(&holder.replace("mount --shared", "umount"));

    let workspaces = home.json("xpmfs workspaces list");
    assert_keys(&workspaces[0], &documented("workspaces list")[0]);
    assert_keys(
        &home.json("xpmfs settings path"),
        &documented("settings path")[0],
    );
    home.does("echo 'unknown: 1' >> .config/experimaestro/settings.yaml");
    let findings = home.json("xpmfs settings check");
    assert_keys(&findings[0], &documented("settings check")[0]);
}

/// Adds a run of the first job, with a partial, that ended two hours ago.
fn add_run(home: &Home) {
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
fn the_json_of_experiments_has_the_keys_of_the_page() {
    let home = Home::new();
    add_run(&home);
    let all = |command: &str, heading: &str| {
        let json = home.json(command);
        for entry in json.as_array().unwrap() {
            assert_keys(entry, &documented(heading)[0]);
        }
        json
    };
    let archived = all("xpmfs archive -w nlp", "jobs archive");
    let items = archived
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["item"]);
    let items: Vec<&Value> = items.filter(|item| item.is_string()).collect();
    assert_eq!(items, ["partials/t/ck/1f", "tune/20261122_095106"]);
    let verified = all("xpmfs jobs verify --all -w nlp", "jobs verify");
    let is_run = |entry: &&Value| entry["item"] == "tune/20261122_095106";
    let run = verified.as_array().unwrap().iter().find(is_run).unwrap();
    assert_eq!(run["result"], "ok");
    home.does("rm -r experiments/nlp/experiments experiments/nlp/partials");
    let list = all("xpmfs experiments list -w nlp", "experiments list");
    assert_eq!(list[0]["state"], "done");
    let runs = all("xpmfs experiments runs tune -w nlp", "experiments runs");
    assert_eq!(
        runs[0]["locations"][0],
        format!("backup:{}/slow/backup/nlp", home.0.path().display())
    );
    let recovered = all(
        "xpmfs experiments recover tune -w nlp",
        "experiments recover",
    );
    assert_eq!(recovered[0]["result"], "recovered");
    assert_eq!(recovered[1]["item"], "partials/t/ck/1f");
}

/// The anchor of a heading, as the renderers of Markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn the_links_of_the_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![
        root.join("README.md"),
        root.join("CONTRIBUTING.md"),
        root.join("CHANGELOG.md"),
    ];
    pages.extend(
        fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                _ => page.parent().unwrap().join(file),
            };
            let target = fs::read_to_string(&target)
                .unwrap_or_else(|error| panic!("{}: {link}: {error}", page.display()));
            let mut headings = target.lines().filter(|line| line.starts_with('#'));
            let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
            assert!(heading.is_empty() || found, "{}: {link}", page.display());
        }
    }
}
