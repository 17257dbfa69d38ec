//! From the tree to [`Settings`]: what pydantic does with experimaestro's dataclasses, collecting every mistake.
//!
//! Keys that nobody knows are ignored, as experimaestro does, with a warning; below `xpmfs:` they are errors.
//! Anything else that is refused there is an error here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::coerce;
use super::decode_xpmfs;
use super::document::{Node, Position, Value};
use super::environment::Environment;
use super::error::{Finding, nearest};
use super::model::{Carbon, Folder, History, Mode, Server, Settings, Ssh, Workspace};
use super::path;

/// Reads a tree, and says everything that is wrong with it.
pub(super) struct Decoder<'e> {
    pub(super) environment: &'e Environment,
    pub(super) findings: Vec<Finding>,
}

/// The known keys of a mapping, and what it is called in messages.
pub(super) struct Schema {
    pub(super) what: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Whether a key that is not known is an error: in what is ours.
    pub(super) closed: bool,
}

const fn schema(what: &'static str, keys: &'static [&'static str]) -> Schema {
    Schema {
        what,
        keys,
        closed: false,
    }
}

pub(super) const TOP: Schema = schema(
    "the settings",
    &["server", "workspaces", "env", "history", "carbon", "xpmfs"],
);
const SERVER: Schema = schema("server", &["port", "host", "autohost", "token"]);
const HISTORY: Schema = schema("history", &["max_done", "max_failed"]);
const CARBON: Schema = schema(
    "carbon",
    &[
        "enabled",
        "provider",
        "country_iso_code",
        "region",
        "report_interval_s",
        "warn_if_unavailable",
    ],
);
const SSH: Schema = schema(
    "ssh",
    &[
        "host",
        "shell_init",
        "uv_offline",
        "python",
        "xpm_path",
        "options",
    ],
);
const FOLDER: Schema = schema("a folder", &["path", "mode", "exclude"]);
const WORKSPACE: Schema = schema(
    "a workspace",
    &[
        "id",
        "path",
        "env",
        "alt_workspaces",
        "folders",
        "max_retries",
        "lock_mode",
        "triggers",
        "history",
        "ssh",
        "xpmfs",
    ],
);

impl<'e> Decoder<'e> {
    pub(super) fn new(environment: &'e Environment) -> Decoder<'e> {
        Decoder {
            environment,
            findings: Vec::new(),
        }
    }

    pub(super) fn error(
        &mut self,
        at: Position,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.findings.push(Finding::error(at, message, advice));
    }

    /// The whole file. What could not be read has its default; [`Self::findings`] then holds an error.
    pub(super) fn settings(&mut self, node: &Node, file: &Path) -> Settings {
        let mut settings = Settings {
            file: file.to_path_buf(),
            ..Settings::default()
        };
        if !self.mapping(node, &TOP) {
            return settings;
        }
        settings.server = self.part(node, "server", Self::server);
        settings.history = self.part(node, "history", Self::history);
        settings.carbon = self.part(node, "carbon", Self::carbon);
        settings.env = self.part(node, "env", |this, node| this.strings_by_name(node, "env"));
        settings.xpmfs = self.part(node, "xpmfs", decode_xpmfs::tuning);
        settings.workspaces = self.part(node, "workspaces", |this, node| {
            this.list(
                node,
                "workspaces",
                "`- id: …` and `path: …`, one for each workspace",
                Self::workspace,
            )
        });
        settings
    }

    fn server(&mut self, node: &Node) -> Server {
        if !self.mapping(node, &SERVER) {
            return Server::default();
        }
        Server {
            port: self.optional(node, "port", coerce::integer, INTEGER),
            host: self.optional(node, "host", coerce::string, STRING),
            autohost: self.optional(node, "autohost", coerce::string, STRING),
            token: self.optional(node, "token", coerce::string, STRING),
        }
    }

    fn history(&mut self, node: &Node) -> History {
        let default = History::default();
        if !self.mapping(node, &HISTORY) {
            return default;
        }
        History {
            max_done: self
                .value(node, "max_done", coerce::integer, INTEGER)
                .unwrap_or(default.max_done),
            max_failed: self
                .value(node, "max_failed", coerce::integer, INTEGER)
                .unwrap_or(default.max_failed),
        }
    }

    fn carbon(&mut self, node: &Node) -> Carbon {
        let default = Carbon::default();
        if !self.mapping(node, &CARBON) {
            return default;
        }
        Carbon {
            enabled: self
                .value(node, "enabled", coerce::boolean, BOOLEAN)
                .unwrap_or(default.enabled),
            provider: self
                .value(node, "provider", coerce::string, STRING)
                .unwrap_or(default.provider),
            country_iso_code: self.optional(node, "country_iso_code", coerce::string, STRING),
            region: self.optional(node, "region", coerce::string, STRING),
            report_interval_s: self
                .value(node, "report_interval_s", coerce::float, NUMBER)
                .unwrap_or(default.report_interval_s),
            warn_if_unavailable: self
                .value(node, "warn_if_unavailable", coerce::boolean, BOOLEAN)
                .unwrap_or(default.warn_if_unavailable),
        }
    }

    fn ssh(&mut self, node: &Node) -> Option<Ssh> {
        if matches!(node.value, Value::Null) || !self.mapping(node, &SSH) {
            return None;
        }
        Some(Ssh {
            host: self
                .value(node, "host", coerce::string, STRING)
                .unwrap_or_default(),
            shell_init: self.optional(node, "shell_init", coerce::string, STRING),
            uv_offline: self
                .value(node, "uv_offline", coerce::boolean, BOOLEAN)
                .unwrap_or_default(),
            python: self.optional(node, "python", coerce::string, STRING),
            xpm_path: self.optional(node, "xpm_path", coerce::string, STRING),
            options: self.part(node, "options", |this, node| this.strings(node, "options")),
        })
    }

    fn workspace(&mut self, node: &Node) -> Option<Workspace> {
        if !self.mapping(node, &WORKSPACE) {
            return None;
        }
        let id = self.required(node, &WORKSPACE, "id", coerce::string, STRING);
        let raw = self.required(node, &WORKSPACE, "path", path_text, PATH);
        let default = Workspace::bare(path::normal(Path::new(raw.as_deref().unwrap_or(""))));
        let mut workspace = Workspace {
            id: id.unwrap_or_default(),
            env: self.part(node, "env", |this, node| this.strings_by_name(node, "env")),
            alt_workspaces: self.part(node, "alt_workspaces", |this, node| {
                this.strings(node, "alt_workspaces")
            }),
            folders: self.part(node, "folders", |this, node| {
                this.list(
                    node,
                    "folders",
                    "`- path: …` and `mode: …`, one for each folder",
                    Self::folder,
                )
            }),
            max_retries: self
                .value(node, "max_retries", coerce::integer, INTEGER)
                .unwrap_or(default.max_retries),
            lock_mode: self
                .value(node, "lock_mode", coerce::string, STRING)
                .unwrap_or(default.lock_mode),
            triggers: self.part(node, "triggers", |this, node| {
                this.strings(node, "triggers")
            }),
            history: self.part(node, "history", Self::history),
            ssh: self.part(node, "ssh", Self::ssh),
            xpmfs: self.part(node, "xpmfs", decode_xpmfs::tuning),
            path: default.path,
            raw_path: default.raw_path,
        };
        if !workspace.is_remote() && raw.is_some() {
            let at = node.get("path").map_or(node.at, |value| value.at);
            workspace.path = self.path(
                at,
                path::expand_and_resolve(&workspace.path, self.environment),
            );
        }
        Some(workspace)
    }

    fn folder(&mut self, node: &Node) -> Option<Folder> {
        if !self.mapping(node, &FOLDER) {
            return None;
        }
        let raw = self.required(node, &FOLDER, "path", path_text, PATH);
        let mode = match node.get("mode") {
            None => Mode::Use,
            Some(value) => self.mode(value),
        };
        let exclude = self.part(node, "exclude", decode_xpmfs::patterns);
        let raw = raw?;
        let at = node.get("path").map_or(node.at, |value| value.at);
        let path = self.path(at, path::expand_user(Path::new(&raw), self.environment));
        Some(Folder {
            path,
            mode,
            exclude,
        })
    }

    fn mode(&mut self, node: &Node) -> Mode {
        let text = coerce::string(&node.value);
        match text.as_deref().map(str::parse) {
            Some(Ok(mode)) => return mode,
            Some(Err(_)) => {
                let text = text.unwrap_or_default();
                let meant = nearest(&text, Mode::ALL.map(Mode::name));
                self.error(
                    node.at,
                    format!("`{text}` is not a mode"),
                    match meant {
                        Some(mode) => format!("did you mean `mode: {mode}`?"),
                        None => "write `mode: use`, `mode: backup` or `mode: move`".to_owned(),
                    },
                );
            }
            None => {
                let message = format!(
                    "`mode` is {}, and must be `use`, `backup` or `move`",
                    node.value.kind()
                );
                self.error(node.at, message, "without the key, the mode is `use`");
            }
        }
        Mode::Use
    }

    fn path(&mut self, at: Position, path: Result<PathBuf, path::PathError>) -> PathBuf {
        path.unwrap_or_else(|error| {
            self.error(at, error.to_string(), "write the path in full");
            PathBuf::new()
        })
    }

    /// Whether a node is a mapping whose keys are strings; says so if not, and warns of keys that are not known.
    pub(super) fn mapping(&mut self, node: &Node, schema: &Schema) -> bool {
        let Value::Map(entries) = &node.value else {
            let what = schema.what;
            let message = format!(
                "{what} must be a mapping (`key: value` lines), and this is {}",
                node.value.kind()
            );
            let advice = match node.value {
                Value::Null if what == TOP.what => {
                    "write `{}` for settings that are all default, or remove the file"
                }
                Value::Null => "write the keys below it, indented, or remove the line",
                _ => "write one key a line, each followed by `: ` and its value",
            };
            self.error(node.at, message, advice);
            return false;
        };
        for (key, _) in entries {
            match key.as_str() {
                None => {
                    let message = format!(
                        "a key must be a string, and this one is {}",
                        key.value.kind()
                    );
                    self.error(key.at, message, "put it in quotes: YAML reads words such as `on`, `yes` and `null` otherwise");
                }
                Some(name) if !schema.keys.contains(&name) => {
                    self.unknown_key(key.at, name, schema)
                }
                Some(_) => {}
            }
        }
        true
    }

    fn unknown_key(&mut self, at: Position, name: &str, schema: &Schema) {
        let advice = match nearest(name, schema.keys.iter().copied()) {
            Some(key) => format!("did you mean `{key}`?"),
            None => format!("the keys here are {}", listed(schema.keys)),
        };
        let message = format!("unknown key `{name}` in {}", schema.what);
        self.findings.push(if schema.closed {
            Finding::error(at, message, advice)
        } else {
            Finding::warning(at, format!("{message}: it is ignored"), advice)
        });
    }

    /// The value of a key through a function of its own; the default if the key is not there.
    pub(super) fn part<T: Default>(
        &mut self,
        node: &Node,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> T,
    ) -> T {
        node.get(key)
            .map_or_else(T::default, |value| read(self, value))
    }

    /// A key that has to be there.
    fn required<T>(
        &mut self,
        node: &Node,
        schema: &Schema,
        key: &str,
        read: fn(&Value) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        if node.get(key).is_none() {
            let message = format!("{} needs the key `{key}`", schema.what);
            self.error(node.at, message, format!("add `{key}: …`"));
            return None;
        }
        self.value(node, key, read, expected)
    }

    /// A key that may be `null`.
    fn optional<T>(
        &mut self,
        node: &Node,
        key: &str,
        read: fn(&Value) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        match node.get(key) {
            Some(Node {
                value: Value::Null, ..
            }) => None,
            _ => self.value(node, key, read, expected),
        }
    }

    /// A key that may not be there.
    pub(super) fn value<T>(
        &mut self,
        node: &Node,
        key: &str,
        read: fn(&Value) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        let value = node.get(key)?;
        let result = read(&value.value);
        if result.is_none() {
            self.wrong_type(value, key, expected);
        }
        result
    }

    pub(super) fn wrong_type(&mut self, node: &Node, key: &str, expected: Expected) {
        let message = format!(
            "`{key}` must be {}, and this is {}",
            expected.kind,
            written(&node.value)
        );
        let advice = match &node.value {
            // 0664 is octal, and so 436.
            Value::Int(digits) if key == "lock_mode" => {
                format!(
                    "put it in quotes: `lock_mode: \"{:04o}\"`",
                    digits.parse::<u64>().unwrap_or(0o664)
                )
            }
            Value::Null => "write a value, or remove the line to have the default".to_owned(),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Date if expected.text => {
                format!("put it in quotes: `{key}: \"…\"`")
            }
            _ => format!("write for example `{key}: {}`", expected.example),
        };
        self.error(node.at, message, advice);
    }

    /// A list (or a set, as pydantic lets pass); says so if it is none, and leaves out what cannot be read.
    fn list<T>(
        &mut self,
        node: &Node,
        key: &str,
        items: &str,
        read: impl Fn(&mut Self, &Node) -> Option<T>,
    ) -> Vec<T> {
        if !matches!(node.value, Value::Seq(_) | Value::Set(_)) {
            let message = format!(
                "`{key}` must be a list, and this is {}",
                written(&node.value)
            );
            let advice = match node.value {
                Value::Null => format!("write `{key}: []`, or remove the line"),
                _ => format!("write {items}"),
            };
            self.error(node.at, message, advice);
        }
        node.items()
            .iter()
            .filter_map(|item| read(self, item))
            .collect()
    }

    /// A list of strings.
    pub(super) fn strings(&mut self, node: &Node, key: &str) -> Vec<String> {
        let items = format!("`{key}: [\"…\", \"…\"]`, or `- \"…\"`, one a line");
        self.list(node, key, &items, |this, item| {
            let text = coerce::string(&item.value);
            if text.is_none() {
                let message = format!(
                    "`{key}` must hold strings, and this is {}",
                    written(&item.value)
                );
                this.error(item.at, message, "put it in quotes");
            }
            text
        })
    }

    /// A mapping from strings to strings.
    fn strings_by_name(&mut self, node: &Node, key: &str) -> BTreeMap<String, String> {
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "`{key}` must be a mapping (`NAME: value` lines), and this is {}",
                written(&node.value)
            );
            self.error(
                node.at,
                message,
                "write `NAME: value`, one a line, indented, or remove the line",
            );
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for (name, value) in entries {
            let Some(text) = coerce::string(&name.value) else {
                let message = format!(
                    "a name in `{key}` must be a string, and this is {}",
                    name.value.kind()
                );
                self.error(name.at, message, "put it in quotes");
                continue;
            };
            match coerce::string(&value.value) {
                Some(value) => drop(out.insert(text, value)),
                None => {
                    let message = format!(
                        "`{text}` must be a string, and this is {}",
                        written(&value.value)
                    );
                    self.error(value.at, message, format!("write `{text}: \"…\"`"));
                }
            }
        }
        out
    }
}

/// A type, for messages.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) kind: &'static str,
    pub(super) example: &'static str,
    /// Whether quotes would make a number right.
    pub(super) text: bool,
}

const STRING: Expected = Expected {
    kind: "a string",
    example: "\"…\"",
    text: true,
};
const PATH: Expected = Expected {
    kind: "a path",
    example: "/path/to/directory",
    text: true,
};
const INTEGER: Expected = Expected {
    kind: "an integer",
    example: "3",
    text: false,
};
const NUMBER: Expected = Expected {
    kind: "a number",
    example: "60.0",
    text: false,
};
const BOOLEAN: Expected = Expected {
    kind: "true or false",
    example: "true",
    text: false,
};

/// pydantic's `Path`: a string alone.
fn path_text(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.clone()),
        _ => None,
    }
}

/// A value in a message: its kind, and itself if it is short.
pub(super) fn written(value: &Value) -> String {
    let kind = value.kind();
    match value {
        Value::Str(text) if text.chars().count() <= 40 => format!("the string `{text}`"),
        Value::Int(digits) if digits.len() <= 20 => format!("the integer `{digits}`"),
        Value::Float(x) => format!("the number `{x}`"),
        Value::Bool(flag) => format!("the boolean `{flag}`"),
        _ => kind.to_owned(),
    }
}

/// `a`, `b` and `c`
fn listed(keys: &[&str]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}
