//! `mount --shared` and `umount`, from shell scripts that stand for batch jobs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use xpmfs::daemon::mounts;
use xpmfs::sys::deadline::wait_until;

use crate::common;
use crate::common::daemon::kill_worker;
use crate::home::{Home, LIMIT, at_everybodys_home, is_mounted, is_root, said};

/// A bash script that reads lines and does them, so that its process lives as long as the test needs it.
struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(home: &Home) -> Script {
        Script::run_by(home.program(Path::new("bash")), home)
    }

    fn run_by(mut command: Command, home: &Home) -> Script {
        // Each has its own: another one may be reading its file.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = home.path(format!("script-{number}.sh"));
        let text = "while IFS= read -r line; do eval \"$line\"; echo \"status $?\"; done\n";
        fs::write(&file, text).unwrap();
        let mut child = command
            .arg(&file)
            .env("X", &home.binary)
            .env("XPMFS_SETTINGS", home.path("settings.yaml"))
            .env_remove("SLURM_JOB_ID")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Script {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn begin(&mut self, line: &str) {
        writeln!(self.input, "{{ {line}; }} </dev/null 2>&1").unwrap();
    }

    /// What it printed, and the exit status.
    fn end(&mut self) -> (String, i32) {
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{printed}");
            if let Some(status) = line.strip_prefix("status ") {
                return (printed, status.trim().parse().unwrap());
            }
            printed += &line;
        }
    }

    fn tries(&mut self, line: &str) -> (String, i32) {
        self.begin(line);
        self.end()
    }

    fn does(&mut self, line: &str) -> String {
        let (printed, status) = self.tries(line);
        assert_eq!(status, 0, "{line}: {printed}");
        printed
    }

    fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const XPMFS: &str = "\"$X\" --settings \"$XPMFS_SETTINGS\"";

/// The command lines of scripts that share a mount at a path.
struct Lines {
    mount: String,
    umount: String,
}

fn lines(home: &Home, place: &Path) -> Lines {
    let (log, place) = (home.log(), place.display());
    Lines {
        mount: format!(
            "{XPMFS} mount --shared -w nlp --log '{}' '{place}'",
            log.display()
        ),
        umount: format!("{XPMFS} umount '{place}'"),
    }
}

/// The holders of the mount at a path, in the form of the command line.
fn holders(home: &Home, place: &Path) -> Vec<String> {
    let status = home.status(&[place.to_str().unwrap()]);
    let holders = status["mounts"][0]["holders"].as_array().unwrap();
    let name = |one: &Value| one["holder"].as_str().unwrap().to_owned();
    holders.iter().map(name).collect()
}

/// Random numbers from a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = match std::env::var("XPMFS_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => jiff::Timestamp::now().as_nanosecond() as u64 | 1,
        };
        common::say(&format!("XPMFS_TEST_SEED={seed}"));
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Waits, mounts, looks many times for a job that only the folder has, unmounts.
const BATCH_JOB: &str = r#"
sleep "$1"
eval "$3" || { echo "mount: $?"; exit 1; }
end=$(($(date +%s%N) + $2))
while [ "$(date +%s%N)" -lt $end ]; do
    [ -d "$5/jobs/t/$6" ] || { echo "the bare primary"; exit 1; }
done
eval "$4" || { echo "umount: $?"; exit 1; }
"#;

/// Twenty times two batch jobs at once.
fn interleave(home: &Home, place: &Path) {
    let lines = lines(home, place);
    let script = home.path("batch_job.sh");
    fs::write(&script, BATCH_JOB).unwrap();
    let mut random = Random::new();
    for round in 0..20 {
        let jobs: Vec<Child> = (0..2)
            .map(|_| {
                let wait = format!("0.{:03}", random.below(400));
                let work = (random.below(300) * 1_000_000).to_string();
                home.program(Path::new("bash"))
                    .arg(&script)
                    .args([&wait, &work, &lines.mount, &lines.umount])
                    .arg(place)
                    .arg("b".repeat(64))
                    .env("X", &home.binary)
                    .env("XPMFS_SETTINGS", home.path("settings.yaml"))
                    .env_remove("SLURM_JOB_ID")
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for job in jobs {
            let output = job.wait_with_output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "round {round}: {printed}{}",
                said(&output)
            );
        }
        assert!(!is_mounted(place), "round {round}");
    }
}

#[test]
fn two_batch_jobs_in_place_never_see_the_bare_primary() {
    if common::is_root() {
        let home = Home::new(false);
        interleave(&home, &home.path("ws"));
    }
}

#[test]
fn two_batch_jobs_of_an_ordinary_user_elsewhere_never_see_the_bare_primary() {
    let home = Home::new(true);
    interleave(&home, &home.path("mnt"));
}

#[test]
fn twenty_scripts_that_mount_at_once_share_one_mount() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let lines = lines(home, &place);
        let mut scripts: Vec<Script> = (0..20).map(|_| Script::start(home)).collect();
        for script in &mut scripts {
            script.begin(&lines.mount);
        }
        for script in &mut scripts {
            let (printed, status) = script.end();
            assert_eq!(status, 0, "{printed}");
        }
        let here = mounts::xpmfs().unwrap().into_iter();
        let here = here.filter(|mount| mount.mountpoint == place).count();
        assert_eq!(here, 1);
        assert_eq!(holders(home, &place).len(), 20);
        let log = fs::read_to_string(home.log()).unwrap();
        assert_eq!(log.matches("serving ").count(), 1, "{log}");
        let (last, others) = scripts.split_last_mut().unwrap();
        for script in others {
            script.does(&lines.umount);
            assert!(is_mounted(&place));
        }
        last.does(&lines.umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn umount_leaves_a_mount_that_others_hold_and_names_them() {
    at_everybodys_home(|home| {
        let place = home.path("mnt");
        let lines = lines(home, &place);
        let (mut first, mut second) = (Script::start(home), Script::start(home));
        first.does(&lines.mount);
        second.does(&lines.mount);
        let text = home.does(&["status", place.to_str().unwrap()]);
        let held = format!("process {} (bash ", second.pid());
        assert!(
            text.contains("is held by") && text.contains(&held),
            "{text}"
        );
        // One that holds nothing: an error.
        let refused = home.refuses(&["umount", place.to_str().unwrap()]);
        assert!(refused.contains(&held), "{refused}");
        assert!(refused.contains("umount --lazy"), "{refused}");
        // A holder: done, as far as it is concerned.
        let printed = first.does(&lines.umount);
        assert!(printed.contains("stays mounted: held by"), "{printed}");
        assert!(printed.contains(&held), "{printed}");
        let (printed, status) = first.tries(&lines.umount);
        assert_eq!(status, 1, "{printed}");
        assert_eq!(holders(home, &place), [format!("pid:{}", second.pid())]);
        // In use: the hold stays with the mount.
        second.does(&format!("exec 9<'{}'", place.join("jobs").display()));
        let (printed, status) = second.tries(&lines.umount);
        assert!(status == 1 && printed.contains("is in use"), "{printed}");
        assert_eq!(holders(home, &place).len(), 1);
        second.does("exec 9<&-");
        second.does(&lines.umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn scripts_with_different_runtime_directories_share_a_mount() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let Lines { mount, umount } = lines(home, &place);
        let mut scripts = ["one", "two"].map(|name| {
            let mut script = Script::start(home);
            let directory = home.directory(name);
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&directory, mode).unwrap();
            script.does(&format!("export XDG_RUNTIME_DIR='{}'", directory.display()));
            script.does(&mount);
            // As at the end of the user's last session.
            fs::remove_dir_all(directory).unwrap();
            script
        });
        assert_eq!(holders(home, &place).len(), 2);
        let [first, second] = &mut scripts;
        first.does(&umount);
        assert!(is_mounted(&place));
        second.does(&umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn lazy_unmounting_asks_no_holder() {
    let home = Home::new(true);
    let place = home.path("ws");
    let mut script = Script::start(&home);
    script.does(&lines(&home, &place).mount);
    home.does(&["umount", "--lazy", place.to_str().unwrap()]);
    assert!(!is_mounted(&place));
}

#[test]
fn a_holder_that_was_killed_does_not_count() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let lines = lines(home, &place);
        let (mut first, mut second) = (Script::start(home), Script::start(home));
        first.does(&lines.mount);
        second.does(&lines.mount);
        first.kill();
        assert_eq!(holders(home, &place), [format!("pid:{}", second.pid())]);
        second.kill();
        assert_eq!(holders(home, &place), [""; 0]);
        let text = home.does(&["status", place.to_str().unwrap()]);
        assert!(text.contains("no program holds it"), "{text}");
        assert!(is_mounted(&place), "unmounted by itself");
        home.does(&["umount", place.to_str().unwrap()]);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn holders_outlive_the_process_that_serves_the_mount() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let lines = lines(home, &place);
        let mut script = Script::start(home);
        script.does(&lines.mount);
        for _ in 0..2 {
            kill_worker(home.daemon(&place));
            // Also while the next one is about to take over.
            let refused = home.refuses(&["umount", place.to_str().unwrap()]);
            assert!(refused.contains("held by"), "{refused}");
            fs::metadata(place.join("jobs")).map_or_else(drop_denied, drop);
        }
        let mut other = Script::start(home);
        other.does(&lines.mount);
        script.does(&lines.umount);
        other.does(&lines.umount);
        assert!(!is_mounted(&place));
    });
}

/// Root is kept out of the mount of an ordinary user.
fn drop_denied(error: std::io::Error) {
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn the_caller_is_the_script_also_from_subshells_and_timeout() {
    at_everybodys_home(|home| {
        let place = home.path("mnt");
        let Lines { mount, umount } = lines(home, &place);
        let forms = [
            ("{}", "the shell itself"),
            ("( {}; true )", "a subshell"),
            ("( ( {}; true ); true )", "a subshell of a subshell"),
            ("out=$({}; true)", "a command substitution"),
            ("{} | cat", "a pipeline"),
            ("timeout 60 {}", "timeout"),
            ("setsid --wait {}", "a session of its own"),
            ("f() { {}; }; f", "a function"),
            ("if {}; then true; fi", "a condition"),
        ];
        let session = |home: &Home| {
            let mut command = home.program(Path::new("setsid"));
            command.arg("bash");
            Script::run_by(command, home)
        };
        for (form, name) in forms {
            for mut script in [Script::start(home), session(home)] {
                script.does(&form.replace("{}", &mount));
                let held = holders(home, &place);
                assert_eq!(held, [format!("pid:{}", script.pid())], "{name}");
                script.does(&umount);
                assert!(!is_mounted(&place), "{name}");
            }
        }
        // One mounts in a subshell, and unmounts in a trap.
        let script = format!("leave() {{ {umount}; }}\ntrap leave EXIT\n( {mount} )\n");
        let mut command = home.program(Path::new("bash"));
        command.args(["-c", &script]).env("X", &home.binary);
        command
            .env("XPMFS_SETTINGS", home.path("settings.yaml"))
            .env_remove("SLURM_JOB_ID");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(!is_mounted(&place), "{}", said(&output));
    });
}

#[test]
fn a_process_or_a_session_can_be_named() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let Lines { mount, umount } = lines(home, &place);
        let mut script = Script::start(home);
        let mut leader = home.program(Path::new("setsid"));
        let mut leader = leader.args(["sleep", "600"]).spawn().unwrap();
        let pid = leader.id();
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(wait_until(LIMIT, || stat().contains("(sleep)")));
        for holder in [format!("pid:{pid}"), format!("session:{pid}")] {
            let (mount, umount) = (
                format!("{mount} --holder {holder}"),
                format!("{umount} --holder {holder}"),
            );
            script.does(&mount);
            assert_eq!(holders(home, &place), [holder.as_str()]);
            assert_eq!(script.tries("true").1, 0);
            // Held twice, by the same holder.
            script.does(&mount);
            script.does(&umount);
            assert!(is_mounted(&place));
            script.does(&umount);
            assert!(!is_mounted(&place));
        }
        script.does(&format!("{mount} --holder session:{pid}"));
        leader.kill().unwrap();
        leader.wait().unwrap();
        // A hold of a holder that has ended is over.
        script.does(&mount);
        let printed = script.does(&format!("{umount} --holder session:{pid}"));
        assert!(printed.contains("stays mounted"), "{printed}");
        let (printed, status) = script.tries(&format!("{mount} --holder pid:{pid}"));
        assert!(
            status == 1 && printed.contains("there is no process"),
            "{printed}"
        );
        script.does(&umount);
        assert!(!is_mounted(&place));
        for wrong in ["tty:1", "pid:x", "7"] {
            let (printed, status) = script.tries(&format!("{mount} --holder {wrong}"));
            assert!(
                status == 2 && printed.contains("names no holder"),
                "{printed}"
            );
        }
    });
}

/// A new cgroup, removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Cgroup> {
        let mounts = mounts::all().unwrap().into_iter();
        let mut mounts = mounts.filter(|mount| ["cgroup", "cgroup2"].contains(&&*mount.fs_type));
        let made = mounts.find_map(|mount| {
            let path = mount.mountpoint.join(name);
            // A v1 cgroup of some controllers takes no process before it is set up.
            let plain = mount.fs_type == "cgroup2" || mount.super_options.contains("freezer");
            (plain && fs::create_dir(&path).is_ok()).then_some(path)
        })?;
        Some(Cgroup(made))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_until(LIMIT, || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn under_slurm_the_holder_is_the_cgroup_of_the_job() {
    if !common::is_root() {
        return;
    }
    let home = Home::new(false);
    let place = home.path("mnt");
    let Lines { mount, umount } = lines(&home, &place);
    let id = std::process::id();
    let Some(cgroup) = Cgroup::new(&format!("job_{id}")) else {
        common::say("SKIPPED: no cgroup can be made here");
        return;
    };
    let expected = format!("cgroup:{}", cgroup.0.display());
    let mut script = Script::start(&home);
    script.does(&format!("echo $$ >'{}/cgroup.procs'", cgroup.0.display()));
    script.does(&format!("export SLURM_JOB_ID={id}"));
    // From steps and wrappers of any depth.
    script.does(&format!("timeout 60 setsid --wait nice {mount}"));
    assert_eq!(holders(&home, &place), [expected.as_str()]);
    // The daemon is in the cgroup, too: Slurm kills it with the job, so another job's daemon must not be this one.
    let (pid, other) = (home.daemon(&place), cgroup.0.parent().unwrap());
    let supervisor = common::daemon::supervisor(pid);
    for pid in [pid, supervisor] {
        fs::write(other.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let refused = home.refuses(&["umount", place.to_str().unwrap()]);
    assert!(
        refused.contains(&format!("cgroup {}", cgroup.0.display())),
        "{refused}"
    );
    script.does(&umount);
    assert!(!is_mounted(&place));
    // A job whose processes have ended.
    script.does(&mount);
    let pid = home.daemon(&place);
    for pid in [pid, common::daemon::supervisor(pid)] {
        fs::write(other.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    script.kill();
    assert_eq!(holders(&home, &place), [""; 0]);
    home.does(&["umount", place.to_str().unwrap()]);
}

#[test]
fn a_mount_that_differs_is_not_shared_and_the_difference_is_named() {
    at_everybodys_home(|home| {
        let place = home.path("mnt");
        let Lines { mount, umount } = lines(home, &place);
        let mut script = Script::start(home);
        script.does(&mount);
        let mut expect = |more: &str, difference: &str| {
            let (printed, status) = script.tries(&format!("{mount} {more}"));
            assert!(status == 1 && printed.contains(difference), "{printed}");
        };
        expect("--read-only", "read-only is false, asked for is true");
        expect("--no-archive", "archiving is true, asked for is false");
        expect("-o noatime", "atime is true, asked for is false");
        let folder = format!("--folder 'use:{}'", home.path("mnt").display());
        expect(&folder, "the list of folders is [backup:");
        let settings = home.path("settings.yaml");
        let before = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("xpmfs: {{settle: 9s}}\n{before}")).unwrap();
        expect("", "settle is 2s, asked for is 9s");
        let other = format!("{mount} --workdir '{}'", home.path("kept").display());
        fs::write(&settings, before).unwrap();
        let (printed, status) = script.tries(&other);
        assert!(
            status == 1 && printed.contains("the workspace's directory is"),
            "{printed}"
        );
        // Without --shared, a second mount is refused as ever.
        let (printed, status) = script.tries(&mount.replace("--shared", ""));
        assert!(
            status == 1 && printed.contains("already has an xpmfs mount"),
            "{printed}"
        );
        let (printed, status) = script.tries(&format!("{mount} -f"));
        assert_eq!(status, 2, "{printed}");
        script.does(&umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn a_mount_that_was_made_without_sharing_stays_when_its_holders_leave() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let Lines { mount, umount } = lines(home, &place);
        home.mount(&[]);
        let mut script = Script::start(home);
        script.does(&mount);
        let printed = script.does(&umount);
        assert!(printed.contains("mounted without --shared"), "{printed}");
        assert!(is_mounted(&place));
        script.does(&umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn a_mount_of_another_user_is_not_shared() {
    if !is_root() {
        return;
    }
    let home = Home::new(false);
    home.mount(&["-o", "allow_other"]);
    let mut command = home.program(Path::new("setpriv"));
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&home.binary)
        .arg("--settings")
        .arg(home.path("settings.yaml"))
        .args(["mount", "--shared", "-w", "nlp", "--log"])
        .arg(home.path("state").join("log"))
        .args(["-o", "allow_other"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("mount of the user `root`"),
        "{}",
        said(&output)
    );
    home.does(&["umount"]);
}

#[test]
fn a_stopped_daemon_is_not_unmounted_as_it_may_have_holders() {
    let home = Home::new(false);
    let place = home.path("mnt");
    let mut script = Script::start(&home);
    script.does(&lines(&home, &place).mount);
    let pid = Pid::from_raw(home.daemon(&place)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let refused = home.refuses(&["umount", place.to_str().unwrap()]);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(
        refused.contains("not known whether other programs hold"),
        "{refused}"
    );
    assert!(is_mounted(&place));
    script.does(&lines(&home, &place).umount);
    assert!(!is_mounted(&place));
}
