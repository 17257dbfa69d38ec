//! A program in a terminal: a pseudo-terminal of a given size whose screen can be read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long a screen may take to show something, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Terminal {
    pub child: Child,
    master: OwnedFd,
    parser: Arc<Mutex<vt100::Parser>>,
    /// All that was written to the terminal.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command in a terminal of so many rows and columns.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        set_size(&master, rows, columns);
        let slave = || {
            let mut options = File::options();
            let file = options.read(true).write(true);
            file.open(name.to_str().unwrap()).unwrap()
        };
        // setsid makes the terminal that of a new session.
        let mut with = Command::new("setsid");
        with.env_remove("NO_COLOR");
        with.arg("--ctty").arg(command.get_program());
        with.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => with.env(name, value),
                None => with.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            with.current_dir(directory);
        }
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            with.env("TERM", "xterm-256color");
        }
        if !command.get_envs().any(|(name, _)| name == "LC_ALL") {
            with.env("LC_ALL", "C.UTF-8");
        }
        let child = with
            .env("TZ", "UTC")
            .env_remove("TMUX")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut from = File::from(master.try_clone().unwrap());
        let (shown, all) = (parser.clone(), written.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 64 << 10];
            // EIO: the program has ended.
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..length]);
                shown.lock().unwrap().process(&bytes[..length]);
            }
        });
        Terminal {
            child,
            master,
            parser,
            written,
        }
    }

    /// What the terminal shows, without spaces at the ends of lines.
    pub fn screen(&self) -> String {
        let parser = self.parser.lock().unwrap();
        let columns = parser.screen().size().1;
        let rows = parser.screen().rows(0, columns);
        let rows: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned() + "\n"
    }

    /// Looks at the screen with its colours.
    pub fn look<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.parser.lock().unwrap().screen())
    }

    /// All that was written to the terminal.
    pub fn written(&self) -> Vec<u8> {
        self.written.lock().unwrap().clone()
    }

    /// Types keys.
    pub fn press(&self, keys: &str) {
        let mut to = File::from(self.master.try_clone().unwrap());
        to.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has a text.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("{text:?} to show"), |screen| screen.contains(text));
    }

    /// Waits for a condition of the screen.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.screen()) {
            assert!(
                Instant::now() < deadline,
                "waited for {what}; the screen is\n{}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        self.parser
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(rows, columns);
        set_size(&self.master, rows, columns);
    }

    pub fn kill(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the program.
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the program does not end; the screen is\n{}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the terminal is restored: what a program wrote last may be on its way when it has ended.
    pub fn becomes_restored(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.is_restored() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.is_restored()
    }

    /// Whether the terminal is as a shell wants it: its lines are edited and echoed, and no program has its screen or mouse.
    pub fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.master).unwrap().local_modes;
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
            && !screen.alternate_screen()
            && !screen.hide_cursor()
            && !screen.bracketed_paste()
            && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}
