//! The examples of the pages in docs and of the README: the commands run, the JSON has the keys that are listed, the links
//! lead somewhere.
//!
//! - `home`: a home in which the commands are run
//! - `cluster`: what the system or a batch system mounts
//! - `recipes`, `json`, `failures`, `settings`: what the pages say, compared with what the commands do
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod failures;
mod home;
mod json;
mod recipes;
mod settings;

use std::fs;
use std::path::Path;

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
