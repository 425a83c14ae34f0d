"""The predictions that are over and still kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.prediction import Prediction
from proxy.core.predictions.retention import FinishedPredictions


def finished(id: str, padding: int = 0) -> Prediction:  # noqa: A002
    """Return a prediction that is over and holds some bytes more than `padding`."""
    prediction = Prediction(id, 0.0, EventLog())
    prediction.fail(0.0, "x" * padding)
    return prediction


SIZE = finished("a").size


def test_add_keeps_for_the_time_alone() -> None:
    """It is there until it expires, to the second."""
    kept = FinishedPredictions[str](keep_s=10)
    prediction = finished("a")
    assert kept.add("a", prediction, 5.0)
    assert kept.get("a", 14.999) is prediction
    assert kept.get("a", 15.0) is None


def test_get_unknown_is_none() -> None:
    """Nothing is made up."""
    assert FinishedPredictions[str]().get("a", 0.0) is None


def test_add_running_is_an_error() -> None:
    """A defect of the caller."""
    with pytest.raises(ValueError, match="not over"):
        FinishedPredictions[str]().add("a", Prediction("a", 0.0, EventLog()), 0.0)


def test_add_one_too_many_drives_out_the_oldest() -> None:
    """Whoever ended first goes first."""
    kept = FinishedPredictions[str](max_count=2)
    for id_ in "abc":
        kept.add(id_, finished(id_), 0.0)
    assert [id_ for id_ in "abc" if kept.get(id_, 0.0)] == ["b", "c"]
    assert (kept.count, kept.size) == (2, 2 * SIZE)


def test_add_too_much_drives_out_as_many_as_it_takes() -> None:
    """A large one may cost several small ones."""
    kept = FinishedPredictions[str](max_bytes=3 * SIZE)
    for id_ in "abc":
        kept.add(id_, finished(id_), 0.0)
    large = finished("d", padding=1)
    assert kept.add("d", large, 0.0)
    assert [id_ for id_ in "abcd" if kept.get(id_, 0.0)] == ["c", "d"]
    assert kept.size == SIZE + large.size


def test_add_larger_than_all_is_not_kept_and_drives_nobody_out() -> None:
    """One answer that does not fit costs the others nothing."""
    kept = FinishedPredictions[str](max_bytes=SIZE)
    kept.add("a", finished("a"), 0.0)
    assert not kept.add("b", finished("b", padding=1), 0.0)
    assert kept.get("b", 0.0) is None
    assert kept.get("a", 0.0) is not None


@pytest.mark.parametrize(
    "kept",
    [FinishedPredictions(keep_s=0), FinishedPredictions(max_count=0), FinishedPredictions(0, 0, 0)],
    ids=["time", "count", "all"],
)
def test_add_where_nothing_is_kept(kept: FinishedPredictions) -> None:
    """A bound of 0 turns it off."""
    assert not kept.add("a", finished("a"), 0.0)
    assert (kept.count, kept.size) == (0, 0)


def test_add_same_id_replaces() -> None:
    """The newer one is kept, from its own time on, and the older one's bytes are free."""
    kept = FinishedPredictions[str](keep_s=10)
    newer = finished("a", padding=5)
    kept.add("a", finished("a"), 0.0)
    kept.add("b", finished("b"), 1.0)
    kept.add("a", newer, 2.0)
    assert kept.get("a", 11.9) is newer
    assert kept.size == SIZE + newer.size
    assert kept.next_expiry() == 11.0


def test_add_same_id_too_large_leaves_none() -> None:
    """The older result is no answer to the newer request."""
    kept = FinishedPredictions[str](max_bytes=SIZE)
    kept.add("a", finished("a"), 0.0)
    assert not kept.add("a", finished("a", padding=1), 0.0)
    assert (kept.get("a", 0.0), kept.count, kept.size) == (None, 0, 0)


def test_add_lets_go_of_what_has_expired() -> None:
    """Without a tick of its own nothing old piles up."""
    kept = FinishedPredictions[str](keep_s=10)
    kept.add("a", finished("a"), 0.0)
    kept.add("b", finished("b"), 10.0)
    assert (kept.count, kept.size) == (1, SIZE)


def test_drop_expired_drops_those_alone() -> None:
    """It says how many, and the bytes are free."""
    kept = FinishedPredictions[str](keep_s=10)
    for second, id_ in enumerate("abc"):
        kept.add(id_, finished(id_), float(second))
    assert kept.drop_expired(11.0) == 2
    assert kept.drop_expired(11.0) == 0
    assert (kept.count, kept.size, kept.next_expiry()) == (1, SIZE, 12.0)


def test_next_expiry_is_none_where_nothing_is_kept() -> None:
    """There is nothing to wait for."""
    kept = FinishedPredictions[str](keep_s=10)
    assert kept.next_expiry() is None
    kept.add("a", finished("a"), 0.0)
    kept.drop_expired(10.0)
    assert kept.next_expiry() is None


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 2 * SIZE), st.floats(0, 4)), max_size=30
)


@given(STEPS, st.integers(0, 4), st.integers(0, 4 * SIZE))
def test_bounds_hold_whatever_is_added(
    steps: list[tuple[str, int, float]], max_count: int, max_bytes: int
) -> None:
    """The newest ones that fit are kept, as a plain list says, and the size is theirs."""
    kept = FinishedPredictions[str](5.0, max_count, max_bytes)
    model: list[tuple[float, Prediction]] = []
    now = 0.0
    for id_, padding, passed in steps:
        now += passed
        prediction = finished(id_, padding)
        model = [(end, old) for end, old in model if end > now and old.id != id_]
        fits = prediction.size <= max_bytes and max_count > 0
        assert kept.add(prediction.id, prediction, now) is fits
        if fits:
            model.append((now + 5.0, prediction))
        while len(model) > max_count or sum(old.size for _, old in model) > max_bytes:
            model.pop(0)
        assert [kept.get(old.id, now) for _, old in model] == [old for _, old in model]
        assert (kept.count, kept.size) == (len(model), sum(old.size for _, old in model))
        assert kept.next_expiry() == (model[0][0] if model else None)
