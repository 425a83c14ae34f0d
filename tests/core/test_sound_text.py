"""Text that has bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.sound_text import sound_text

# With lone surrogates, which Hypothesis leaves out by itself.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("", ""),
        ("plain \0 é 😀 \ufeff\ufffe", "plain \0 é 😀 \ufeff\ufffe"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00b", "\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("\ufeff\ude00\ud83d", "\ufeff\ufffd\ufffd"),
    ],
    ids=ascii,
)
def test_sound_text_replaces_lone_surrogates_alone(text: str, sound: str) -> None:
    """Two halves that belong together are a character, and all else stays."""
    assert sound_text(text) == sound


@given(ANY_TEXT)
def test_sound_text_can_be_encoded_and_is_stable(text: str) -> None:
    """Any text becomes one that has bytes; a sound one is the same text."""
    sound = sound_text(text)
    sound.encode()
    assert sound_text(sound) is sound
