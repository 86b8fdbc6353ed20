"""How a command travels over an SSH session: in on stdin, and its own output cut out of what the login shell prints."""

from __future__ import annotations

from collections.abc import Callable

OUTPUT_MAX = 512 * 1024
"""The bytes kept of each stream; of a longer one the first and the last half of them."""
FROM_STDIN = """exec sh -c 's=$(cat); case $s in *"#runbook"*) eval "$s";; *) exit 97;; esac'"""
"""The only argument of the login shell. The command itself comes over stdin, so no process list shows it. It is run
only when its first line has arrived: a startup file may have read a part of it."""
_LINES_TO_SPARE = 20
"""Empty lines before the command, for startup files that read a line (`read`, a menu, a prompt for a project)."""


def read(receive: Callable[[int], bytes]) -> str:
    """Read a stream to its end. Of a long one the first and the last part are kept."""
    half = OUTPUT_MAX // 2
    head, tail, dropped = bytearray(), bytearray(), 0
    while chunk := receive(65536):
        room = half - len(head)
        head += chunk[:room] if room > 0 else b""
        tail += chunk[max(room, 0) :]
        if len(tail) > 2 * half:
            dropped += len(tail) - half
            del tail[:-half]
    if len(tail) > half:
        dropped += len(tail) - half
        del tail[:-half]
    gap = f"\n… {dropped} bytes left out …\n".encode() if dropped else b""
    return bytes(head + gap + tail).decode(errors="replace")


def framed(script: str, mark: str) -> str:
    """*script* with *mark* before and after its output: startup files of the login shell may print as well."""
    show = f"printf '%s\\n' {mark}; printf '%s\\n' {mark} >&2"
    head = "\n" * _LINES_TO_SPARE + "#runbook"
    return f"{head}\n{show}\n{script}\nrunbook_status=$?\n{show}\nexit $runbook_status\n"


def between(output: str, mark: str) -> str:
    """What stands between two marks; after the first where the second is missing, because the script was killed."""
    _, _, rest = output.partition(f"{mark}\n")
    own, end, _ = rest.rpartition(mark)
    return own if end else rest
