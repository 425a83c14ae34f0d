"""The table of options, and what derives from it: `--help`, the documentation, `Config`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from proxy.config import OPTIONS, Config, Option, load
from proxy.config.helptext import render_help
from proxy.config.kinds import PATH

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"

each_option = pytest.mark.parametrize("option", OPTIONS, ids=[each.name for each in OPTIONS])


def section_of(option: Option) -> str:
    """Return the part of the document that stands under the option's heading."""
    text = DOCUMENT.read_text(encoding="utf-8")
    heading = re.escape(f"`{option.flag} {option.metavar}".rstrip() + "`")
    short = re.escape(f"`{option.short}`, ") if option.short else ""
    found = re.search(rf"^### {short}{heading}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"docs/configuration.md has no heading for {option.flag}"
    return " ".join(found[1].split()).replace("\\*", "*")


@each_option
def test_option_has_its_section_in_the_documentation(option: Option) -> None:
    """Variable, TOML key, what is accepted, the default and the text of `--help` stand there."""
    section = section_of(option)
    assert f"`{option.variable}`" in section
    assert not option.in_file or f"`{option.name}`" in section
    assert f"Value: {option.kind.accepts}. Default: {option.describe_default()}." in section
    assert option.help in section


def test_documentation_has_no_option_that_does_not_exist() -> None:
    """A section whose option is gone is an error, too."""
    flags = re.findall(r"^### .*`(--[a-z-]+)", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(flags) == sorted(option.flag for option in OPTIONS)


@each_option
def test_option_stands_in_help(option: Option) -> None:
    """`--help` shows each flag with its metavar and its default."""
    assert f"{option.flag} {option.metavar}".rstrip() in render_help()
    assert " ".join(option.help.split()) in " ".join(render_help().split())


def test_help_fits_a_terminal() -> None:
    """No line of it is longer than 100 characters."""
    assert max(map(len, render_help().splitlines())) <= 100


@each_option
def test_default_is_a_value_that_the_option_accepts(option: Option) -> None:
    """A default obeys the bounds that others have to obey."""
    defaults = option.default if isinstance(option.default, tuple) else (option.default,)
    for default in defaults:
        assert default is None or option.kind.read(str(default).lower()) == default


@each_option
def test_option_that_takes_a_value_has_a_metavar(option: Option) -> None:
    """And a switch has none."""
    assert bool(option.metavar) is not option.is_switch


def test_names_variables_and_short_flags_are_unique() -> None:
    """Two options cannot be given by the same spelling."""
    shorts = [option.short for option in OPTIONS if option.short]
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)
    assert len(set(shorts)) == len(shorts)


def test_config_without_any_source_has_the_defaults_of_the_table() -> None:
    """Every option is a field, and its default is the one in the table."""
    config = load([], {})
    found = {name: getattr(config, name) for name in (f.name for f in dataclasses.fields(Config))}
    for option in OPTIONS:
        field = option.name.replace("-", "_")
        if field in found:
            assert found[field] == option.default
    assert found["hosts"] == ("127.0.0.1",)
    assert found["api_keys"] == ()


def test_describe_default_joins_repeatable_values() -> None:
    """A repeatable option's default is told as a list."""
    option = Option("x", "X", PATH, "X", "Help.", default=("a", "b"), repeatable=True)
    assert option.describe_default() == "a, b"
