//! The daemon's record of the programs that hold its mount. The supervisor keeps it for the next worker.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::holder::Holder;
use super::terms::Terms;
use crate::daemon::supervisor::Link;
use crate::sys::memory_log::MemoryLog;

/// The most holders of a mount.
const HOLDERS_MAX: usize = 256;

/// A holder as it is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    holder: Holder,
    /// For people.
    description: String,
    /// When it was registered first, in seconds since 1970.
    since: i64,
    /// How many `mount --shared` were not followed by `umount`.
    holds: u32,
}

/// A holder, as `status` and messages show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderReport {
    /// In the form of the command line.
    pub holder: String,
    /// For people.
    pub description: String,
    /// When it was registered first, in seconds since 1970.
    pub since: i64,
    /// How many `mount --shared` were not followed by `umount`.
    pub holds: u32,
}

/// What the supervisor keeps.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Whether the mount was made with `--shared`: otherwise it stays when its last holder has left.
    shared: bool,
    terms: Terms,
    holders: Vec<Registered>,
}

/// The answer to a program that asks to hold the mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// It is registered.
    Held,
    /// The mount is about to be unmounted: mount anew.
    Unmounting,
    /// The mount was made differently.
    Different(Vec<String>),
    /// The holder has ended, or is not visible to the daemon.
    Absent,
    /// The mount has too many holders.
    Full,
}

/// The answer to a program that asks to unmount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnmountAnswer {
    /// No other program holds the mount: unmount it. Until the client disconnects, no holder is registered.
    Unmount,
    /// The hold has ended, and the mount stays for these holders; for none if it was made without `--shared`.
    Released(Vec<HolderReport>),
    /// The program holds nothing, and the mount stays for these holders.
    Held(Vec<HolderReport>),
}

/// The number of a client of the control socket.
pub type ClientId = u64;

/// The holders of a mount.
#[derive(Debug)]
pub struct Register {
    link: Option<Arc<Link>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: Record,
    /// The client that was permitted to unmount.
    unmounting: Option<ClientId>,
}

impl Register {
    /// The register of a new mount.
    #[must_use]
    pub fn new(shared: bool, terms: Terms, link: Option<Arc<Link>>) -> Register {
        let record = Record {
            shared,
            terms,
            holders: Vec::new(),
        };
        Register::of(record, link)
    }

    /// The register of a mount that another worker has served, from what its supervisor kept. With `terms`, they are others now.
    #[must_use]
    pub fn resumed(
        kept: Option<&OwnedFd>,
        terms: Option<Terms>,
        link: Option<Arc<Link>>,
    ) -> Register {
        let mut record: Option<Record> = None;
        if let Some(kept) = kept {
            let read = MemoryLog::read_at(kept.as_fd(), 0, |bytes| {
                record = serde_json::from_slice(bytes).ok();
            });
            if let Err(error) = read {
                tracing::error!("the holders of the mount cannot be read: {error}");
            }
        }
        let mut record = record.unwrap_or_default();
        if let Some(terms) = terms {
            record.terms = terms;
        }
        Register::of(record, link)
    }

    fn of(record: Record, link: Option<Arc<Link>>) -> Register {
        let state = State {
            record,
            unmounting: None,
        };
        let register = Register {
            link,
            state: Mutex::new(state),
        };
        register.keep(&register.state.lock().record);
        register
    }

    /// Hands the record to the supervisor, in place of the one before.
    fn keep(&self, record: &Record) {
        let Some(link) = &self.link else {
            return;
        };
        let kept = serde_json::to_vec(record)
            .map_err(std::io::Error::from)
            .and_then(|bytes| {
                let mut log = MemoryLog::new()?;
                log.append(&bytes)?;
                link.keep_holders(log.fd())
            });
        if let Err(error) = kept {
            tracing::warn!("the supervisor does not keep the holders of the mount: {error}");
        }
    }

    /// Whether a client was permitted to unmount, and is still connected.
    #[must_use]
    pub fn is_unmounting(&self) -> bool {
        self.state.lock().unmounting.is_some()
    }

    /// Registers a holder, or one more hold of it.
    pub fn hold(&self, holder: &Holder, description: &str, asked: &Terms) -> Hold {
        let mut state = self.state.lock();
        if state.unmounting.is_some() {
            return Hold::Unmounting;
        }
        let differences = state.record.terms.differences(asked);
        if !differences.is_empty() {
            return Hold::Different(differences);
        }
        if !holder.is_alive() {
            return Hold::Absent;
        }
        let holders = &mut state.record.holders;
        holders.retain(|one| one.holder.is_alive());
        let is_full = holders.len() >= HOLDERS_MAX;
        match holders.iter_mut().find(|one| one.holder == *holder) {
            Some(one) => one.holds = one.holds.saturating_add(1),
            None if is_full => return Hold::Full,
            None => holders.push(Registered {
                holder: holder.clone(),
                description: description.to_owned(),
                since: jiff::Timestamp::now().as_second(),
                holds: 1,
            }),
        }
        self.keep(&state.record);
        tracing::info!("{description} holds the mount");
        Hold::Held
    }

    /// Ends one hold of a holder, or permits the client to unmount.
    pub fn release(&self, holder: Option<&Holder>, client: ClientId) -> UnmountAnswer {
        let mut state = self.state.lock();
        let record = &mut state.record;
        record.holders.retain(|one| one.holder.is_alive());
        let own = record
            .holders
            .iter()
            .position(|one| Some(&one.holder) == holder);
        let Some(own) = own else {
            if record.holders.is_empty() {
                state.unmounting = Some(client);
                return UnmountAnswer::Unmount;
            }
            return UnmountAnswer::Held(reports(&record.holders));
        };
        let is_last = record.holders.iter().map(|one| one.holds).sum::<u32>() == 1;
        if is_last && record.shared {
            // The hold ends with the mount; if something uses the mount, both stay.
            state.unmounting = Some(client);
            return UnmountAnswer::Unmount;
        }
        if let Some(one) = record.holders.get_mut(own) {
            tracing::info!("{} does not hold the mount any more", one.description);
            one.holds -= 1;
        }
        record.holders.retain(|one| one.holds > 0);
        let others = reports(&record.holders);
        self.keep(&state.record);
        UnmountAnswer::Released(others)
    }

    /// Called when a client of the control socket has disconnected: it does not unmount any more.
    pub fn client_ended(&self, client: ClientId) {
        let mut state = self.state.lock();
        if state.unmounting == Some(client) {
            state.unmounting = None;
        }
    }

    /// Whether the mount was made with `--shared`.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.state.lock().record.shared
    }

    /// The holders that are alive.
    #[must_use]
    pub fn holders(&self) -> Vec<HolderReport> {
        let mut state = self.state.lock();
        let holders = &mut state.record.holders;
        holders.retain(|one| one.holder.is_alive());
        reports(holders)
    }
}

fn reports(holders: &[Registered]) -> Vec<HolderReport> {
    let report = |one: &Registered| HolderReport {
        holder: one.holder.to_string(),
        description: one.description.clone(),
        since: one.since,
        holds: one.holds,
    };
    holders.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::super::holder::Given;
    use super::*;

    fn sleeping() -> (Child, Holder) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let holder = Given::Process(pid).identify().unwrap();
        (child, holder)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn names(holders: &[HolderReport]) -> Vec<&str> {
        holders.iter().map(|one| &*one.description).collect()
    }

    #[test]
    fn the_last_of_several_holders_unmounts() {
        let register = Register::new(true, Terms::default(), None);
        let ((a, first), (b, second)) = (sleeping(), sleeping());
        let terms = Terms::default();
        for (holder, name) in [(&first, "a"), (&second, "b"), (&second, "b")] {
            assert_eq!(register.hold(holder, name, &terms), Hold::Held);
        }
        let UnmountAnswer::Released(others) = register.release(Some(&first), 1) else {
            panic!("unmounted");
        };
        assert_eq!(names(&others), ["b"]);
        assert!(matches!(register.release(None, 1), UnmountAnswer::Held(_)));
        assert!(matches!(
            register.release(Some(&first), 1),
            UnmountAnswer::Held(_)
        ));
        assert!(matches!(
            register.release(Some(&second), 1),
            UnmountAnswer::Released(_)
        ));
        assert_eq!(register.release(Some(&second), 7), UnmountAnswer::Unmount);
        assert_eq!(register.hold(&first, "a", &terms), Hold::Unmounting);
        // Something used the mount.
        register.client_ended(6);
        assert_eq!(register.hold(&first, "a", &terms), Hold::Unmounting);
        register.client_ended(7);
        assert_eq!(register.hold(&first, "a", &terms), Hold::Held);
        assert_eq!(names(&register.holders()), ["b", "a"]);
        end(a);
        end(b);
        assert_eq!(register.release(None, 1), UnmountAnswer::Unmount);
    }

    #[test]
    fn a_mount_that_was_made_without_sharing_stays_without_holders() {
        let register = Register::new(false, Terms::default(), None);
        let (a, holder) = sleeping();
        assert_eq!(register.hold(&holder, "a", &Terms::default()), Hold::Held);
        assert_eq!(
            register.release(Some(&holder), 1),
            UnmountAnswer::Released(Vec::new())
        );
        assert_eq!(register.release(Some(&holder), 1), UnmountAnswer::Unmount);
        end(a);
    }

    #[test]
    fn holders_are_bounded_and_must_live() {
        let register = Register::new(true, Terms::default(), None);
        let (a, holder) = sleeping();
        let mut other = Terms::default();
        other.add("read-only", true);
        let differs = register.hold(&holder, "a", &other);
        assert!(matches!(differs, Hold::Different(_)), "{differs:?}");
        let one = Registered {
            holder: holder.clone(),
            description: "a".to_owned(),
            since: 0,
            holds: 1,
        };
        register.state.lock().record.holders = vec![one; HOLDERS_MAX];
        let (b, next) = sleeping();
        assert_eq!(register.hold(&next, "b", &Terms::default()), Hold::Full);
        end(a);
        assert_eq!(register.hold(&holder, "a", &Terms::default()), Hold::Absent);
        assert_eq!(register.hold(&next, "b", &Terms::default()), Hold::Held);
        end(b);
    }
}
