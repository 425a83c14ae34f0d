"""One prediction: its state, what it has made so far, and its events."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.metrics import MetricMode
from proxy.core.predictions.prediction import (
    MAX_LOG_BYTES,
    TEXT_OVERHEAD_BYTES,
    Prediction,
    Status,
)
from proxy.core.predictions.shapes import to_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ENDS = [Status.SUCCEEDED, Status.FAILED, Status.CANCELED]


def new(max_output_bytes: int = 10**6) -> Prediction:
    """Return a prediction that has not started."""
    return Prediction("p", 0.0, EventLog(), max_output_bytes)


def running(max_output_bytes: int = 10**6) -> Prediction:
    """Return a prediction that started at 1."""
    prediction = new(max_output_bytes)
    prediction.start(1.0)
    return prediction


def end(prediction: Prediction, status: Status, now: float = 3.5) -> bool:
    """End a prediction in this way."""
    if status is Status.SUCCEEDED:
        return prediction.succeed(now)
    if status is Status.FAILED:
        return prediction.fail(now, "why")
    return prediction.cancel(now)


def ended(status: Status) -> Prediction:
    """Return a prediction that made something of everything and ended."""
    prediction = running()
    prediction.add_output("a", 2.0)
    prediction.add_log("l\n")
    prediction.add_metric("k", 2)
    end(prediction, status)
    return prediction


def frames(prediction: Prediction) -> list[tuple[str, str]]:
    """Return the type and the data of all events, which are all held."""
    events = prediction.log.subscribe().take(10**9)
    return [(event.name, event.data.decode()) for event in events]


# -- Cog's shapes ----------------------------------------------------------------------------------


def test_events_are_cogs() -> None:
    """Each in its shape, and the last one is the object at its end."""
    prediction = new()
    prediction.start(1.0)
    prediction.add_log("line one\n", "stdout")
    prediction.add_output("a", 1.1)
    prediction.add_log("on stderr\n", "stderr")
    prediction.add_metric("foo", 3)
    prediction.add_metric("bar.baz", 1.5, MetricMode.INCREMENT)
    prediction.add_metric("l", "x", MetricMode.APPEND)
    prediction.add_output("b\nc", 1.2)
    prediction.succeed(1.25)
    assert frames(prediction) == [
        ("start", '{"id":"p","status":"processing"}'),
        ("log", r'{"data":"line one\n","source":"stdout"}'),
        ("output", '{"chunk":"a","index":0}'),
        ("log", r'{"data":"on stderr\n","source":"stderr"}'),
        ("metric", '{"mode":"replace","name":"foo","value":3}'),
        ("metric", '{"mode":"increment","name":"bar.baz","value":1.5}'),
        ("metric", '{"mode":"append","name":"l","value":"x"}'),
        ("output", r'{"chunk":"b\nc","index":1}'),
        (
            "completed",
            (
                r'{"id":"p","logs":"line one\non stderr\n",'
                r'"metrics":{"bar":{"baz":1.5},"foo":3,"l":["x"],"predict_time":0.25},'
                r'"output":["a","b\nc"],"status":"succeeded"}'
            ),
        ),
    ]


def test_snapshot_before_the_start() -> None:
    """Nothing was made yet, and there is no output."""
    assert to_json(new().snapshot()) == b'{"id":"p","logs":"","metrics":{},"status":"starting"}'


def test_snapshot_running_has_what_was_made_so_far() -> None:
    """The output as a list, and no time yet."""
    prediction = running()
    assert prediction.snapshot() == {"id": "p", "logs": "", "metrics": {}, "status": "processing"}
    prediction.add_output("a", 2.0)
    prediction.add_log("l\n")
    prediction.add_metric("k", 2)
    assert prediction.snapshot() == {
        "id": "p",
        "logs": "l\n",
        "metrics": {"k": 2},
        "output": ["a"],
        "status": "processing",
    }


@pytest.mark.parametrize(
    ("status", "snapshot"),
    [
        (
            Status.SUCCEEDED,
            (
                r'{"id":"p","logs":"l\n","metrics":{"k":2,"predict_time":2.5},'
                r'"output":["a"],"status":"succeeded"}'
            ),
        ),
        (
            Status.FAILED,
            (
                r'{"error":"why","id":"p","logs":"l\n","metrics":{"k":2,"predict_time":2.5},'
                r'"output":["a"],"status":"failed"}'
            ),
        ),
        (
            Status.CANCELED,
            (
                r'{"id":"p","logs":"l\n","metrics":{"k":2,"predict_time":2.5},'
                r'"output":["a"],"status":"canceled"}'
            ),
        ),
    ],
)
def test_snapshot_at_the_end_keeps_all_and_is_the_last_event(status: Status, snapshot: str) -> None:
    """Also of one that failed or was cancelled."""
    prediction = ended(status)
    assert to_json(prediction.snapshot()).decode() == snapshot
    assert frames(prediction)[-1] == ("completed", snapshot)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (
            Status.SUCCEEDED,
            (
                r'{"id":"p","logs":"l\n","metrics":{"k":2,"predict_time":2.5},'
                r'"output":["a"],"status":"succeeded"}'
            ),
        ),
        (
            Status.FAILED,
            (
                r'{"error":"why","id":"p","logs":"","metrics":{"k":2,"predict_time":2.5},'
                r'"status":"failed"}'
            ),
        ),
        (
            Status.CANCELED,
            r'{"id":"p","logs":"","metrics":{"k":2,"predict_time":2.5},"status":"canceled"}',
        ),
    ],
)
def test_answer_has_output_and_logs_of_a_success_alone(status: Status, answer: str) -> None:
    """As Cog answers those who wait."""
    assert to_json(ended(status).answer()).decode() == answer


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
def test_snapshot_of_an_end_without_output_has_none(status: Status) -> None:
    """The member is absent."""
    prediction = running()
    end(prediction, status)
    assert "output" not in prediction.snapshot()
    assert prediction.answer() == prediction.snapshot()


def test_snapshot_of_a_success_without_output_has_an_empty_list() -> None:
    """The model said nothing, which is an answer."""
    prediction = running()
    prediction.succeed(2.0)
    assert prediction.snapshot()["output"] == []


def test_snapshot_members_are_in_cogs_order() -> None:
    """So that any JSON writer has it."""
    found = ended(Status.FAILED).snapshot()
    assert list(found) == sorted(found)


def test_snapshot_is_a_copy() -> None:
    """Who has it sees no later change."""
    prediction = running()
    prediction.add_output("a", 2.0)
    found = prediction.snapshot()
    prediction.add_output("b", 2.0)
    assert found["output"] == ["a"]


def test_predict_time_has_nanoseconds() -> None:
    """Like Cog's, from the start on."""
    prediction = new()
    prediction.start(10.1)
    prediction.succeed(10.4)
    assert prediction.snapshot()["metrics"] == {"predict_time": 0.3}


def test_predict_time_of_one_that_did_not_start_is_0() -> None:
    """Waiting is no predicting."""
    prediction = new()
    prediction.cancel(50.0)
    assert frames(prediction) == [
        (
            "completed",
            '{"id":"p","logs":"","metrics":{"predict_time":0.0},"status":"canceled"}',
        )
    ]


def test_succeed_metrics_are_in_the_end_alone() -> None:
    """They have no event of their own, and what JSON has no word for is left out."""
    prediction = running()
    prediction.succeed(2.0, {"tokens": 5, "tokens_per_second": math.inf})
    assert [name for name, _ in frames(prediction)] == ["start", "completed"]
    assert prediction.snapshot()["metrics"] == {"predict_time": 1.0, "tokens": 5}


def test_created_at_is_kept() -> None:
    """For whoever wants the age of one that waits."""
    assert Prediction("p", 7.5, EventLog()).created_at == 7.5


# -- bounds ----------------------------------------------------------------------------------------


def test_add_output_at_the_bound_is_taken() -> None:
    """Each chunk counts with its bytes and what a text costs."""
    prediction = running(2 * TEXT_OVERHEAD_BYTES + 4)
    assert prediction.add_output("é", 2.0)
    assert prediction.add_output("ab", 2.0)
    assert not prediction.terminal


@pytest.mark.parametrize("chunk", ["abc", "éé"])
def test_add_output_over_the_bound_fails(chunk: str) -> None:
    """It keeps what it has, without that chunk."""
    prediction = running(2 * TEXT_OVERHEAD_BYTES + 4)
    prediction.add_output("ab", 2.0)
    assert not prediction.add_output(chunk, 2.0)
    assert prediction.status is Status.FAILED
    assert prediction.snapshot() == {
        "error": "The output is over the limit of 132 bytes.",
        "id": "p",
        "logs": "",
        "metrics": {"predict_time": 1.0},
        "output": ["ab"],
        "status": "failed",
    }
    assert [name for name, _ in frames(prediction)] == ["start", "output", "completed"]


def test_add_log_over_the_bound_is_left_out() -> None:
    """No answer is lost for its remarks; a shorter one may still fit."""
    prediction = running()
    assert prediction.add_log("x" * (MAX_LOG_BYTES - 2 * TEXT_OVERHEAD_BYTES - 1))
    assert not prediction.add_log("yy")
    assert prediction.add_log("y")
    assert len(str(prediction.snapshot()["logs"])) == MAX_LOG_BYTES - 2 * TEXT_OVERHEAD_BYTES
    assert prediction.status is Status.PROCESSING
    assert prediction.log.last_number == len(["start", "log", "log"])


def test_add_metric_that_does_not_fit_has_no_event() -> None:
    """It changes nothing."""
    prediction = running()
    assert not prediction.add_metric("a", math.nan)
    assert [name for name, _ in frames(prediction)] == ["start"]
    assert prediction.snapshot()["metrics"] == {}


def test_size_is_what_it_holds() -> None:
    """Output, logs, metrics and the log."""
    prediction = new()
    assert prediction.size == len(b"{}")
    prediction.start(1.0)
    prediction.add_output("é", 2.0)
    prediction.add_log("abc")
    prediction.add_metric("m", 5)
    held = (2 + TEXT_OVERHEAD_BYTES) + (3 + TEXT_OVERHEAD_BYTES) + len(b'{"m":5}')
    assert prediction.size == held + prediction.log.held_bytes
    assert prediction.log.held_bytes > 0


# -- odd text --------------------------------------------------------------------------------------


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_events_any_text_is_json(chunk: str, log: str, name: str, value: str, error: str) -> None:
    """Also with lone surrogates, and each event is one frame."""
    prediction = running()
    prediction.add_output(chunk, 2.0)
    prediction.add_log(log)
    prediction.add_metric(name, value)
    prediction.fail(2.0, error)
    datas = [json.loads(data) for _, data in frames(prediction)]
    assert len(datas) == 5
    assert datas[-1] == prediction.snapshot()
    json.dumps(prediction.snapshot(), ensure_ascii=False).encode()


def test_add_output_lone_surrogate_becomes_a_replacement() -> None:
    """The same one in the event and in the object."""
    prediction = running()
    prediction.add_output("a\ud83d", 2.0)
    assert frames(prediction)[-1] == ("output", '{"chunk":"a\ufffd","index":0}')
    assert prediction.snapshot()["output"] == ["a\ufffd"]


# -- the moves -------------------------------------------------------------------------------------

MOVES: dict[str, Callable[[Prediction], bool]] = {
    "start": lambda prediction: prediction.start(2.0),
    "output": lambda prediction: prediction.add_output("x", 2.0),
    "too_much": lambda prediction: prediction.add_output("x" * 200, 2.0),
    "log": lambda prediction: prediction.add_log("x"),
    "metric": lambda prediction: prediction.add_metric("x", 1),
    "succeed": lambda prediction: prediction.succeed(2.0, {"y": 1}),
    "fail": lambda prediction: prediction.fail(2.0, "x"),
    "cancel": lambda prediction: prediction.cancel(2.0),
}


@pytest.mark.parametrize("move", ["output", "too_much", "log", "metric", "succeed"])
def test_move_before_the_start_changes_nothing(move: str) -> None:
    """What has not begun makes nothing, and does not succeed."""
    prediction = new(200)
    assert not MOVES[move](prediction)
    assert prediction.status is Status.STARTING
    assert frames(prediction) == []


def test_start_again_changes_nothing() -> None:
    """The time counts from the first."""
    prediction = running()
    assert not prediction.start(2.0)
    prediction.succeed(3.0)
    assert prediction.snapshot()["metrics"] == {"predict_time": 2.0}


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("move", MOVES)
def test_move_after_the_end_changes_nothing(status: Status, move: str) -> None:
    """Whatever comes late: the object and the log stay."""
    prediction = ended(status)
    before, events = prediction.snapshot(), frames(prediction)
    assert not MOVES[move](prediction)
    assert prediction.snapshot() == before
    assert frames(prediction) == events
    assert prediction.terminal


@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=12))
def test_any_order_of_moves_has_one_end_at_most(moves: list[str]) -> None:
    """The first end stays; `completed` is once and last; a move has one event if it counts."""
    prediction = new(200)
    status = Status.STARTING
    events = 0
    for move in moves:
        legal = (
            move == "start" or move in {"fail", "cancel"}
            if status is Status.STARTING
            else status is Status.PROCESSING and move != "start"
        )
        changed = MOVES[move](prediction)
        overflow = legal and not changed and move in {"output", "too_much"}
        assert changed is (legal and not overflow)
        if legal:
            events += 1
            ends = {"succeed": Status.SUCCEEDED, "cancel": Status.CANCELED, "fail": Status.FAILED}
            status = ends.get(move, Status.FAILED if overflow else Status.PROCESSING)
        assert prediction.status is status
        assert prediction.terminal is prediction.log.closed is (status in ENDS)
        names = [name for name, _ in frames(prediction)]
        assert len(names) == events
        assert names.count("completed") == prediction.terminal
        assert not prediction.terminal or names[-1] == "completed"


# -- as JSON ---------------------------------------------------------------------------------------


def test_json_of_a_running_prediction_is_that_of_its_snapshot() -> None:
    """As it is at the moment."""
    prediction = running()
    prediction.add_output("a", 2.0)
    assert prediction.snapshot_json() == to_json(prediction.snapshot())
    prediction.add_output("b", 2.0)
    assert prediction.snapshot_json() == to_json(prediction.snapshot())


@pytest.mark.parametrize("status", ENDS)
def test_json_of_an_ended_prediction_is_its_last_event(status: Status) -> None:
    """The bytes are there once, however many read them."""
    prediction = ended(status)
    (last,) = prediction.log.events_from(prediction.log.last_number, 1)
    assert prediction.snapshot_json() == to_json(prediction.snapshot())
    assert prediction.snapshot_json().obj is last.wire


@pytest.mark.parametrize("status", ENDS)
def test_json_of_an_answer_is_what_is_answered(status: Status) -> None:
    """Without what a failed one has made, as `answer` says."""
    prediction = ended(status)
    assert prediction.answer_json() == to_json(prediction.answer())
