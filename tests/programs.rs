//! Programs that use much of a file system, run in a mount: databases, version control, compilers, programs that copy
//! with every attribute, memory-mapped arrays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::python;
use common::{Mounted, Workspace, run};

const TASK: &str = "my.module.train";

/// Calls with a mount by root for all, and with one by an ordinary user, and a directory in each that belongs
/// to who mounted: in a job, below which tools work most.
fn in_mounts(call: impl Fn(&Workspace, &Mounted<'_>, &Path)) {
    for ordinary in [false, true] {
        let workspace = match ordinary {
            true => Workspace::of_ordinary_user(),
            false => Workspace::new(),
        };
        workspace.finished("primary", TASK, "abc");
        workspace.finished("backup", TASK, "archived");
        let elsewhere = workspace.mountpoint("elsewhere");
        let arguments: &[&str] = match ordinary {
            true => &[],
            false => &["-o", "allow_other,suid,dev"],
        };
        let mounted = workspace.mount_with(&elsewhere, arguments);
        let directory = mounted.job(TASK, "abc");
        call(&workspace, &mounted, &directory);
    }
}

/// Runs a shell script in a directory, as who does things in the workspace.
fn shell(workspace: &Workspace, directory: &Path, script: &str) -> String {
    let mut command = workspace.command("sh");
    // Not as the working directory of the command: that would be entered before it is an ordinary user's.
    let script = format!("cd \"$D\"\n{script}");
    command.args(["-euc", &script]).env("D", directory);
    command.env("TOP", workspace.top());
    run(&mut command)
}

/// Writes of two processes at once: each adds this many rows, each in its own transaction.
const ROWS: usize = 150;

#[test]
fn two_processes_write_into_one_sqlite_database() {
    let Some(_) = common::program("sqlite3") else {
        return;
    };
    in_mounts(|workspace, _mounted, directory| {
        for mode in ["wal", "delete", "truncate"] {
            let database = directory.join(format!("{mode}.db"));
            let sqlite = || {
                let mut command = workspace.command("sqlite3");
                command.args(["-bail", "-batch"]).arg(&database);
                command
            };
            let set = format!("PRAGMA journal_mode={mode}; CREATE TABLE t(who, number, text);");
            assert_eq!(run(sqlite().arg(set)).trim(), mode);
            let writers = ["one", "two"].map(|who| {
                let mut child = sqlite()
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut input = child.stdin.take().unwrap();
                writeln!(input, ".timeout 60000\nPRAGMA synchronous=NORMAL;").unwrap();
                for number in 0..ROWS {
                    let row =
                        format!("INSERT INTO t VALUES('{who}', {number}, hex(randomblob(200)));");
                    writeln!(input, "BEGIN IMMEDIATE; {row} COMMIT;").unwrap();
                }
                child
            });
            for writer in writers {
                let output = writer.wait_with_output().unwrap();
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{mode}: {errors}");
                assert_eq!(errors, "", "{mode}");
            }
            let check = "PRAGMA integrity_check; SELECT count(*) FROM t; SELECT count(DISTINCT who) FROM t;";
            let told = run(sqlite().arg(check));
            assert_eq!(told, format!("ok\n{}\n2\n", 2 * ROWS), "{mode}");
        }
    });
}

#[test]
fn git_clones_collects_and_checks() {
    let Some(_) = common::program("git") else {
        return;
    };
    in_mounts(|workspace, _mounted, directory| {
        let script = r#"
            export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="$TOP/gitconfig"
            git config --global user.name Somebody
            git config --global user.email somebody@example.org
            git config --global init.defaultBranch main
            git init -q origin
            cd origin
            for i in 1 2 3 4 5 6 7 8 9 10; do
                mkdir -p "d$i"
                for j in 1 2 3 4 5 6; do echo "$i $j" > "d$i/f$j"; done
                chmod +x "d$i/f1"
                ln -s f1 "d$i/link"
                git add .
                git commit -qm "commit $i"
            done
            git branch side HEAD~3
            cd ..
            git clone -q --no-local origin clone
            cd clone
            git checkout -q -b side origin/side
            echo changed > d1/f1
            git mv d2 moved
            git commit -qam changed
            git rebase -q main
            git stash list
            git repack -adq
            git gc -q --aggressive --prune=now
            git fsck --strict --full --no-progress
            git status --porcelain
            git push -q origin side:pushed
            git worktree add -q ../tree pushed
            cd ../tree
            test "$(cat d1/f1)" = changed
            git status --porcelain
        "#;
        assert_eq!(shell(workspace, directory, script).trim(), "");
    });
}

#[test]
fn cargo_builds_and_builds_again_only_what_has_changed() {
    let Some(_) = common::program("cargo") else {
        return;
    };
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "abc");
    let mounted = workspace.mount_in_place();
    let directory = mounted.job(TASK, "abc").join("crate");
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(&directory);
        command.env("CARGO_TARGET_DIR", directory.join("target"));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), told)
    };
    fs::create_dir_all(directory.join("src")).unwrap();
    let manifest =
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    let source = directory.join("src/main.rs");
    fs::write(&source, "fn main() { println!(\"first\") }").unwrap();
    assert_eq!(cargo(&["run", "--offline"]).0, "first\n");
    let (_, told) = cargo(&["build", "--offline"]);
    assert!(!told.contains("Compiling"), "{told}");
    fs::write(&source, "fn main() { println!(\"second\") }").unwrap();
    assert_eq!(cargo(&["run", "--offline"]).0, "second\n");
}

/// Makes a tree with everything that a copier can keep, in the directory `tree`; `ROOT` is 1 for root.
const MAKE_TREE: &str = r#"
    rm -rf tree
    mkdir -p tree/sub/deep tree/inherits
    cd tree
    seq 1 20000 > numbers
    : > empty
    ln numbers sub/again
    ln numbers sub/deep/once-more
    ln -s ../numbers sub/link
    ln -s nowhere dangling
    mkfifo pipe
    truncate -s 5M sparse
    printf middle | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
    setfattr -n user.note -v 'a value' numbers
    setfattr -n user.note -v directory sub
    setfacl -m u:12:r,g:34:rw numbers
    setfacl -d -m u:12:rwx,g::r inherits
    mkdir inherits/made
    echo x > inherits/made/file
    chmod 4751 sub/again
    chmod 1777 sub/deep
    chmod 2755 sub
    chmod 400 empty
    if [ "$ROOT" = 1 ]; then
        chown 12:34 dangling empty -h
        mknod device c 1 3
        setfattr -n trusted.note -v root numbers
        setfattr -h -n trusted.note -v link sub/link
    fi
    touch -d '2001-02-03 04:05:06.123456789' numbers
    touch -h -d '1969-02-03 04:05:06.987654321' dangling sub/link
    find . -type d -exec touch -d '2002-02-03 04:05:06.5' {} +
    cd ..
"#;

/// Tells everything about the tree in `$1`.
const DESCRIBE: &str = r#"
    describe() {
        (
            cd "$1"
            find . -printf '%P %y %m %U %G %n %l\n' | sort
            # rsync does not keep the times of pipes and devices, on a disk either.
            find . ! -type p ! -type c -printf '%P %T@\n' | sort
            find . ! -type d -printf '%P %s\n' | sort
            find . -type f -links +1 -printf '%P %i\n' | sort -k2 | awk '{print $1}' | sort
            find . -type f | sort | xargs sha256sum
            getfacl -R -n -P . 2>/dev/null
            getfattr -R -h -d -m '^(user|trusted)' . 2>/dev/null
        )
    }
    same() {
        describe "$1" > "$TOP/one"
        describe "$2" > "$TOP/two"
        diff "$TOP/one" "$TOP/two" || { echo "$1 and $2 differ"; exit 1; }
    }
"#;

/// Whether who does things in the workspace is root, as the scripts ask.
fn root(directory: &Path) -> String {
    let owner = fs::metadata(directory).map_or(common::ORDINARY, |meta| meta.uid());
    format!("ROOT={}\n", u32::from(owner == 0))
}

#[test]
fn rsync_keeps_every_attribute_both_ways() {
    let Some(_) = common::program("rsync") else {
        return;
    };
    in_mounts(|workspace, _mounted, directory| {
        let copy = r#"
            mkdir "$TOP/disk"
            cd "$TOP/disk"
            make
            rsync -aHAX --sparse tree "$D/"
            same tree "$D/tree"
            rsync -aHAX --sparse "$D/tree" "$TOP/disk/back"
            same tree back/tree
            # Nothing is left to do, either way.
            rsync -aHAXni --delete tree/ "$D/tree/"
            rsync -aHAXni --delete "$D/tree/" tree/
            # What has changed is changed, and that alone.
            echo more >> "$D/tree/numbers"
            rm "$D/tree/empty"
            rsync -aHAXi --delete tree/ "$D/tree/" | grep -c '^>f' | grep -x '[23]' > "$TOP/count"
            same tree "$D/tree"
        "#;
        let beneath = workspace.primary().join("jobs").join(TASK).join("abc");
        let script = format!(
            "{}{DESCRIBE}make() {{ {MAKE_TREE} }}\n{copy}",
            root(&beneath)
        );
        assert_eq!(shell(workspace, directory, &script), "");
    });
}

#[test]
fn tar_keeps_attributes_and_holes() {
    in_mounts(|workspace, _mounted, directory| {
        let pack = r#"
            make
            tar --xattrs --xattrs-include='*' --acls -S -cf "$TOP/archive.tar" tree
            # Holes are not packed.
            test "$(stat -c %s "$TOP/archive.tar")" -lt 2000000
            mkdir out
            tar --xattrs --xattrs-include='*' --acls -S --numeric-owner -p -xf "$TOP/archive.tar" -C out
            same tree out/tree
            test "$(du -k out/tree/sparse | cut -f 1)" -lt 1000
        "#;
        let beneath = workspace.primary().join("jobs").join(TASK).join("abc");
        let script = format!(
            "{}{DESCRIBE}make() {{ {MAKE_TREE} }}\n{pack}",
            root(&beneath)
        );
        assert_eq!(shell(workspace, directory, &script), "");
    });
}

#[test]
fn numpy_maps_arrays_into_memory() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let has = Command::new(&python)
        .args(["-c", "import numpy"])
        .output()
        .unwrap();
    if !has.status.success() {
        common::skip(&format!("{} has no numpy", python.display()));
        return;
    }
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "abc");
    let archived = workspace.finished("backup", TASK, "archived");
    fs::write(archived.join("array"), [1; 8 * 1000]).unwrap();
    let arguments = ["-o", "allow_other"];
    let elsewhere = workspace.mountpoint("elsewhere");
    for arguments in [&arguments[..], &[]] {
        let mounted = workspace.mount_with(&elsewhere, arguments);
        let script = r"
import numpy, os, sys
job, archived = sys.argv[1:]
path = os.path.join(job, 'array')
written = numpy.memmap(path, dtype='float64', mode='w+', shape=(1000, 1000))
written[:] = numpy.arange(1000 * 1000).reshape(1000, 1000)
read = numpy.memmap(path, dtype='float64', mode='r', shape=(1000, 1000))
assert (read == written).all()
written[3, 4] = -1
assert read[3, 4] == -1
written.flush()
with open(path, 'rb') as file:
    file.seek(8 * 3004)
    assert numpy.frombuffer(file.read(8))[0] == -1
private = numpy.memmap(path, dtype='float64', mode='c', shape=(1000, 1000))
private[0, 0] = 77
assert read[0, 0] == 0
child = os.fork()
if child == 0:
    other = numpy.memmap(path, dtype='float64', mode='r+', shape=(1000, 1000))
    other[5, 5] = 55
    other.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert read[5, 5] == 55
numpy.save(os.path.join(job, 'saved.npy'), numpy.asarray(read))
assert (numpy.load(os.path.join(job, 'saved.npy'), mmap_mode='r') == read).all()
kept = numpy.memmap(os.path.join(archived, 'array'), dtype='uint8', mode='r')
assert kept.sum() == 8000
";
        run(Command::new(&python)
            .args(["-c", script])
            .arg(mounted.job(TASK, "abc"))
            .arg(mounted.job(TASK, "archived")));
        mounted.unmount();
        let beneath = workspace
            .primary()
            .join("jobs")
            .join(TASK)
            .join("abc/array");
        let bytes = fs::read(beneath).unwrap();
        assert_eq!(bytes[8 * 5005..8 * 5006], 55_f64.to_le_bytes());
    }
}
