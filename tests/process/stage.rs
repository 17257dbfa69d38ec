//! The stage: directories, and processes of this binary that play the daemon and the commands, as root or not.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use xpmfs::daemon::attach::{Attachment, How, check_mountpoint};
use xpmfs::daemon::background::{self, Launch, Parent};
use xpmfs::daemon::log::{self, Destination, Verbosity};
use xpmfs::daemon::mounts::{self, MountInfo};
use xpmfs::daemon::run::{About, Launcher, run};
use xpmfs::daemon::{attach, health, inventory, unmount};
use xpmfs::sys::deadline::wait_until;

use crate::one_file::{CONTENT, Fault, NAME, OneFile};

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The ordinary user that tests play when they run as root.
const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who mounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Root,
    /// Root of a user namespace of its own.
    NamespaceRoot,
    User,
}

/// Runs `play` as everybody that this process can be.
pub(crate) fn as_everybody(play: impl Fn(&Stage)) {
    if is_root() {
        fs::set_permissions("/dev/fuse", Permissions::from_mode(0o666)).unwrap();
        play(&Stage::new(Who::Root));
    }
    play(&Stage::new(Who::User));
}

pub(crate) struct Stage {
    pub(crate) who: Who,
    dir: tempfile::TempDir,
    binary: PathBuf,
}

impl Stage {
    pub(crate) fn new(who: Who) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("xpmfs-test")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut binary = std::env::current_exe().unwrap();
        if is_root() {
            let copy = dir.path().join("test-binary");
            // By another process: had we it open for writing while another test forks, it could not be run.
            let copied = Command::new("cp").arg(&binary).arg(&copy).status();
            assert!(copied.unwrap().success());
            binary = copy;
        }
        let stage = Self { who, dir, binary };
        stage.directory("home");
        stage.directory("primary");
        fs::write(stage.path("primary").join("beneath"), "").unwrap();
        stage
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path().join(name.as_ref())
    }

    /// A directory that belongs to who mounts.
    pub(crate) fn directory(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        if is_root() && self.who == Who::User {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path
    }

    /// A process of this binary that does `what` with `mountpoint`, as who mounts.
    pub(crate) fn command(&self, what: &str, mountpoint: &Path) -> Command {
        let mut command = match self.who {
            Who::User if is_root() => {
                let mut command = Command::new("setpriv");
                let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
                command
                    .args([user, group, "--clear-groups".into()])
                    .arg(&self.binary);
                command
            }
            Who::NamespaceRoot => {
                let mut command = Command::new("unshare");
                command.args(["-Urm"]).arg(&self.binary);
                command
            }
            _ => Command::new(&self.binary),
        };
        command
            .args(["--exact", "a_player", "--ignored", "--nocapture"])
            .env("XPMFS_TEST_DO", what)
            .env("XPMFS_TEST_MOUNTPOINT", mountpoint)
            .env("XPMFS_TEST_PRIMARY", self.path("primary"))
            .env("HOME", self.path("home"))
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_STATE_HOME")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Does `what` and waits for it.
    pub(crate) fn play(&self, what: &str, mountpoint: &Path) -> Output {
        self.command(what, mountpoint).output().unwrap()
    }

    /// Serves in the foreground, and waits until the mount is ready.
    pub(crate) fn serve(&self, mountpoint: &Path) -> Daemon {
        self.serve_with(mountpoint, &[])
    }

    pub(crate) fn serve_with(&self, mountpoint: &Path, settings: &[(&str, &str)]) -> Daemon {
        let log = self.path(format!("log-{}", fastrand()));
        let child = self
            .command("serve", mountpoint)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Daemon {
            child,
            mountpoint: mountpoint.to_owned(),
            log,
        };
        let ready = wait_until(LIMIT, || {
            daemon.child.try_wait().unwrap().is_some() || daemon.log().contains("serving ")
        });
        assert!(
            ready && daemon.child.try_wait().unwrap().is_none(),
            "{:?}: {}",
            self.who,
            daemon.log()
        );
        daemon
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for mount in mounts::xpmfs().unwrap_or_default() {
            if mount.mountpoint.starts_with(self.dir.path()) {
                let _ = attach::detach(&mount.mountpoint, How::Lazy);
            }
        }
    }
}

fn fastrand() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A daemon in the foreground.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) mountpoint: PathBuf,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn mount(&self) -> Option<MountInfo> {
        mounts::top_at(&self.mountpoint)
            .unwrap()
            .filter(MountInfo::is_xpmfs)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its exit status once it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(LIMIT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status
            .unwrap_or_else(|| panic!("still there: {}", self.log()))
            .code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is to be seen in a mount, by who serves it.
pub(crate) fn content(mountpoint: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(mountpoint.join(NAME))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn sentence(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn var(name: &str) -> Option<OsString> {
    std::env::var_os(format!("XPMFS_TEST_{name}"))
}

fn fault() -> Fault {
    match var("FAULT").as_deref().and_then(OsStr::to_str) {
        Some("hang") => Fault::HangsInGetattr,
        Some("fail") => Fault::FailsToServe,
        Some("die") => Fault::DiesBeforeReady,
        Some("linger") => Fault::Lingers,
        _ => Fault::Nothing,
    }
}

fn serve(caller: Launcher) -> Result<(), String> {
    let primary = PathBuf::from(var("PRIMARY").unwrap());
    let asked = PathBuf::from(var("MOUNTPOINT").unwrap());
    let mountpoint = check_mountpoint(&asked, Some(&primary)).map_err(|error| error.to_string())?;
    let mut attachment = Attachment::new(mountpoint, var("SOURCE").unwrap_or("test,\\ one".into()));
    attachment.allow_other = var("ALLOW_OTHER").is_some();
    attachment.read_only = var("READ_ONLY").is_some();
    attachment.exec = var("NOEXEC").is_none();
    let about = About {
        workspace: Some("one".into()),
        primary: primary.clone(),
        log: "nowhere".into(),
    };
    let service = Arc::new(OneFile::new(&primary, fault()));
    run(service, &attachment, &about, caller, None).map_err(|error| error.to_string())
}

/// What a process of this binary does when it is on stage.
pub(crate) fn player() {
    let Some(what) = var("DO") else { return };
    let mountpoint = PathBuf::from(var("MOUNTPOINT").unwrap());
    let said = match what.to_str().unwrap() {
        "serve" => {
            log::init(&Destination::Stderr, &mountpoint, Verbosity::default()).unwrap();
            serve(Launcher::Foreground)
        }
        "background" => {
            let parent = Parent::from_stdin().unwrap();
            let log = Destination::File(PathBuf::from(var("LOG").unwrap()));
            log::init(&log, &mountpoint, Verbosity::default()).unwrap();
            let other = parent.try_clone().unwrap();
            let served = serve(Launcher::Background(parent));
            if let Err(reason) = &served {
                other.failed(reason);
                std::process::exit(1);
            }
            served
        }
        "launch" => {
            let play = |what: &str| {
                let mut command = Command::new("/proc/self/exe");
                command
                    .args(std::env::args_os().skip(1))
                    .env("XPMFS_TEST_DO", what);
                command
            };
            let launch = Launch {
                daemon: play("background"),
                probe: play("probe"),
            };
            background::launch(launch, &mountpoint, "the log")
                .map(|pid| eprintln!("pid {pid}"))
                .map_err(|error| error.to_string())
        }
        "probe" => std::process::exit(i32::from(!health::answers(&mountpoint))),
        "umount" | "umount-lazily" => {
            let how = if what == "umount" {
                How::Clean
            } else {
                How::Lazy
            };
            unmount::mount_at(&mountpoint)
                .and_then(|mount| unmount::unmount(&mount, how, |_| ()))
                .map(|became| eprintln!("{became:?}"))
                .map_err(|error| error.to_string())
        }
        "read" => {
            let seen = content(&mountpoint).map_err(|error| error.to_string());
            seen.and_then(|seen| {
                (seen == CONTENT)
                    .then_some(())
                    .ok_or("other content".into())
            })
        }
        "status" => {
            let mounts = inventory::take().unwrap();
            let mine = mounts
                .into_iter()
                .filter(|m| m.mount.mountpoint == mountpoint);
            for mounted in mine {
                eprintln!(
                    "{:?} {:?} {:?}",
                    mounted.health, mounted.identity, mounted.service
                );
            }
            Ok(())
        }
        other => panic!("{other}?"),
    };
    match said {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
