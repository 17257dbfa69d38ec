//! Verifies the copies of runs and partials, for `jobs verify --all`.

use serde_json::Value;

use super::super::meter::Meter;
use super::super::session::Session;
use super::json;
use crate::archive::experiments::Item;
use crate::archive::experiments::verify::{COPY_GONE, VerifiedItem, remedy, verify};
use crate::archive::state_dir;
use crate::cli::Global;
use crate::transfer::Difference;

/// The copies of runs and partials.
#[derive(Default)]
pub(super) struct Items {
    pub(super) ok: u64,
    pub(super) wrong: u64,
    pub(super) lines: Vec<Value>,
    /// Why not all of it is recorded, if so.
    pub(super) unrecorded: Option<String>,
}

/// Reads every copy, and prints what is wrong with it.
pub(super) fn verify_all(session: &Session, meter: &Meter, global: &Global) -> Items {
    let mut items = Items::default();
    let recorded = verify(&session.env(), &mut |folder, item, verified| {
        items.add(&session.label(folder), item, verified, meter, global);
    });
    let primary = session.opened.view.primary();
    items.unrecorded = recorded
        .err()
        .map(|error| state_dir::explain(primary, error));
    items
}

impl Items {
    fn add(
        &mut self,
        folder: &str,
        item: &Item,
        verified: VerifiedItem,
        meter: &Meter,
        global: &Global,
    ) {
        let (result, why) = match &verified {
            VerifiedItem::Read { damage, .. } => match damage.first() {
                None => ("ok", None),
                Some(Difference { path, what }) => {
                    let more = match damage.len() {
                        0 | 1 => String::new(),
                        count => format!(", and {} more", count - 1),
                    };
                    let why = format!("{} {what}{more}", path.display());
                    let why = format!("{why}; {}", remedy(&why));
                    ("damaged", Some(why))
                }
            },
            VerifiedItem::Missing => (
                "missing",
                Some(format!("{COPY_GONE}; {}", remedy(COPY_GONE))),
            ),
            VerifiedItem::Unread(cause) => ("unreadable", Some(cause.to_string())),
        };
        match &why {
            Some(why) => {
                self.wrong += 1;
                meter.say(&format!("{item} in {folder}: {result}: {why}"));
            }
            None => {
                self.ok += 1;
                if global.verbose > 0 {
                    meter.say(&format!("{item} in {folder}: OK"));
                }
            }
        }
        let mut line = json::entry(None, Some(folder.to_owned()), result, why.as_deref());
        line["item"] = item.to_string().into();
        line["whole"] = (result == "ok").into();
        line["present"] = (!matches!(verified, VerifiedItem::Missing)).into();
        line["manifest"] = true.into();
        if let VerifiedItem::Read {
            files,
            bytes,
            damage,
        } = &verified
        {
            (line["files"], line["bytes"]) = ((*files).into(), (*bytes).into());
            line["differences"] = json::differences(&mut damage.iter()).into();
        }
        self.lines.push(line);
    }

    /// `3 runs and partials OK, 1 not OK`; `None` if there are none.
    pub(super) fn summary(&self) -> Option<String> {
        match (self.ok, self.wrong) {
            (0, 0) => None,
            (1, 0) => Some("1 run or partial OK".to_owned()),
            (1, wrong) => Some(format!("1 run or partial OK, {wrong} not OK")),
            (ok, 0) => Some(format!("{ok} runs and partials OK")),
            (ok, wrong) => Some(format!("{ok} runs and partials OK, {wrong} not OK")),
        }
    }
}
