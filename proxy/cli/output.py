"""What the command writes beside its log: to standard output, to standard error, to files.

Owns that a reader that has gone costs nothing but its text, and that a file appears whole or not
at all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO


def say(text: str) -> None:
    """Write a line to standard output; if nobody can read it, it is dropped."""
    write(sys.stdout, f"{text}\n")


def complain(text: str) -> None:
    """Write a line to standard error; if nobody can read it, it is dropped."""
    write(sys.stderr, f"{text}\n")


def flush() -> None:
    """Write out what is still held back, by the log too, or drop it if nobody can read it."""
    write(sys.stdout, "")
    write(sys.stderr, "")


def write(stream: TextIO | None, text: str) -> None:
    """Write to a stream that may be absent, closed or without a reader.

    A stream that has failed once leads to nowhere from then on, for the interpreter would try again
    at exit, fail and say so.
    """
    if stream is None:  # Closed before we were started.
        return
    try:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except ValueError:  # Closed since.
        return


def write_atomically(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file so that readers see the old one, if any, or the whole new one.

    Args:
        path: Where it is to be; its folder must exist.
        content: All of it.
        overwrite: Whether a file that is there is replaced.

    Raises:
        FileExistsError: It is there, and `overwrite` is off.
        OSError: It cannot be written; then nothing is left behind.
    """
    # In the same folder, since a rename does not cross file systems; its own name, since several
    # commands may write at the same time.
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    try:
        # "x" follows no symbolic link that somebody else put there.
        with draft.open("xb") as file:
            file.write(content)
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(path)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
