//! Reading our own keys. They are ours alone, so they are read strictly: an unknown key is an error.

use std::time::Duration;

use super::document::{Node, Value};
use super::expect::{Decoder, Expected, Schema};
use super::units;
use super::xpmfs::{KeepFree, Patterns, Release, Tuning};

const XPMFS: Schema = Schema {
    what: "xpmfs",
    keys: &["settle", "scan_interval", "exclude", "release", "bandwidth"],
    closed: true,
};
const RELEASE: Schema = Schema {
    what: "release",
    keys: &["keep_free", "older_than"],
    closed: true,
};

const DURATION: Expected = Expected {
    kind: "a duration",
    example: "5m",
    text: false,
};
const SIZE: Expected = Expected {
    kind: "a size per second",
    example: "100M",
    text: false,
};
const KEEP_FREE: Expected = Expected {
    kind: "a size or a percentage",
    example: "100G",
    text: false,
};

/// An `xpmfs:` mapping.
pub(super) fn tuning(decoder: &mut Decoder<'_>, node: &Node) -> Tuning {
    if !decoder.mapping(node, &XPMFS) {
        return Tuning::default();
    }
    Tuning {
        settle: decoder.value(node, "settle", duration, DURATION),
        scan_interval: decoder.value(node, "scan_interval", duration, DURATION),
        exclude: node.get("exclude").map(|value| patterns(decoder, value)),
        release: decoder.part(node, "release", release),
        bandwidth: decoder.value(node, "bandwidth", size, SIZE),
    }
}

fn release(decoder: &mut Decoder<'_>, node: &Node) -> Release {
    if !decoder.mapping(node, &RELEASE) {
        return Release::default();
    }
    Release {
        keep_free: decoder.value(node, "keep_free", keep_free, KEEP_FREE),
        older_than: decoder.value(node, "older_than", duration, DURATION),
    }
}

/// A list of globs over `task_id` or `task_id/hash`.
pub(super) fn patterns(decoder: &mut Decoder<'_>, node: &Node) -> Patterns {
    let written = decoder.strings(node, "exclude");
    Patterns::new(written).unwrap_or_else(|(index, reason)| {
        // Items that are no strings have an error of their own, so the index may be that of another; close enough.
        let at = node.items().get(index).map_or(node.at, |item| item.at);
        decoder.error(
            at,
            format!("this is not a glob: {reason}"),
            "write for example `my.module.*` or `my.module.train/ab*`",
        );
        Patterns::default()
    })
}

/// Seconds, or a duration with its unit.
fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::Int(digits) => units::seconds_of(digits.parse().ok()?),
        Value::Float(x) => units::seconds_of(*x),
        Value::Str(text) => units::duration(text).ok(),
        _ => None,
    }
}

/// Bytes, or a size with its unit.
fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Int(digits) => digits.parse().ok(),
        Value::Str(text) => units::size(text).ok(),
        _ => None,
    }
}

fn keep_free(value: &Value) -> Option<KeepFree> {
    match value {
        Value::Str(text) if text.contains('%') => units::percent(text).map(KeepFree::Percent),
        _ => size(value).map(KeepFree::Bytes),
    }
}
