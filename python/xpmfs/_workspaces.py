"""Turns workspaces into arguments of the command."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from typing import Any, Iterator, Protocol, Union, runtime_checkable

from ._command import CommandError, run


@runtime_checkable
class WorkspaceLike(Protocol):
    """What is used of experimaestro's ``WorkspaceSettings``; also ``folders``, if it has them."""

    id: str
    path: Any
    ssh: Any


Workspace = Union[str, WorkspaceLike]
"""A workspace: its id in experimaestro's settings, or its settings."""

_SSH = ("host", "options")


@contextmanager
def arguments(**workspaces: Workspace) -> Iterator[list[str]]:
    """The options of the command that name these workspaces, by the name of the option."""
    if all(isinstance(workspace, str) for workspace in workspaces.values()):
        yield [_option(option, str(id)) for option, id in workspaces.items()]
        return
    settings = []
    options = []
    for option, workspace in workspaces.items():
        found = _known(workspace) if isinstance(workspace, str) else _of_object(workspace)
        if found not in settings:
            if any(found["id"] == other["id"] for other in settings):
                found["id"] = f"{found['id']} ({option.replace('_', ' ')})"
            settings.append(found)
        options.append(_option(option, found["id"]))
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="xpmfs-", encoding="utf-8") as file:
        # JSON is YAML.
        json.dump({"workspaces": settings}, file, ensure_ascii=False)
        file.flush()
        yield [f"--settings={file.name}", *options]


def _option(name: str, id: str) -> str:
    return f"--{name.replace('_', '-')}={id}"


def _known(id: str) -> dict[str, Any]:
    """The settings of a workspace by its id."""
    listed = run(["workspaces", "list", "--json"])
    for workspace in listed:
        if workspace["id"] == id:
            path = workspace["raw_path" if workspace["remote"] else "path"]
            folders = [_only(folder, "path", "mode") for folder in workspace["folders"]]
            found = {"id": id, "path": path, "folders": folders}
            if workspace["ssh"]:
                found["ssh"] = _only(workspace["ssh"], *_SSH)
            return found
    known = ", ".join(workspace["id"] for workspace in listed)
    raise CommandError(f"unknown workspace `{id}` (known: {known})", 1)


def _only(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: values[key] for key in keys}


def _of_object(workspace: WorkspaceLike) -> dict[str, Any]:
    ssh = getattr(workspace, "ssh", None)
    is_remote = ssh is not None and bool(getattr(ssh, "host", None))
    # experimaestro keeps the path of another machine as it was written.
    raw = getattr(workspace, "_raw_path", None) if is_remote else None
    found: dict[str, Any] = {
        "id": workspace.id or "workspace",
        "path": raw or os.fspath(workspace.path),
        "folders": [
            {
                "path": os.fspath(folder.path),
                "mode": getattr(folder.mode, "value", folder.mode),
            }
            for folder in getattr(workspace, "folders", None) or []
        ],
    }
    if is_remote:
        options = getattr(ssh, "options", None) or []
        found["ssh"] = {"host": ssh.host, "options": list(options)}
    return found
