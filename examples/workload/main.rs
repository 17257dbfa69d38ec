//! The work that `scripts/bench` measures, and its clock.
//!
//! ```text
//! workload [--processes N] [--warm] walk PATH…
//! ```
//!
//! Prepares, does the work, and prints what each step took, as JSON: `{"walk": {"seconds": 0.31, "count": 70000}}`. `count` is what
//! was done or seen (files, bytes, reads), to tell whether two file systems were asked for the same.
//!
//! - `members.rs`: one process, or several that start every step together
//! - `walk.rs`, `read.rs`, `write.rs`: the steps

mod members;
mod read;
mod walk;
mod write;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Does one kind of work on a file system, and prints how long it took.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many processes do it at once
    #[arg(long, default_value_t = 1)]
    processes: u32,
    /// Do everything once before it is timed (only what can be done twice: reading)
    #[arg(long)]
    warm: bool,
    /// Which of several processes this is
    #[arg(long, hide = true)]
    member: Option<u32>,
    /// What to do
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Lists directories and stats what is in them, as `find -size` does
    Walk {
        /// Where to begin
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Reads a file from its beginning to its end, 1 MiB at a time
    Read {
        /// The file
        file: PathBuf,
    },
    /// Reads 4 KiB at random places of a file
    Random {
        /// The file
        file: PathBuf,
        /// How many reads
        #[arg(long)]
        count: u64,
    },
    /// Runs `tar -cf - ARGUMENT…`, and reads what it writes
    Tar {
        /// What to pack: -C DIRECTORY NAME…
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Opens, reads and closes every file of a directory
    OpenReadClose {
        /// The directory
        directory: PathBuf,
        /// How many times
        #[arg(long, default_value_t = 1)]
        passes: u32,
    },
    /// Creates files of 1 KiB, renames them, removes them
    Files {
        /// A directory to do it in
        directory: PathBuf,
        /// How many
        #[arg(long)]
        count: u64,
    },
    /// Writes a file, 1 MiB at a time, and fsyncs it
    Write {
        /// A directory to do it in
        directory: PathBuf,
        /// How large, in bytes
        #[arg(long)]
        size: u64,
    },
    /// Appends lines of 100 bytes to a file, each by a system call of its own: a log that is flushed
    Append {
        /// A directory to do it in
        directory: PathBuf,
        /// How many
        #[arg(long)]
        count: u64,
    },
}

/// One thing that is timed.
struct Step {
    name: &'static str,
    /// Whether it finds the same if it is done twice.
    repeatable: bool,
    /// Does it; gives how many.
    run: Box<dyn FnMut() -> anyhow::Result<u64>>,
}

impl Step {
    /// A step that can be done twice.
    fn reading(name: &'static str, run: impl FnMut() -> anyhow::Result<u64> + 'static) -> Self {
        Self {
            name,
            repeatable: true,
            run: Box::new(run),
        }
    }

    /// A step that can be done once.
    fn writing(name: &'static str, run: impl FnMut() -> anyhow::Result<u64> + 'static) -> Self {
        Self {
            name,
            repeatable: false,
            run: Box::new(run),
        }
    }
}

impl Work {
    /// Prepares what is not timed. Each member of several has a number, and writes in a place of its own.
    fn steps(self, member: u32, warm: bool) -> anyhow::Result<Vec<Step>> {
        match self {
            Self::Walk { paths } => Ok(walk::walk(paths)),
            Self::Read { file } => Ok(read::sequential(file)),
            Self::Random { file, count } => read::random(&file, count, member, warm),
            Self::Tar { arguments } => Ok(read::tar(arguments)),
            Self::OpenReadClose { directory, passes } => read::open_read_close(&directory, passes),
            Self::Files { directory, count } => write::files(&directory, count, member),
            Self::Write { directory, size } => Ok(write::large(&directory, size, member)),
            Self::Append { directory, count } => write::append(&directory, count, member),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.processes > 1 && arguments.member.is_none() {
        return members::lead(arguments.processes);
    }
    let mut steps = arguments
        .work
        .steps(arguments.member.unwrap_or(0), arguments.warm)?;
    if arguments.warm {
        for step in steps.iter_mut().filter(|step| step.repeatable) {
            (step.run)()?;
        }
    }
    match arguments.member {
        None => members::alone(steps),
        Some(_) => members::follow(steps),
    }
}
