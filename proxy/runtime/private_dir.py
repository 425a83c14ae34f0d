"""A folder that only we can enter, for llama-server's unix socket. POSIX only.

Owns its making, its lock and its removal. The lock (`flock` on the folder itself) is held as long
as the owner lives and is released by the kernel however the owner dies: so the next start can tell
a folder that a killed run left behind from one that is in use. It also keeps systemd-tmpfiles from
ageing the folder away.

No race: who makes a folder locks it and then looks whether the name still leads to it; who cleans
locks first. Whoever comes second gives way.

Source: flock(2); tmpfiles.d(5) on locked directories; unix(7) on the length of a socket's path.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

if sys.platform != "win32":
    import fcntl

_PREFIX = "llama-proxy-"
_SOCKET_NAME = "llama.sock"
# `sockaddr_un.sun_path` has 104 bytes on macOS and 108 on Linux, with the final zero.
_MAX_SOCKET_PATH_BYTES = 103
# Somebody who cleans can take a new folder from us only once for each start of theirs.
_ATTEMPTS = 100


class PrivateDir:
    """A folder with mode 0700, locked by us. Made by `make_private_dir`; use it with `with`.

    Attributes:
        path: The folder.
        socket_path: Where llama-server is to put its socket; ends in `.sock`, as llama-server
            demands.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.socket_path = path / _SOCKET_NAME
        self._descriptor: int | None = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()

    def forget_socket(self) -> None:
        """Remove the socket's file, which llama-server leaves; the next one could not bind."""
        self.socket_path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder and release the lock; idempotent."""
        if self._descriptor is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = None


def make_private_dir(bases: tuple[Path, ...] | None = None) -> PrivateDir:
    """Make a private folder, after removing those that killed runs of ours left.

    Args:
        bases: Where to try, in this order; the system's temporary folder, then `/tmp`, if not
            given.

    Raises:
        OSError: When no folder can be made whose path is short enough for a socket in it.
    """
    error: OSError = OSError("no temporary folder has a path that is short enough for a socket")
    for base in bases if bases is not None else (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        if not _is_short_enough(base):
            continue
        remove_stale_dirs(base)
        try:
            return _make_in(base)
        except OSError as failed:
            error = failed
    raise error


def remove_stale_dirs(base: Path) -> None:
    """Remove our folders in `base` whose lock nobody holds. Other users' are left alone."""
    for path in list(_ours_in(base)):
        descriptor = _lock(path)
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def _make_in(base: Path) -> PrivateDir:
    for _ in range(_ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        descriptor = _lock(path)
        if descriptor is None:
            continue
        if _leads_to(path, descriptor):
            return PrivateDir(path, descriptor)
        os.close(descriptor)
    raise OSError("every new temporary folder was taken away at once")


def _ours_in(base: Path) -> Iterator[Path]:
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
    except OSError:
        return  # Gone or not ours to read: then there is nothing to clean either.


def _lock(path: Path) -> int | None:
    if sys.platform == "win32":
        return None
    else:  # noqa: RET505  # mypy follows this form for every platform
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags)
        except OSError:
            return None
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
        except OSError:
            pass  # Somebody holds it; a file system without locks looks the same.
        os.close(descriptor)
        return None


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and os.path.samestat(found, os.fstat(descriptor))


def _is_short_enough(base: Path) -> bool:
    # mkdtemp adds eight characters to the prefix.
    longest = base / (_PREFIX + "x" * 8) / _SOCKET_NAME
    return len(os.fsencode(longest)) <= _MAX_SOCKET_PATH_BYTES
