"""The small disks of rehearsal hosts, in a process of its own: mounts cannot be given back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.hosts import disk

FILLED = """
import os, sys
from pathlib import Path
from rehearsal.hosts import disk

folder = Path(sys.argv[1])
disk.separate()
disk.mount(folder, 1024 * 1024)
(folder / "before").write_text("before")
disk.fill(folder)
assert os.statvfs(folder).f_bavail == 0
try:
    (folder / "more").write_text("more")
except OSError as error:
    print(error.strerror)
disk.free(folder)
(folder / "after").write_text("after")
disk.unmount(folder)
print(os.listdir(folder))
"""


@pytest.mark.skipif(not disk.is_possible(), reason="this machine allows no file systems of our own")
@pytest.mark.parametrize("ordinary", [False, True], ids=["this user", "an ordinary user"])
def test_a_full_disk_takes_no_byte_until_it_is_freed(tmp_path: Path, ordinary: bool) -> None:
    """A write fails as on any full disk; nothing of it is left on the machine's own file system."""
    if ordinary and os.geteuid() != 0:
        pytest.skip("we are an ordinary user")
    folder = tmp_path / "host"
    folder.mkdir()
    if ordinary:
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)
        os.chown(folder, 65534, 65534)
    done = subprocess.run(
        [*(("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if ordinary else ()),
         sys.executable, "-S", "-c", FILLED, str(folder)],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(Path(disk.__file__).parents[2])},
    )  # fmt: skip
    if ordinary and "Permission denied" in done.stderr:
        pytest.skip("an ordinary user cannot read this project here")
    assert done.stdout.splitlines() == ["No space left on device", "[]"], done.stderr
    assert list(folder.iterdir()) == []
