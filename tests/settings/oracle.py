"""What experimaestro itself makes of settings files, and Python of patterns.

Reads requests from standard input, one JSON object a line, and answers each with one line of JSON:

- {"load": PATH, "env": {...}, "cwd": DIR}: the settings as values, or {"refused": reason}
- {"select": [{"workspace", "workdir", "experiment"}, ...], "file": PATH, "env": {...}, "cwd": DIR}: id and path for
  each, or {"refused": reason}; PATH must be ~/.config/experimaestro/settings.yaml of the env's HOME
- {"folders": PATH, "env", "cwd"}: the folders of each local workspace, as the scheduler has them
- {"fnmatch": [[pattern, name], ...]}: a list of booleans
"""

import dataclasses
import fnmatch
import functools
import json
import logging
import os
import sys
import warnings
from enum import Enum
from pathlib import Path

from experimaestro import settings
from experimaestro.scheduler.workspace import Workspace

# get_settings builds the same adapter at every call, which takes longer than everything else.
settings.TypeAdapter = functools.cache(settings.TypeAdapter)

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")


def plain(value):
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return {"float": repr(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        out = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, settings.WorkspaceSettings):
            out["raw_path"] = value._raw_path
        return out
    return value


def enter(request):
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    settings.get_settings.cache_clear()


def attempt(action):
    try:
        return {"ok": action()}
    except BaseException as error:  # a refusal is any exception, whatever its kind
        return {"refused": f"{type(error).__name__}: {str(error)[:300]}"}


def find(selection):
    settings.get_settings.cache_clear()  # find_workspace changes the cached object
    workdir = selection["workdir"]
    found = settings.find_workspace(
        workspace=selection["workspace"],
        workdir=Path(workdir) if workdir else None,
        experiment_id=selection["experiment"],
    )
    return {"id": found.id, "path": str(found.path), "remote": found.is_remote}


def folders(path):
    loaded = settings.get_settings(Path(path))
    fold = Workspace.folders.func
    holder = type("Holder", (), {})
    out = []
    for workspace in loaded.workspaces:
        holder.workspace_settings, holder.settings = workspace, loaded
        out.append([[str(f.path), f.mode.value] for f in fold(holder)])
    return out


def answer(request):
    if "fnmatch" in request:
        return [fnmatch.fnmatch(name, pattern) for pattern, name in request["fnmatch"]]
    enter(request)
    if "load" in request:
        return attempt(lambda: plain(settings.get_settings(Path(request["load"]))))
    if "folders" in request:
        return attempt(lambda: folders(request["folders"]))
    return [attempt(lambda: find(s)) for s in request["select"]]


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
