//! The JSON of each command has the keys of the page.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::home::{Home, JOB};
use crate::recipes::add_run;
use crate::section;

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
    assert_eq!(
        listed("xpmfs reload -w nlp", "reload", ["workspace", "result"]),
        ["nlp reloaded"]
    );
    let status = home.json("xpmfs status -w nlp");
    let tables = documented("status");
    assert_keys(&status, &tables[0]);
    let mount = &status["mounts"][0];
    assert_keys(mount, &tables[1]);
    let mut location = tables[2].clone();
    location.remove("hidden");
    location.remove("purged");
    location.remove("trash");
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
    let shown = home.json("xpmfs settings show");
    assert_keys(&shown, &documented("settings show")[0]);
    assert_keys(&shown["origins"][0], &documented("settings show")[1]);
    let migrated = home.json("xpmfs settings migrate");
    assert_keys(&migrated, &documented("settings migrate")[0]);
    home.does("echo 'unknown: 1' >> .config/experimaestro/settings.yaml");
    let findings = home.json("xpmfs settings check");
    assert_keys(&findings[0], &documented("settings check")[0]);
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
    let jobs = all("xpmfs jobs list -w nlp --size", "jobs list");
    assert_eq!(jobs.as_array().unwrap().len(), 2, "{jobs}");
    let orphans = all("xpmfs orphans -w nlp --size --no-folders", "orphans");
    assert_eq!(orphans.as_array().unwrap().len(), 2, "{orphans}");
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

    home.does("mkdir -p other && echo 'workspaces: [{id: nlp, path: ~/experiments/nlp}, {id: other, path: ~/other}]' > two.yaml");
    let copy = "xpmfs --settings two.yaml experiments copy tune current --from-workspace nlp --to-workspace other -y";
    let copied = home.json(copy);
    let tables = documented("experiments copy");
    assert_keys(&copied, &tables[0]);
    assert_eq!(copied["jobs_copied"], 1, "{copied}");
    assert_keys(&copied["jobs"][0], &tables[1]);
}

#[test]
fn the_json_of_deletions_has_the_keys_of_the_page() {
    let home = Home::new();
    home.does("xpmfs jobs archive --all -w nlp");
    let all = |command: &str, heading: &str, result: &str| {
        let json = home.json(command);
        let entries = json.as_array().unwrap();
        assert_eq!(entries.len(), 1, "{json}");
        assert_keys(&entries[0], &documented(heading)[0]);
        if !result.is_empty() {
            assert_eq!(entries[0]["result"], result, "{json}");
        }
        json
    };
    all(
        "xpmfs jobs delete -w nlp 0def",
        "jobs delete",
        "would_delete",
    );
    let deleted = all(
        "xpmfs jobs delete -w nlp 0def --yes",
        "jobs delete",
        "deleted",
    );
    for copy in deleted[0]["copies"].as_array().unwrap() {
        assert_keys(copy, &documented("jobs delete")[1]);
        assert_eq!(copy["state"], "trash", "{copy}");
    }
    let listed = all("xpmfs trash list -w nlp", "trash list", "");
    assert_eq!(listed[0]["job"], format!("my.module.train/{JOB}"));
    assert_eq!(listed[0]["deleted"], deleted[0]["deleted"]);
    assert_eq!(listed[0]["copies"].as_array().unwrap().len(), 2);
    all(
        "xpmfs jobs undelete -w nlp 0def",
        "jobs undelete",
        "undeleted",
    );
    home.does("xpmfs jobs delete -w nlp 0def --yes");
    all("xpmfs trash empty -w nlp", "trash empty", "would_remove");
    all("xpmfs trash empty -w nlp --yes", "trash empty", "removed");
    assert_eq!(
        home.json("xpmfs trash list -w nlp")
            .as_array()
            .unwrap()
            .len(),
        0
    );
}
