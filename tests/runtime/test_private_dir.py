"""Tests of `proxy.runtime.private_dir`, with real folders, locks and processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.runtime.private_dir import make_private_dir, remove_stale_dirs
from tests.fakes.engines import nothing_left

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a folder with a short path; assert that nothing of ours is left in it."""
    with nothing_left(), tempfile.TemporaryDirectory(prefix="t-") as name:
        yield Path(name)
        assert list(Path(name).glob("llama-proxy-*")) == []


def hold(base: Path) -> subprocess.Popen[bytes]:
    """Start a process that makes a private folder, says so, and keeps it until it is killed."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from proxy.runtime.private_dir import make_private_dir\n"
        "held = make_private_dir((Path(sys.argv[1]),))\n"
        "print(held.path, flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def held_path(process: subprocess.Popen[bytes]) -> Path:
    """Return the folder that `hold` made."""
    assert process.stdout is not None
    return Path(process.stdout.readline().decode().strip())


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the holder without notice."""
    process.kill()
    process.communicate()


def test_make_private_dir_nobody_else_may_enter(base: Path) -> None:
    """The folder has mode 0700, and the socket's name ends as llama-server demands."""
    with make_private_dir((base,)) as made:
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
        assert made.socket_path.parent == made.path
        assert made.socket_path.suffix == ".sock"


def test_remove_with_content_is_complete_and_idempotent(base: Path) -> None:
    """A socket that is left in it does not keep the folder."""
    made = make_private_dir((base,))
    made.socket_path.touch()
    made.remove()
    made.remove()
    assert not made.path.exists()


def test_forget_socket_removes_the_file_if_there_is_one(base: Path) -> None:
    """llama-server cannot bind where a file is."""
    with make_private_dir((base,)) as made:
        made.socket_path.touch()
        made.forget_socket()
        made.forget_socket()
        assert not made.socket_path.exists()


def test_make_private_dir_folder_of_a_killed_run_is_removed(base: Path) -> None:
    """The next start cleans what SIGKILL left."""
    holder = hold(base)
    stale = held_path(holder)
    kill(holder)
    assert stale.exists()
    with make_private_dir((base,)):
        assert not stale.exists()


def test_make_private_dir_folder_of_a_live_run_stays(base: Path) -> None:
    """Two proxies on one machine do not disturb each other."""
    holder = hold(base)
    theirs = held_path(holder)
    with make_private_dir((base,)) as ours:
        assert theirs.exists()
        assert ours.path != theirs
    kill(holder)
    remove_stale_dirs(base)


def test_remove_stale_dirs_link_with_our_name_is_not_followed(base: Path) -> None:
    """Somebody who plants a link in /tmp does not get another folder emptied."""
    victim = base / "victim"
    victim.mkdir()
    (victim / "file").touch()
    link = base / "llama-proxy-evil"
    link.symlink_to(victim, target_is_directory=True)
    remove_stale_dirs(base)
    assert (victim / "file").exists()
    link.unlink()


def test_remove_stale_dirs_folder_of_another_user_stays(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another user's run left is theirs to clean."""
    other = base / "llama-proxy-theirs"
    other.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: other.stat().st_uid + 1)
    remove_stale_dirs(base)
    assert other.exists()
    other.rmdir()


def test_make_private_dir_path_too_long_takes_the_next_base(base: Path) -> None:
    """A socket's path has room for about a hundred bytes."""
    long = base / ("x" * 100)
    long.mkdir()
    with make_private_dir((long, base)) as made:
        assert made.path.parent == base


def test_make_private_dir_no_base_will_do_raises(base: Path) -> None:
    """Then the caller listens on loopback."""
    with pytest.raises(OSError, match="short enough"):
        make_private_dir((base / ("x" * 100),))
    with pytest.raises(FileNotFoundError):
        make_private_dir((base / "absent",))
