"""A viewer's queue: order, what is replaced, what is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.status.viewer import ViewerQueue


def watching(max_token_bytes: int = 100) -> ViewerQueue:
    """A queue whose viewer has got its first status."""
    queue = ViewerQueue(max_token_bytes)
    queue.put_status(b"F")
    queue.take()
    return queue


def test_queue_without_news_is_empty() -> None:
    """What was taken does not come again."""
    queue = watching()
    assert queue.take() == b""
    queue.put_token(b"a")
    assert queue.take() == b"a"
    assert queue.take() == b""


def test_first_status_is_never_replaced() -> None:
    """It alone has the texts; the latest one follows it."""
    queue = ViewerQueue()
    queue.put_status(b"F")
    queue.put_token(b"a")
    queue.put_status(b"1")
    queue.put_token(b"b")
    queue.put_status(b"2")
    assert queue.take() == b"Fa2b"


def test_status_is_replaced_in_its_place() -> None:
    """A token stays behind the status that told of its exchange."""
    queue = watching()
    queue.put_token(b"a")
    queue.put_status(b"1")
    queue.put_token(b"b")
    queue.put_status(b"2")
    assert queue.take() == b"a2b"


def test_tokens_and_statuses_keep_their_order_when_they_are_taken_in_time() -> None:
    """Nothing is changed for a viewer that keeps up."""
    queue = watching()
    taken = b""
    for frame in (b"1", b"a", b"2", b"b"):
        (queue.put_status if frame.isdigit() else queue.put_token)(frame)
        taken += queue.take()
    assert taken == b"1a2b"


def test_oldest_tokens_are_lost_first() -> None:
    """Those before a status and those after it; the status stays."""
    queue = watching(max_token_bytes=4)
    queue.put_token(b"aa")
    queue.put_status(b"1")
    queue.put_token(b"bb")
    queue.put_token(b"cc")
    assert queue.lost == 1
    queue.put_token(b"dd")
    assert queue.lost == 2
    assert queue.take() == b"1ccdd"


def test_room_comes_back_when_tokens_are_taken() -> None:
    """The bound is of what waits."""
    queue = watching(max_token_bytes=4)
    for _ in range(3):
        queue.put_token(b"aaaa")
        assert queue.take() == b"aaaa"
    assert queue.lost == 0


def test_token_that_is_too_large_by_itself_is_lost() -> None:
    """The bound has no exception."""
    queue = watching(max_token_bytes=4)
    queue.put_token(b"aaaaa")
    assert queue.lost == 1
    assert queue.take() == b""


@given(st.lists(st.sampled_from("ST<"), max_size=60))
def test_viewer_is_sent_the_latest_status_and_bounded_tokens(steps: list[str]) -> None:
    """At any time: at most two statuses wait, the last of them the latest; nothing is doubled."""
    queue = ViewerQueue(max_token_bytes=50)
    latest, told_by, seen = b"", {}, b""
    for number, step in enumerate(["S", *steps, "<"]):
        if step == "S":
            latest = b"[S%03d]" % number
            queue.put_status(latest)
        elif step == "T":
            told_by[b"[T%03d]" % number] = latest
            queue.put_token(b"[T%03d]" % number)
        else:
            taken = queue.take()
            assert taken.count(b"S") <= 2
            assert taken.count(b"T") * 6 <= 50
            seen += taken
    statuses = [int(frame[1:4]) for frame in seen.split(b"[") if frame.startswith(b"S")]
    assert statuses == sorted(set(statuses))
    assert statuses[-1] == int(latest[2:5])
    for token, told in told_by.items():
        before = seen[: seen.find(token)] if token in seen else b""
        shown = [frame[:4] for frame in before.split(b"[") if frame.startswith(b"S")]
        # The status that told of it, or a later one in its place.
        assert token not in seen or (shown and max(shown) >= told[1:5])
