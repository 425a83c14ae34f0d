"""The files that options name: opened once, with a limit, with an error that says what to do.

Owns the reading of key files and of the TOML file, and the early checks of the model and of the
certificate. Must never put a file's content into an error text.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.config.sources import Given
from proxy.core.errors import ConfigError

if TYPE_CHECKING:
    from proxy.core.access import ApiKey

# Ten thousand keys of 100 characters; a model given by mistake is not read to its end.
_MAX_FILE_BYTES = 1024 * 1024


def read_toml(path: str, source: str) -> dict[str, object]:
    """Return the table in the TOML file at `path`.

    Raises:
        ConfigError: It cannot be read, is too large, or is not TOML.
    """
    # Imported here: most starts have no such file.
    import tomllib

    try:
        return tomllib.loads(_read_text(path, source))
    except tomllib.TOMLDecodeError as error:
        # Its text has a position and at most one character of the file.
        raise ConfigError(f"{source}: {path} is not valid TOML: {error}.") from None


def _read_text(path: str, source: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, source, error) from error
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"{source}: {path} is larger than 1 MiB; it cannot be the right file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: {path} is not a text in UTF-8.") from None


def _unreadable(path: str, source: str, error: OSError) -> ConfigError:
    reason = (error.strerror or "it cannot be read").lower()
    return ConfigError(f"{source}: cannot read {path}: {reason}.")


def check_given(given: Mapping[str, Given]) -> None:
    """Check what others open later: the model, the certificate, the folder of the ready file.

    Raises:
        ConfigError: One of them cannot be used.
    """
    if "model" in given:
        _check_model(str(given["model"].value), given["model"].source)
    if "certfile" in given:
        _check_certificate(given["certfile"], given["keyfile"])
    if "ready-file" in given:
        _check_ready_file(str(given["ready-file"].value), given["ready-file"].source)


def _check_model(path: str, source: str) -> None:
    try:
        # Before opening: opening a named pipe would wait for its writer.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ConfigError(f"{source}: {path} is not a file; a GGUF file is needed.")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise _unreadable(path, source, error) from error


def _check_certificate(certfile: Given, keyfile: Given) -> None:
    # Imported here: it costs 10 ms, and most starts have no TLS.
    import ssl

    for given in (certfile, keyfile):
        _read_text(str(given.value), given.source)
    try:
        # With a password, even an empty one, OpenSSL does not ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            str(certfile.value), str(keyfile.value), password=""
        )
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"{certfile.source} and {keyfile.source} must be a PEM certificate chain and its own"
            " private key, without a passphrase."
        ) from error


def _check_ready_file(path: str, source: str) -> None:
    if Path(path).is_dir() or not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{source}: {path} cannot be written; it must be a file name in a writable folder."
        )


def read_api_keys(key_file: Given | None, keys: Given | None) -> tuple[ApiKey, ...]:
    """Return the keys of the file and those given one by one.

    Raises:
        ConfigError: The file cannot be read or has no key, or a line is malformed.
    """
    if key_file is None and (keys is None or not keys.value):
        return ()
    # Imported here: most starts on one's own machine have no keys.
    from proxy.core.access import parse_key_file

    found: list[ApiKey] = []
    for given in (key_file, keys):
        if given is None or not given.value:
            continue
        text = _text_of_keys(given)
        try:
            found += parse_key_file(text, taken=found)
        except ConfigError as error:
            raise ConfigError(f"{given.source}: {error}") from None
    return tuple(found)


def _text_of_keys(given: Given) -> str:
    if isinstance(given.value, tuple):
        return "\n".join(given.value)
    return _read_text(str(given.value), given.source)


def read_secret(file: Given | None) -> str | None:
    """Return the one line of the file, or None without a file.

    Raises:
        ConfigError: The file cannot be read or has not exactly one line of visible ASCII.
    """
    if file is None:
        return None
    path = str(file.value)
    lines = _read_text(path, file.source).split()
    if len(lines) != 1 or not lines[0].isascii() or not lines[0].isprintable():
        raise ConfigError(
            f"{file.source}: {path} must have the key alone, on one line, in visible ASCII."
        )
    return lines[0]
