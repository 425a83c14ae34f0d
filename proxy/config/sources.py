"""The three places where options are given: the command line, the environment and a TOML table.

Owns how each place spells an option and how what is wrong there is told. Knows nothing of files, of
defaults nor of which place wins (`loading`).

Source: https://toml.io/en/v1.0.0; POSIX.1-2024 Utility Syntax Guidelines, guideline 10 (`--`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.config.options import BY_NAME, ENVIRONMENT_PREFIX, OPTIONS, Option, nearest
from proxy.core.errors import ConfigError

_FLAGS = {option.flag: option for option in OPTIONS}
_SHORT_FLAGS = {option.short: option for option in OPTIONS if option.short}
_NEGATED_FLAGS = {option.negation: option for option in OPTIONS if option.is_switch}
_ALL_FLAGS = _FLAGS | _SHORT_FLAGS | _NEGATED_FLAGS
_VARIABLES = {option.variable: option for option in OPTIONS}
# Long enough for any sane value, short enough for one line.
_MAX_SHOWN_VALUE = 60


@dataclass(frozen=True, slots=True)
class Given:
    """One option as one source gives it.

    Args:
        value: The checked value; a tuple for a repeatable option.
        source: How a person would call the place: "--port", "LLAMA_PROXY_PORT", "port in x.toml".
    """

    value: object
    source: str


def refuse(source: str, option: Option, value: object) -> ConfigError:
    """Return the error for a value that is not of the option's kind; a secret is not shown."""
    shown = repr(value)
    if len(shown) > _MAX_SHOWN_VALUE:
        shown = shown[:_MAX_SHOWN_VALUE] + "..."
    ending = "" if option.secret else f", not {shown}"
    return ConfigError(f"{source} must be {option.kind.accepts}{ending}.")


def _read_value(option: Option, text: str, source: str) -> object:
    try:
        return option.kind.read(text)
    except ValueError:
        # Without its cause: that has the text, which may be a secret.
        raise refuse(source, option, text) from None


# --- the command line ---


def read_arguments(argv: Sequence[str]) -> tuple[dict[str, Given], tuple[str, ...]]:
    """Read what stands behind `llama-proxy serve`.

    Returns:
        The options by name, and llama-server's own arguments from behind `--`.

    Raises:
        ConfigError: An option is unknown, lacks its value or has one that is not accepted, or an
            argument is no option.
    """
    own, extra = _split_at_double_dash(argv)
    texts: dict[str, list[str]] = {}
    position = 0
    while position < len(own):
        option, text, used = _read_one(own, position)
        texts.setdefault(option.name, []).append(text)
        position += used
    return {name: _combine(BY_NAME[name], found) for name, found in texts.items()}, extra


def _split_at_double_dash(argv: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if "--" not in argv:
        return tuple(argv), ()
    cut = list(argv).index("--")
    return tuple(argv[:cut]), tuple(argv[cut + 1 :])


def _combine(option: Option, texts: list[str]) -> Given:
    if option.repeatable:
        value: object = tuple(_read_value(option, text, option.flag) for text in texts)
    else:
        # The last one wins, so that a script's own options can be overridden behind them.
        value = _read_value(option, texts[-1], option.flag)
    return Given(value, option.flag)


def _read_one(own: tuple[str, ...], position: int) -> tuple[Option, str, int]:
    argument = own[position]
    flag, has_value, text = argument.partition("=") if argument[:2] == "--" else (argument, "", "")
    if flag in _NEGATED_FLAGS and not has_value:
        return _NEGATED_FLAGS[flag], "false", 1
    option = _FLAGS.get(flag) or _SHORT_FLAGS.get(flag)
    if option is None:
        raise _unknown_argument(flag, position)
    if has_value:
        return option, text, 1
    if option.is_switch:
        return option, "true", 1
    return option, _next_value(own, position, flag, option), 2


def _next_value(own: tuple[str, ...], position: int, flag: str, option: Option) -> str:
    following = own[position + 1] if position + 1 < len(own) else None
    if following is None or following.startswith("--") or following in _ALL_FLAGS:
        raise ConfigError(f"{flag} needs a value: {option.kind.accepts}.")
    return following


def _unknown_argument(flag: str, position: int) -> ConfigError:
    after = "llama-server's own arguments go behind --"
    if flag.startswith("-") and flag != "-":
        known = nearest(flag, list(_ALL_FLAGS))
        return ConfigError(f"unknown option {flag}; the nearest known one is {known} ({after}).")
    if flag.endswith(".gguf"):
        return ConfigError(f"unexpected argument {flag}; give the model as -m {flag}.")
    # Not shown: it may be the second half of a secret.
    return ConfigError(f"argument {position + 1} is no option; {after}.")


# --- the environment ---


def read_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Read the variables `LLAMA_PROXY_*`; an empty one counts as not set.

    Raises:
        ConfigError: A variable is unknown, or its value is not accepted.
    """
    found = {}
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        if name not in _VARIABLES:
            known = nearest(name, list(_VARIABLES))
            raise ConfigError(
                f"unknown environment variable {name}; the nearest known one is {known}."
            )
        if environ[name]:
            option = _VARIABLES[name]
            found[option.name] = _read_variable(option, environ[name])
    return found


def _read_variable(option: Option, text: str) -> Given:
    if not option.repeatable:
        return Given(_read_value(option, text, option.variable), option.variable)
    parts = [part.strip() for part in text.split(",")]
    values = tuple(_read_value(option, part, option.variable) for part in parts)
    return Given(values, option.variable)


# --- a TOML table ---


def read_table(table: Mapping[str, object], file_name: str) -> dict[str, Given]:
    """Read the keys of a TOML file; dashes and underscores in them are the same.

    Args:
        table: The file's top-level table.
        file_name: The file, as error texts name it.

    Raises:
        ConfigError: A key is unknown or stands there twice, or its value is not accepted.
    """
    known = {option.name: option for option in OPTIONS if option.in_file}
    found: dict[str, Given] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            raise ConfigError(
                f"unknown key {key} in {file_name}; the nearest known one is"
                f" {nearest(name, list(known))}."
            )
        if name in found:
            raise ConfigError(f"{name} stands in {file_name} twice; keep one.")
        source = f"{key} in {file_name}"
        found[name] = Given(_read_item(known[name], value, source), source)
    return found


def _read_item(option: Option, value: object, source: str) -> object:
    if not option.repeatable:
        return _read_scalar(option, value, source)
    items = value if isinstance(value, list) else [value]
    return tuple(_read_scalar(option, item, source) for item in items)


def _read_scalar(option: Option, value: object, source: str) -> object:
    if type(value) not in option.kind.toml_types:
        raise refuse(source, option, value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _read_value(option, text, source)
