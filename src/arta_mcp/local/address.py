"""The address of a folder's pictures: one port, which one live process after the other holds."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from arta_mcp.files import write_atomically

HOST = "127.0.0.1"


class FolderAddress:
    """The port that stands in `<folder>/port`, and the lock of the process that listens there.

    Any process on the folder serves all of its pictures, so an address opens as long as one of
    them lives; the operating system frees port and lock of one that dies, however it dies.
    """

    def __init__(self, folder: Path) -> None:
        self._port_file = folder / "port"
        # thread_local: taken in the thread of the service or its caller's, released in either
        self._lock = FileLock(folder / "port.lock", mode=0o600, thread_local=False)

    @property
    def base_url(self) -> str | None:
        """Where the folder's pictures open, without a slash at its end; None before it is known."""
        port = self._read_port()
        return None if port is None else f"http://{HOST}:{port}"

    def take(self) -> socket.socket | None:
        """A listening socket at the port, for the caller to close; None when another one has it.

        A port that a stranger took is given up for a free one. Raises OSError.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return None
        except (OSError, NotImplementedError):
            pass  # a file system without locks: the port is then whose it is
        try:
            port = self._read_port()
            if port is not None:
                with suppress(OSError, OverflowError):
                    return open_socket(HOST, port, listening=True)
            taken = open_socket(HOST, 0, listening=True)
            try:
                write_atomically(self._port_file, str(taken.getsockname()[1]).encode())
            except BaseException:
                taken.close()
                raise
            return taken
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        """Lets another process take it; the socket is to be closed before."""
        self._lock.release()

    def _read_port(self) -> int | None:
        with suppress(OSError, ValueError):
            return int(self._port_file.read_text(encoding="utf-8"))
        return None


def open_socket(host: str, port: int, *, listening: bool) -> socket.socket:
    """A bound socket; one that does not listen refuses, and no other program gets the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delay (40 ms an answer) off only where TCP is named outright
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would let two programs share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        if listening:
            opened.listen(socket.SOMAXCONN)
    except (OSError, OverflowError):
        opened.close()
        raise
    return opened
