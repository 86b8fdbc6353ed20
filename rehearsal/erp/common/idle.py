# mypy: ignore-errors
"""The workers of a host that takes no events: they start, show their revision, and end when they are told."""

import signal
import threading

import beat


def main() -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    beat.start()
    try:
        told.wait()
    finally:
        beat.stop()


if __name__ == "__main__":
    main()
