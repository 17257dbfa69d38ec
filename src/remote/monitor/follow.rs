//! Follows a workspace on another machine: keeps the answers that are shown up to date, and connects again when the connection ends.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::super::ssh::Connection;
use super::model::{Answer, Notice, RemoteQuestion};
use super::schedule::Schedule;
use super::server::MonitorServer;
use super::session::{Incoming, MonitorError, Session};
use super::xpmfs::RemoteXpmfs;

/// The first pause before it connects again, and the longest.
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long the end of the connection is waited for.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How many orders wait at most.
const ORDERS_MAX: usize = 64;

/// What a monitor reports.
#[derive(Debug)]
pub enum MonitorEvent {
    /// It connects.
    Connecting,
    /// It is connected.
    Connected,
    /// It is not connected: why, and when it connects again.
    Lost(String, Instant),
    /// The server has not answered since then; `None`: it has.
    Late(Option<Instant>),
    /// Something that the other machine printed.
    Said(String),
    /// The answer to a question.
    Answer(RemoteQuestion, Result<Answer, String>),
    /// Something happened.
    Notice(Notice),
}

/// What the caller wants.
enum Order {
    Show(Vec<RemoteQuestion>),
    Ask(RemoteQuestion),
    /// Look at everything again; connect at once.
    Refresh,
}

/// A workspace that is followed. Dropping it ends the connection.
#[derive(Debug)]
pub struct Monitor {
    orders: Option<Sender<Order>>,
    thread: std::thread::JoinHandle<()>,
    /// Whether it is to end, for the thread while it connects.
    ends: Arc<AtomicBool>,
}

/// A first connection.
pub struct Connected {
    server: MonitorServer,
    timeout: Duration,
    connection: Arc<Connection>,
    session: Session,
}

impl Connected {
    /// Connects for the first time: `ssh` may ask for passwords at the terminal. `said` gets what the other machine prints.
    ///
    /// # Errors
    ///
    /// There is no connection, the server does not start or answer, or it speaks another version.
    pub fn new(
        server: MonitorServer,
        timeout: Duration,
        said: &dyn Fn(String),
    ) -> Result<Connected, MonitorError> {
        let ssh = &server.ssh;
        let connection = Connection::new(&server.workspace, &ssh.host, &ssh.options)?;
        let never = AtomicBool::new(false);
        let session = Session::open(&connection, &server, timeout, said, &never)?;
        connection.ask_no_more();
        Ok(Connected {
            server,
            timeout,
            connection: Arc::new(connection),
            session,
        })
    }

    /// The workspace's directory there.
    #[must_use]
    pub fn workdir(&self) -> String {
        let named = self.session.workdir.clone();
        named.unwrap_or_else(|| self.server.workdir.to_string_lossy().into_owned())
    }

    /// Another user of the connection, for logs.
    #[must_use]
    pub fn logs(&self) -> super::log::Logs {
        super::log::Logs::new(self.connection.clone(), self.workdir().into())
    }

    /// Another user of the connection, for `xpmfs` there.
    #[must_use]
    pub fn xpmfs(&self, program: OsString) -> RemoteXpmfs {
        let server = MonitorServer {
            workdir: self.workdir().into(),
            ..self.server.clone()
        };
        RemoteXpmfs::new(self.connection.clone(), server, program, self.timeout)
    }
}

impl Monitor {
    /// Follows the workspace. `report` returns false when nothing is to be reported any more.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn start(
        connected: Connected,
        report: impl Fn(MonitorEvent) -> bool + Send + 'static,
    ) -> std::io::Result<Monitor> {
        let (orders, ordered) = bounded(ORDERS_MAX);
        let thread = Builder::new().name("xpmfs-monitor".to_owned());
        let Connected {
            server,
            timeout,
            connection,
            session,
        } = connected;
        let ends = Arc::new(AtomicBool::new(false));
        let mut follower = Follower {
            ends: ends.clone(),
            server,
            timeout,
            connection,
            schedule: Schedule::default(),
            orders: ordered,
            report: Box::new(report),
        };
        let thread = thread.spawn(move || {
            // It ends with the caller.
            let _ = follower.follow(session);
        })?;
        Ok(Monitor {
            orders: Some(orders),
            thread,
            ends,
        })
    }

    /// Shows the answers to these questions, and keeps them up to date. Returns false if that is to be asked for again.
    pub fn show(&self, questions: Vec<RemoteQuestion>) -> bool {
        self.order(Order::Show(questions))
    }

    /// Asks once. Returns false if that is not possible now.
    pub fn ask(&self, question: RemoteQuestion) -> bool {
        self.order(Order::Ask(question))
    }

    /// Looks at everything again, on the disk there; connects at once if the connection is lost.
    pub fn refresh(&self) -> bool {
        self.order(Order::Refresh)
    }

    fn order(&self, order: Order) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.try_send(order).is_ok())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.orders = None;
        self.ends.store(true, Ordering::Relaxed);
        // So that it can remove the socket of the connection; without, the next connection does.
        let deadline = Instant::now() + END_TIMEOUT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The caller is gone.
struct Ended;

struct Follower {
    ends: Arc<AtomicBool>,
    server: MonitorServer,
    timeout: Duration,
    connection: Arc<Connection>,
    schedule: Schedule,
    orders: Receiver<Order>,
    report: Box<dyn Fn(MonitorEvent) -> bool + Send>,
}

impl Follower {
    fn report(&self, event: MonitorEvent) -> Result<(), Ended> {
        (self.report)(event).then_some(()).ok_or(Ended)
    }

    fn follow(&mut self, mut session: Session) -> Result<(), Ended> {
        let mut pause = RECONNECT_FIRST;
        loop {
            self.report(MonitorEvent::Connected)?;
            self.schedule.restart(false);
            let since = Instant::now();
            let why = self.talk(&mut session)?;
            for question in session.open_actions() {
                let why = "the connection ended before the answer: it may have happened".to_owned();
                self.report(MonitorEvent::Answer(question, Err(why)))?;
            }
            drop(session);
            // A server that ends as soon as it has started is not started again and again at once.
            if since.elapsed() > RECONNECT_MAX {
                pause = RECONNECT_FIRST;
            }
            let mut why = why;
            session = loop {
                self.wait(&why, pause)?;
                pause = (pause * 2).min(RECONNECT_MAX);
                self.report(MonitorEvent::Connecting)?;
                match self.connect() {
                    Ok(session) => break session,
                    Err(error) => why = error.to_string(),
                }
            };
        }
    }

    fn connect(&self) -> Result<Session, MonitorError> {
        let said = |text| {
            // If nothing is to be reported any more, the next report ends it.
            let _ = (self.report)(MonitorEvent::Said(text));
        };
        let (connection, server) = (&self.connection, &self.server);
        Session::open(connection, server, self.timeout, &said, &self.ends)
    }

    /// Waits before the next connection.
    fn wait(&mut self, why: &str, pause: Duration) -> Result<(), Ended> {
        let until = Instant::now() + pause;
        self.report(MonitorEvent::Lost(why.to_owned(), until))?;
        loop {
            match self.orders.recv_deadline(until) {
                Ok(Order::Show(shown)) => self.schedule.show(shown),
                Ok(Order::Ask(question)) => {
                    let why = "not connected".to_owned();
                    self.report(MonitorEvent::Answer(question, Err(why)))?;
                }
                Ok(Order::Refresh) | Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
        }
    }

    /// Asks and listens for as long as the connection lasts. Returns why it ended.
    fn talk(&mut self, session: &mut Session) -> Result<String, Ended> {
        let mut late = None;
        loop {
            for (question, from_disk) in self.schedule.due(Instant::now()) {
                if !session.is_pending(&question) && !session.ask(question, from_disk) {
                    return Ok("the server does not read what it is asked".to_owned());
                }
            }
            let orders = self.orders.clone();
            select! {
                recv(session.incoming) -> incoming => match incoming {
                    Ok(Incoming::End(why)) => return Ok(why),
                    Ok(incoming) => {
                        if let Some(why) = self.incoming(incoming)? {
                            return Ok(why);
                        }
                    }
                    Err(_) => return Ok("the connection ended".to_owned()),
                },
                recv(orders) -> order => match order {
                    Ok(Order::Show(shown)) => self.schedule.show(shown),
                    Ok(Order::Refresh) => self.schedule.restart(true),
                    Ok(Order::Ask(question)) => {
                        if !session.ask(question.clone(), false) {
                            let why = "the server does not read what it is asked".to_owned();
                            self.report(MonitorEvent::Answer(question, Err(why)))?;
                        }
                    }
                    Err(_) => return Err(Ended),
                },
                default(TICK) => {}
            }
            let waits = session.waits_since();
            let now_late = waits.filter(|since| since.elapsed() > self.timeout);
            if now_late.is_some() != late.is_some() {
                late = now_late;
                self.report(MonitorEvent::Late(late))?;
            }
            for question in session.give_up(self.timeout) {
                let seconds = self.timeout.as_secs();
                let why = format!("no answer within {seconds} s: it may still happen");
                self.report(MonitorEvent::Answer(question, Err(why)))?;
            }
        }
    }

    /// Passes a message on. Returns why the connection ends, if it does.
    fn incoming(&mut self, incoming: Incoming) -> Result<Option<String>, Ended> {
        match incoming {
            Incoming::Answer(question, answer, took) => {
                self.schedule.answered(&question, took, Instant::now());
                if question.is_action() {
                    self.schedule.changed(&Notice::Jobs);
                }
                self.report(MonitorEvent::Answer(question, answer))?;
            }
            Incoming::Notice(Notice::Shutdown(why)) => {
                return Ok(Some(format!("the server ended: {why}")));
            }
            Incoming::Notice(notice) => {
                self.schedule.changed(&notice);
                self.report(MonitorEvent::Notice(notice))?;
            }
            Incoming::Said(text) => self.report(MonitorEvent::Said(text))?,
            Incoming::End(why) => return Ok(Some(why)),
            Incoming::Greeting(_) => {}
        }
        Ok(None)
    }
}
