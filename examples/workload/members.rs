//! One process, or several that start every step together.
//!
//! A member prints `ready NAME` before each step, waits for a line on its standard input, and prints `done COUNT` after it. The
//! leader lets all of them go when all are ready, and stops the clock when the last one is done.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Map, json};

use crate::Step;

/// Does the steps in this process, and prints what they took.
pub(crate) fn alone(steps: Vec<Step>) -> anyhow::Result<()> {
    let mut results = Map::new();
    for mut step in steps {
        let start = Instant::now();
        let count = (step.run)().context(step.name)?;
        record(&mut results, step.name, start.elapsed(), count);
    }
    print(results)
}

/// Does the steps as the leader says.
pub(crate) fn follow(steps: Vec<Step>) -> anyhow::Result<()> {
    let mut go = stdin().lines();
    for mut step in steps {
        tell(&format!("ready {}", step.name))?;
        go.next().context("the leader has gone")??;
        let count = (step.run)().context(step.name)?;
        tell(&format!("done {count}"))?;
    }
    Ok(())
}

/// Starts `processes` members with this process's own arguments, leads them, and prints what the steps took.
pub(crate) fn lead(processes: u32) -> anyhow::Result<()> {
    let mut members = (0..processes)
        .map(Member::start)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut results = Map::new();
    while let Some(name) = ready(&mut members)? {
        let start = Instant::now();
        for member in &mut members {
            writeln!(member.input, "go").context("a member has gone")?;
        }
        let mut total = 0;
        for member in &mut members {
            let count: u64 = member.hear("done")?.context("a member has gone")?.parse()?;
            total += count;
        }
        record(&mut results, &name, start.elapsed(), total);
    }
    // Those that are ready end when their input ends, if others have failed.
    let children: Vec<Child> = members.into_iter().map(|member| member.child).collect();
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            bail!("a member failed: {status}");
        }
    }
    print(results)
}

/// Waits until all members are ready for the next step. Gives its name, or nothing after the last one.
fn ready(members: &mut [Member]) -> anyhow::Result<Option<String>> {
    let mut next = None;
    for member in members {
        next = member.hear("ready")?;
    }
    Ok(next)
}

/// One of several processes.
struct Member {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Member {
    fn start(number: u32) -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(format!("--member={number}"))
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a member")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// What the member says after `word`; nothing if it has ended.
    fn hear(&mut self, word: &str) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(' ') {
            Some((first, rest)) if first == word => Ok(Some(rest.to_owned())),
            _ => bail!("a member said {line:?} instead of {word}"),
        }
    }
}

fn tell(line: &str) -> anyhow::Result<()> {
    let mut output = stdout().lock();
    writeln!(output, "{line}")?;
    output.flush().context("the leader has gone")
}

fn record(results: &mut Map<String, serde_json::Value>, name: &str, elapsed: Duration, count: u64) {
    let step = json!({"seconds": elapsed.as_secs_f64(), "count": count});
    results.insert(name.to_owned(), step);
}

fn print(results: Map<String, serde_json::Value>) -> anyhow::Result<()> {
    tell(&serde_json::Value::Object(results).to_string())
}
