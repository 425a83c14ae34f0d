"""Progress of prefill, found in the bytes that pass."""

from __future__ import annotations

import pytest

from proxy.core.status.progress import Progress, find_progress

TOLD = b'"prompt_progress":{"total":%d,"cache":%d,"processed":%d,"time_ms":5}'
EVENT = b'data: {"choices":[],' + TOLD + b"}\n\n"


def test_last_progress_counts() -> None:
    """Several events may come together."""
    data = EVENT % (100, 10, 20) + EVENT % (100, 10, 60)
    assert find_progress(data) == Progress(total=100, processed=60, cached=10)


def test_progress_that_is_cut_off_gives_way_to_the_one_before() -> None:
    """It is told again soon."""
    data = EVENT % (100, 10, 20) + (EVENT % (100, 10, 60))[:-20]
    assert find_progress(data) == Progress(total=100, processed=20, cached=10)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'data: {"choices":[]}\n\n',
        b'{"prompt_progress":{}}',
        b'{"prompt_progress":{"total":"9","processed":1}}',
        b'{"prompt_progress":{"total":9,"processed":-1}}',
        b'{"content":"\\"prompt_progress\\":{\\"total\\":1,\\"processed\\":1}"}',
    ],
)
def test_no_progress_is_found_where_none_is_told(data: bytes) -> None:
    """Nor in what the model writes of it."""
    assert find_progress(data) is None


def test_progress_has_its_keys() -> None:
    """As the snapshot has it."""
    assert Progress(3, 2, 1).as_object() == {"total": 3, "processed": 2, "cached": 1}
