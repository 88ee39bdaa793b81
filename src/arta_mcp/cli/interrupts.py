"""What Ctrl-C does before anything is under way; it loads nothing, for all else loads after it."""

from __future__ import annotations

import os
import signal


class ExitAtInterrupt:
    """While it lasts SIGINT ends the process at once, without a traceback.

    For the time of imports, in which Python ignores a KeyboardInterrupt that meets the call-back
    of a module lock: the process would need a second Ctrl-C.
    """

    def __enter__(self) -> None:
        # Whoever starts us with SIGINT ignored, as a shell does in the background, means it.
        self._is_set = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._is_set:
            try:
                signal.signal(signal.SIGINT, exit_at_once)
            except ValueError:  # in another thread than the main one
                self._is_set = False

    def __exit__(self, *_: object) -> None:
        if self._is_set:
            raise_interrupts()


def raise_interrupts() -> None:
    """From now on SIGINT raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is exit_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_at_once(number: int, _: object) -> None:
    """Ends the process as a shell expects it of one that this signal ended."""
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)
