"""What a test changes in the process is named, fails that test and no other, and is set back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.database import migrate
from handlers.environment import load as config
from handlers.worker import worker

ROOT = Path(__file__).parent.parent
CONFIG, MIGRATE, WORKER = (module.__name__ for module in (config, migrate, worker))

CHANGES = {
    "logging.root.setLevel(1)": "logger root",
    "logging.config.dictConfig({'version': 1})": f"logger {WORKER}",
    f"logging.getLogger({WORKER!r}).addFilter(lambda record: False)": f"logger {WORKER}",
    "logging.disable(logging.CRITICAL)": "logging.disable",
    "os.environ['HOME'] = '/nowhere'": "environment variable HOME",
    "os.environ['NEW'] = 'x'": "environment variable NEW",
    "del os.environ['PATH']": "environment variable PATH",
    "os.chdir('/')": "working directory",
    "os.umask(0o011)": "umask",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)": "handler of SIGTERM",
    "sys.path.append('/nowhere')": "sys.path",
    f"del sys.modules[{CONFIG!r}]": f"sys.modules[{CONFIG!r}]",
    "gc.set_threshold(50_000, 20, 50)": "threshold of the garbage collector",
    "gc.freeze()": "frozen objects of the garbage collector",
    "resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))": (
        "limit of open files"
    ),
    "socket.setdefaulttimeout(1)": "default timeout of sockets",
    "config.directory = None": f"{CONFIG}.directory",
    "config.LOADED = 1": f"{CONFIG}.LOADED",
    "worker.Worker.run = None": f"{WORKER}.Worker.run",
    "migrate.VERSION_TABLE['new'] = ''": f"{MIGRATE}.VERSION_TABLE",
}
HEAD = f"""
import gc, logging, logging.config, os, resource, signal, socket, sys

import pytest

import {CONFIG} as config, {MIGRATE} as migrate, {WORKER} as worker
from tests import process_state

@pytest.fixture(scope="module", autouse=True)
def as_at_first():
    before = process_state.read()
    os.environ["OF_THE_MODULE"] = "1"
    yield
    del os.environ["OF_THE_MODULE"]
    assert process_state.restore(before) == []

def test_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "directory", None)
    config._BY_NAME["a"] = tmp_path

def test_sees_no_file_of_another_test():
    assert config._BY_NAME == {{}}
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run of one test for each change says, by the test's name."""
    folder = tmp_path_factory.mktemp("changes")
    tests = [f"def test_{number}():\n    {change}\n" for number, change in enumerate(CHANGES)]
    (folder / "test_changes.py").write_text("\n".join([HEAD, *tests]), encoding="utf-8")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "-rE",
            str(folder),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{len(CHANGES) + 2} passed, {len(CHANGES)} errors" in run.stdout, run.stdout + run.stderr
    said = r"teardown of test_(\d+) _+\n.*?for all others: (.*)\. Change"
    return dict(re.findall(said, run.stdout))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(errors: dict[str, str], change: str) -> None:
    """The test that changed it fails with the name of what it changed; what its module set up does not fail it."""
    named = errors[str(list(CHANGES).index(change))]
    assert CHANGES[change] in named.split(", ")
