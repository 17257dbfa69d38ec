//! From the tree to [`Settings`]: experimaestro's dataclasses, as pydantic fills them, collecting every mistake.
//!
//! Keys that nobody knows are ignored, as experimaestro does, with a warning; below `xpmfs:` they are errors.
//! Anything else that is refused there is an error here.

use std::path::{Path, PathBuf};

use super::coerce;
use super::decode_xpmfs;
use super::document::{Node, Position, Value};
use super::expect::{Decoder, Expected, Schema, THE_FILE};
use super::model::{Carbon, Folder, History, Mode, Server, Settings, Ssh, Workspace};
use super::path;

const fn schema(what: &'static str, keys: &'static [&'static str]) -> Schema {
    Schema {
        what,
        keys,
        closed: false,
    }
}

const TOP: Schema = schema(
    THE_FILE,
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

impl Decoder<'_> {
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
                let meant = Mode::meant(&text);
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
