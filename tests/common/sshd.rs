//! A real `sshd` on loopback with keys and a port of its own, for one test.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, run};

/// Where Debian has it, which is not on an ordinary user's `PATH`.
const SSHD: &str = "/usr/sbin/sshd";

pub(crate) struct Sshd {
    top: TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts it; `None` if the machine has none and the test may be skipped.
    pub(crate) fn start() -> Option<Sshd> {
        Sshd::with("")
    }

    /// With more lines of configuration.
    pub(crate) fn with(more: &str) -> Option<Sshd> {
        Sshd::of(more, "")
    }

    /// Its sessions find programs in a directory first.
    pub(crate) fn with_programs(directory: &Path) -> Option<Sshd> {
        Sshd::of("", &format!("PATH={}:/usr/bin:/bin", directory.display()))
    }

    fn of(more: &str, variables: &str) -> Option<Sshd> {
        if !Path::new(SSHD).exists() {
            super::skip(&format!("{SSHD} does not exist: install openssh-server"));
            return None;
        }
        let top = tempfile::Builder::new()
            .prefix("xpmfs-test-")
            .tempdir()
            .unwrap();
        let keys = top.path().join("k 'e' \"y\" $(touch PWNED)");
        fs::create_dir(&keys).unwrap();
        for (name, path) in [
            ("host", top.path().join("host")),
            ("user", keys.join("user")),
        ] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(path)
                .status();
            assert!(made.unwrap().success());
        }
        fs::copy(keys.join("user.pub"), top.path().join("authorized")).unwrap();
        if rustix::process::geteuid().is_root() {
            // For its unprivileged part.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        // The files that the user's shell reads are no part of a test: some wait for a lock that a killed session has left.
        let home = home(top.path());
        fs::create_dir(&home).unwrap();
        let more = format!("SetEnv HOME={} {variables}\n{more}", home.display());
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            if let Some(child) = listen(top.path(), port, &more) {
                return Some(Sshd { top, port, child });
            }
        }
        panic!(
            "sshd does not listen: {:?}",
            fs::read_to_string(top.path().join("log"))
        );
    }

    /// The keys `ssh` of a workspace there.
    pub(crate) fn ssh(&self) -> Value {
        let key = self.key();
        let user = run(Command::new("id").arg("-un"));
        json!({
            "host": format!("{}@127.0.0.1", user.trim()),
            "options": [
                "-F", "/dev/null", "-p", self.port.to_string(), "-i", key.to_str().unwrap(), "-o", "IdentitiesOnly=yes",
                "-o", "StrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            ],
        })
    }

    /// Cuts all connections, and goes on listening.
    pub(crate) fn cut(&self) {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        for pid in fs::read_to_string(children).unwrap().split_whitespace() {
            let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// The home directory of its sessions.
    pub(crate) fn home(&self) -> PathBuf {
        home(self.top.path())
    }

    /// The same key with a path of letters, for programs that split it.
    pub(crate) fn plain_key(&self) -> PathBuf {
        let key = self.top.path().join("user");
        if !key.exists() {
            fs::copy(self.key(), &key).unwrap();
        }
        key
    }

    fn key(&self) -> PathBuf {
        self.top.path().join("k 'e' \"y\" $(touch PWNED)/user")
    }
}

fn home(top: &Path) -> PathBuf {
    top.join("home")
}

fn listen(top: &Path, port: u16, more: &str) -> Option<Child> {
    let top = top.to_str().unwrap();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {top}/host\nAuthorizedKeysFile {top}/authorized\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         MaxStartups 100\n{more}\n"
    );
    fs::write(format!("{top}/config"), config).unwrap();
    let log = fs::File::create(format!("{top}/log")).unwrap();
    let mut child = Command::new(SSHD)
        .args(["-D", "-e", "-f", &format!("{top}/config")])
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut listens = false;
    eventually("sshd to listen or to end", || {
        listens = TcpStream::connect(("127.0.0.1", port)).is_ok_and(|mut stream| {
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
        });
        listens || child.try_wait().unwrap().is_some()
    });
    listens.then_some(child)
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
