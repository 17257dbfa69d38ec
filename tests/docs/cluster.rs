//! The examples for clusters and for boot: `/etc/fstab`, autofs, systemd, Slurm.
//!
//! Each runs in a mount namespace of its own, in which `/sbin` has `mount.fuse.xpmfs`, and nobody has a home with settings.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::{blocks, section};

/// A machine with a workspace `nlp` that belongs to the user `nobody`.
struct Machine(TempDir);

impl Machine {
    /// `None` for an ordinary user, who cannot have one.
    fn new() -> Option<Machine> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let top = TempDir::with_prefix("xpmfs-test-").unwrap();
        let machine = Machine(top);
        for directory in [
            "bin",
            "sbin",
            "etc",
            "mnt/nlp",
            "auto",
            "run",
            "home/.config/experimaestro",
            "home/.config/systemd/user",
            "home/.cargo/bin",
            "home/experiments/nlp/jobs/my.module.train/0defac9f07c4",
        ] {
            fs::create_dir_all(machine.path(directory)).unwrap();
        }
        // By another process: while this one has a program open for writing, a child of another test has it, too.
        let (built, program) = (env!("CARGO_BIN_EXE_xpmfs"), machine.path("bin/xpmfs"));
        let copied = Command::new("cp").arg(built).arg(&program).status();
        assert!(copied.unwrap().success());
        symlink(&program, machine.path("sbin/mount.fuse.xpmfs")).unwrap();
        symlink(&program, machine.path("home/.cargo/bin/xpmfs")).unwrap();
        let settings = format!(
            "workspaces:\n  - {{id: nlp, path: {}}}\n",
            machine.path("home/experiments/nlp").display()
        );
        fs::write(machine.path("etc/xpmfs.yaml"), &settings).unwrap();
        fs::write(
            machine.path("home/.config/experimaestro/settings.yaml"),
            settings,
        )
        .unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let lines = passwd.lines().filter(|line| !line.starts_with("nobody:"));
        let home = machine.path("home").display().to_string();
        let nobody = format!("nobody:x:65534:65534:nobody:{home}:/bin/sh");
        let passwd: Vec<&str> = lines.chain([&*nobody]).collect();
        fs::write(machine.path("etc/passwd"), passwd.join("\n") + "\n").unwrap();
        fs::set_permissions(machine.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let owned = Command::new("chown")
            .args(["-R", "nobody"])
            .arg(machine.path("home"))
            .status();
        assert!(owned.unwrap().success());
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
        Some(machine)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(below)
    }

    /// An example with the paths of this machine.
    fn placed(&self, example: &str) -> String {
        let top = self.path("");
        let top = top.to_str().unwrap().trim_end_matches('/');
        example
            .replace("/etc/xpmfs.yaml", &format!("{top}/etc/xpmfs.yaml"))
            .replace("/mnt/nlp", &format!("{top}/mnt/nlp"))
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, self.placed(text)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn runs(&self, script: &str) -> Output {
        let prelude = "sbin=$(readlink -f /sbin)
            mount -t overlay overlay -o lowerdir=$TOP/sbin:$sbin $sbin
            mount --bind $TOP/etc/passwd /etc/passwd
            cd $TOP";
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}:/usr/sbin:/sbin", self.path("bin").display());
        let mut command = Command::new("timeout");
        command
            .args(["100", "unshare", "-m", "bash", "-euc"])
            .arg(format!("{prelude}\n{script}"))
            .env("TOP", self.path("").to_str().unwrap().trim_end_matches('/'))
            .env("PATH", path)
            .env("HOME", self.path("home"));
        for name in [
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME",
            "SLURM_JOB_ID",
            "NOTIFY_SOCKET",
        ] {
            command.env_remove(name);
        }
        command.output().unwrap()
    }

    /// Runs a script, which must succeed, and returns what it prints.
    fn does(&self, script: &str) -> String {
        let output = self.runs(script);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stderr);
        assert!(
            output.status.success(),
            "{script}: {}\n{said}",
            text(&output.stdout)
        );
        text(&output.stdout)
    }
}

/// The text of a fence without a language.
fn plain(name: &str, heading: &str) -> String {
    let text = section(name, heading);
    let mut fences = text.split("```").skip(1).step_by(2);
    fences
        .find(|fence| fence.starts_with('\n'))
        .unwrap()
        .to_owned()
}

#[test]
fn the_line_of_fstab_mounts_a_workspace() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let line = plain("mounting", "mount(8), /etc/fstab, systemd, autofs");
    machine.script("etc/fstab", &line);
    let printed = machine.does(
        "mount -T $TOP/etc/fstab $TOP/mnt/nlp
         runuser -u nobody -- ls $TOP/mnt/nlp/jobs/my.module.train
         umount $TOP/mnt/nlp
         mount -s -n -t fuse.xpmfs nlp $TOP/mnt/nlp -o settings=$TOP/etc/xpmfs.yaml,unknown
         umount $TOP/mnt/nlp",
    );
    assert_eq!(printed, "0defac9f07c4\n");
}

/// With the kernel's autofs, which keeps all processes waiting that are not of the automounter's group.
#[test]
fn the_map_of_autofs_mounts_a_workspace_when_it_is_looked_at() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.script("etc/auto.xpmfs", &blocks("cluster", "autofs", "sh")[0]);
    let automounter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/automounter.py");
    let script = format!(
        "python3 -B {} $TOP/auto $TOP/etc/auto.xpmfs",
        automounter.display()
    );
    assert_eq!(machine.does(&format!("{script} nlp")), "jobs\n");
    let unknown = machine.runs(&format!("{script} other"));
    assert!(!unknown.status.success(), "{unknown:?}");
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn the_service_is_valid_and_mounts_a_workspace() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let unit = &blocks("mounting", "mount(8), /etc/fstab, systemd, autofs", "ini")[0];
    let name = "home/.config/systemd/user/xpmfs@.service";
    fs::write(machine.path(name), unit).unwrap();
    let command = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        let home = machine.path("home");
        let line = line.unwrap().replace("%h", home.to_str().unwrap());
        line.replace("%i", "nlp")
    };
    // systemd-analyze fails for a line that systemd would not take.
    let printed = machine.does(&format!(
        "if command -v systemd-analyze >/dev/null; then
             XDG_RUNTIME_DIR=$TOP/run systemd-analyze --user --man=no verify xpmfs@nlp.service
         fi
         {} & pid=$!
         until ls home/experiments/nlp/.xpmfs-is-mounted 2>/dev/null ||
             grep -q \" $TOP/home/experiments/nlp fuse.xpmfs \" /proc/mounts; do sleep 0.1; done
         ls home/experiments/nlp/jobs/my.module.train
         {}
         kill $pid; wait $pid
         ! grep -q \" $TOP/home/experiments/nlp fuse.xpmfs \" /proc/mounts",
        command("ExecStart="),
        command("ExecReload="),
    ));
    assert!(printed.contains("0defac9f07c4"), "{printed}");
}

#[test]
fn the_prolog_mounts_for_each_job_and_the_epilog_of_the_last_one_unmounts() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let scripts = blocks("cluster", "Slurm: prolog and epilog", "sh");
    machine.script("etc/prolog.sh", &scripts[0]);
    machine.script("etc/epilog.sh", &scripts[1]);
    machine.script("etc/batch.sh", &scripts[2]);
    machine.script(
        "bin/python",
        "#!/bin/sh\necho \"$@\"; ls jobs/my.module.train; stat -f -c %T .\n",
    );
    let printed = machine.does(
        "cp /bin/sleep bin/slurmd; slurmd 90 & slurmd=$!
         ws=$TOP/home/experiments/nlp
         mounted() { grep -q \" $ws fuse.xpmfs \" /proc/mounts && echo mounted || echo not; }
         export SLURM_JOB_USER=nobody SLURM_JOB_UID=65534 SLURM_CLUSTER_NAME=c
         batch() { runuser -u nobody -- sh -c \"cd $ws && $TOP/etc/batch.sh\"; }
         batch; mounted
         SLURM_JOB_ID=1 etc/prolog.sh; mounted
         SLURM_JOB_ID=2 etc/prolog.sh
         SLURM_JOB_ID=1 batch
         SLURM_JOB_ID=1 etc/epilog.sh; mounted
         SLURM_JOB_ID=2 etc/epilog.sh; mounted
         kill $slurmd",
    );
    let job = "train.py\n0defac9f07c4\nfuseblk\n";
    let job = job.replace("fuseblk", printed.lines().nth(2).unwrap());
    assert!(job.contains("fuse"), "{printed}");
    assert_eq!(printed, format!("{job}not\nmounted\n{job}mounted\nnot\n"));
}
