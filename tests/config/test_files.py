"""The files that options name: limits, readability, and that no content gets into an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config import files
from proxy.config.sources import Given
from proxy.core.errors import ConfigError

SECRET = "sk-very-secret"
TLS = Path(__file__).parent / "tls"


def given(path: Path, source: str) -> Given:
    """Return an option that names a path."""
    return Given(str(path), source)


def test_toml_file_is_read(tmp_path: Path) -> None:
    """The table is returned as TOML has it."""
    path = tmp_path / "x.toml"
    path.write_text('port = 80\nhost = ["::1"]\n')
    assert files.read_toml(str(path), "--config") == {"port": 80, "host": ["::1"]}


def test_toml_file_that_is_no_toml_is_told_with_the_line(tmp_path: Path) -> None:
    """The line is what people look for; its text may have a key in it."""
    path = tmp_path / "x.toml"
    path.write_text(f'port = 80\napi-key = "{SECRET}\n')
    with pytest.raises(ConfigError, match=r"^--config: .*x\.toml is not valid TOML: .*line 2") as e:
        files.read_toml(str(path), "--config")
    assert SECRET not in str(e.value)


def test_file_that_is_not_there_is_told_with_its_option(tmp_path: Path) -> None:
    """The system's reason is enough."""
    with pytest.raises(
        ConfigError, match=r"^--config: cannot read .*: no such file or directory\.$"
    ):
        files.read_toml(str(tmp_path / "x.toml"), "--config")


def test_folder_is_no_key_file(tmp_path: Path) -> None:
    """Opening it fails, and that is told like any other failure."""
    with pytest.raises(ConfigError, match=r"^--api-key-file: cannot read .*: is a directory"):
        files.read_api_keys(given(tmp_path, "--api-key-file"), None)


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A model named in place of a key file is not read to its end."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        files.read_api_keys(given(path, "--api-key-file"), None)


def test_file_of_bytes_is_refused(tmp_path: Path) -> None:
    """What is not UTF-8 is not a text."""
    path = tmp_path / "keys"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a text in UTF-8"):
        files.read_api_keys(given(path, "--api-key-file"), None)


def test_keys_of_the_file_and_of_the_options_are_put_together(tmp_path: Path) -> None:
    """The names of both are told apart."""
    path = tmp_path / "keys"
    path.write_text("# people\nann:a-key\nbob:b-key:admin\n")
    found = files.read_api_keys(
        given(path, "--api-key-file"), Given(("c-key", "dora:d-key"), "--api-key")
    )
    assert [key.name for key in found] == ["ann", "bob", "key-1", "dora"]
    assert [key.admin for key in found] == [False, True, False, False]


@pytest.mark.parametrize("content", ["", "# nothing\n", f"a:{SECRET}:root\n", f"{SECRET} x\n"])
def test_key_file_with_no_key_or_a_bad_line_is_refused(tmp_path: Path, content: str) -> None:
    """An empty file would leave the proxy open; a line is named by its number."""
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"^LLAMA_PROXY_API_KEY_FILE: ") as caught:
        files.read_api_keys(given(path, "LLAMA_PROXY_API_KEY_FILE"), None)
    assert SECRET not in str(caught.value)


def test_same_key_twice_is_refused_without_showing_it() -> None:
    """Which of the two names would be logged?"""
    with pytest.raises(ConfigError, match=r"^--api-key: .*twice") as caught:
        files.read_api_keys(None, Given((f"a:{SECRET}", f"b:{SECRET}"), "--api-key"))
    assert SECRET not in str(caught.value)


def test_no_keys_are_none() -> None:
    """Also where a source says so by an empty list."""
    assert files.read_api_keys(None, None) == ()
    assert files.read_api_keys(None, Given((), "api-key in x.toml")) == ()


def test_upstream_key_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    """The newline that editors add does not count."""
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    assert files.read_secret(given(path, "--upstream-api-key-file")) == SECRET
    assert files.read_secret(None) is None


@pytest.mark.parametrize("content", ["", "\n", f"{SECRET}\nb\n", f"{SECRET} b", "é"])
def test_upstream_key_file_without_exactly_one_key_is_refused(tmp_path: Path, content: str) -> None:
    """A key goes into a header field, where nothing else can stand."""
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(ConfigError, match="must have the key alone") as caught:
        files.read_secret(given(path, "--upstream-api-key-file"))
    assert SECRET not in str(caught.value)


def test_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=r"^-m: cannot read .*: no such file or directory\.$"):
        files.check_given({"model": given(tmp_path / "x.gguf", "-m")})


def test_folder_or_pipe_is_no_model(tmp_path: Path) -> None:
    """Opening a named pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is not a file; a GGUF file is needed"):
            files.check_given({"model": given(path, "-m")})


def test_certificate_with_its_key_is_accepted() -> None:
    """Both are loaded once, to see that they belong together."""
    files.check_given(
        {
            "certfile": given(TLS / "one.pem", "--certfile"),
            "keyfile": given(TLS / "one.key", "--keyfile"),
        }
    )


@pytest.mark.parametrize(
    ("certfile", "keyfile"),
    [("one.pem", "two.key"), ("one.key", "one.pem"), ("one.pem", "locked.key")],
)
def test_certificate_that_cannot_be_used_is_refused(certfile: str, keyfile: str) -> None:
    """The wrong key, files swapped, a passphrase that nobody is asked for."""
    with pytest.raises(ConfigError, match=r"^--certfile and --keyfile must be a PEM certificate"):
        files.check_given(
            {
                "certfile": given(TLS / certfile, "--certfile"),
                "keyfile": given(TLS / keyfile, "--keyfile"),
            }
        )


def test_certificate_that_is_not_there_is_told_with_its_option(tmp_path: Path) -> None:
    """Which of the two files is missing is told."""
    (tmp_path / "c.pem").write_text("x")
    with pytest.raises(ConfigError, match=r"^--keyfile: cannot read"):
        files.check_given(
            {
                "certfile": given(tmp_path / "c.pem", "--certfile"),
                "keyfile": given(tmp_path / "k.pem", "--keyfile"),
            }
        )


def test_ready_file_needs_its_folder(tmp_path: Path) -> None:
    """It would only be noticed when the model is loaded."""
    for path in (tmp_path / "missing" / "ready.json", tmp_path):
        with pytest.raises(ConfigError, match=r"^--ready-file: .* cannot be written"):
            files.check_given({"ready-file": given(path, "--ready-file")})
    files.check_given({"ready-file": given(tmp_path / "ready.json", "--ready-file")})
