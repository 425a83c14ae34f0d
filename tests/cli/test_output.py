"""Writing to streams that may be gone, and to files that appear whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from proxy.cli.output import write, write_atomically


def test_write_to_no_stream_does_nothing() -> None:
    """Standard output is None where it was closed before the start."""
    write(None, "text\n")


def test_write_to_a_closed_stream_does_nothing() -> None:
    """Somebody may have closed it since."""
    stream = io.StringIO()
    stream.close()
    write(stream, "text\n")


def test_write_keeps_what_the_encoding_has_not() -> None:
    """A model's name may have letters that an ASCII terminal has not."""
    with io.TextIOWrapper(io.BytesIO(), "ascii") as stream:
        write(stream, "modèle\n")
        stream.seek(0)
        assert stream.read() == "mod\\xe8le\n"


def test_write_without_a_reader_leads_to_nowhere_from_then_on() -> None:
    """Nor does closing the stream fail, as the interpreter does at exit."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123  # a descriptor, no path
        write(stream, "text\n")
        write(stream, "more\n")
        assert os.fstat(writing).st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116


def test_write_atomically_replaces_a_file(tmp_path: Path) -> None:
    """Nothing but the new file is left."""
    path = tmp_path / "x"
    path.write_text("old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A folder cannot be replaced; the draft is gone."""
    path = tmp_path / "x"
    path.mkdir()
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on the system
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_does_not_follow_a_link_in_the_drafts_place(tmp_path: Path) -> None:
    """In a folder that others can write to, the draft's name can be guessed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".x.{os.getpid()}.tmp").symlink_to(victim)
    write_atomically(tmp_path / "x", b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "x").read_bytes() == b"new"


def test_write_atomically_keeps_a_dangling_link(tmp_path: Path) -> None:
    """A name that is taken is taken, whatever it leads to."""
    path = tmp_path / "x"
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(FileExistsError):
        write_atomically(path, b"new", overwrite=False)
    assert path.is_symlink()
