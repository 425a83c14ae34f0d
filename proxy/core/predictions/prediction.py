"""One prediction: its state, what it has made so far, and its events.

Owns the legal moves, and that nothing changes after a terminal state, whatever comes late. Every
change is an event in its log, in Cog's shapes; the last one is `completed`, exactly one, and then
the log is closed. Knows nothing of who runs it, who reads it, or when it may run.

Source: coglet 0.23.1, as it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.events import Event
from proxy.core.predictions.metrics import MetricMode, Metrics, Scalar
from proxy.core.predictions.shapes import to_json
from proxy.core.sound_text import sound_text

# Far more than the text of the largest context; it bounds what one prediction may take of the
# process that all share.
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
# Enough for what a model thinks before its longest answer, in chunks of a token.
MAX_LOG_BYTES = 16 * 1024 * 1024
# What Python needs for a short text and its place in a list. Without it a million chunks of one
# letter would count as one megabyte, and take sixty.
TEXT_OVERHEAD_BYTES = 64

LogSource = Literal["stdout", "stderr"]


class Status(StrEnum):
    """Cog's states of a prediction."""

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


# A state that is missing is terminal: no move leads out of it.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.STARTING: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELED}),
    Status.PROCESSING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED}),
}


class Prediction:
    """The state machine of one prediction. It is `starting` until `start` is called.

    Each method that changes something returns whether it did. It did not where the move is not a
    legal one, and output, logs and metrics are taken only while it is `processing`. Times are
    monotonic seconds. No text can make an event fail (`core.predictions.shapes`).

    Args:
        id: Its id.
        created_at: When it was made.
        log: A log of its own, empty.
        max_output_bytes: How much output it may hold: the chunks in UTF-8, with
            `TEXT_OVERHEAD_BYTES` for each. One that makes more fails.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - Cog's word, which every caller uses
        created_at: float,
        log: EventLog,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self.id = id
        self.created_at = created_at
        self.log = log
        self._max_output_bytes = max_output_bytes
        self._status = Status.STARTING
        self._started_at: float | None = None
        self._predict_time = 0.0
        self._output: list[str] = []
        self._output_bytes = 0
        self._logs: list[str] = []
        self._log_bytes = 0
        self._metrics = Metrics()
        self._error: str | None = None
        self._completed: Event | None = None

    @property
    def status(self) -> Status:
        """Its state."""
        return self._status

    @property
    def terminal(self) -> bool:
        """Whether it is over: nothing changes any more."""
        return self._status not in TRANSITIONS

    @property
    def size(self) -> int:
        """About how many bytes it holds, with its log."""
        metrics = len(to_json(self._metrics.as_object()))
        return self._output_bytes + self._log_bytes + metrics + self.log.held_bytes

    def start(self, now: float) -> bool:
        """It has its permit and runs from now on."""
        if not self._move(Status.PROCESSING):
            return False
        self._started_at = now
        self._append("start", {"id": self.id, "status": Status.PROCESSING})
        return True

    def add_output(self, chunk: str, now: float) -> bool:
        """Add a chunk of the answer.

        Where it is too much, the prediction fails, without the chunk.

        Args:
            chunk: Any text.
            now: The time, for the end that this may be.
        """
        if self._status is not Status.PROCESSING:
            return False
        chunk = sound_text(chunk)
        size = _held_bytes(chunk)
        if self._output_bytes + size > self._max_output_bytes:
            self.fail(now, f"The output is over the limit of {self._max_output_bytes} bytes.")
            return False
        self._append("output", {"chunk": chunk, "index": len(self._output)})
        self._output.append(chunk)
        self._output_bytes += size
        return True

    def add_log(self, text: str, source: LogSource = "stdout") -> bool:
        """Add a text to the logs.

        What is over `MAX_LOG_BYTES`, counted like output, is left out, event and all: no answer is
        lost for its remarks.

        Args:
            text: Any text, with its line end.
            source: The stream that it is said to come from.
        """
        if self._status is not Status.PROCESSING:
            return False
        text = sound_text(text)
        size = _held_bytes(text)
        if self._log_bytes + size > MAX_LOG_BYTES:
            return False
        self._append("log", {"data": text, "source": source})
        self._logs.append(text)
        self._log_bytes += size
        return True

    def add_metric(self, name: str, value: Scalar, mode: MetricMode = MetricMode.REPLACE) -> bool:
        """Change a metric (`core.predictions.metrics`).

        Args:
            name: Its name; dots nest.
            value: A finite number, or a text.
            mode: What becomes of the value that it has.
        """
        if self._status is not Status.PROCESSING or not self._metrics.add(name, value, mode):
            return False
        self._append("metric", {"mode": mode, "name": name, "value": value})
        return True

    def succeed(self, now: float, metrics: Mapping[str, Scalar] | None = None) -> bool:
        """The answer is whole.

        Args:
            now: The time.
            metrics: Metrics that are known only now; they have no event of their own, like
                `predict_time`. Those that are not finite are left out.
        """
        return self._end(Status.SUCCEEDED, now, metrics=metrics or {})

    def fail(self, now: float, error: str) -> bool:
        """It has failed.

        Args:
            now: The time.
            error: Why, for its client.
        """
        return self._end(Status.FAILED, now, error=sound_text(error))

    def cancel(self, now: float) -> bool:
        """Nobody wants it any more.

        Args:
            now: The time.
        """
        return self._end(Status.CANCELED, now)

    def snapshot(self) -> dict[str, object]:
        """Return the object as it is now, with what it has made so far.

        Its members are a copy, in the order of Cog's JSON. There is `output` once there is any or
        the prediction has succeeded, `error` once it has failed, and `metrics.predict_time` once
        it is over: the seconds since it started, 0 where it did not.
        """
        metrics = self._metrics.as_object()
        if self.terminal:
            metrics["predict_time"] = self._predict_time
        found: dict[str, object] = {} if self._error is None else {"error": self._error}
        found |= {"id": self.id, "logs": "".join(self._logs), "metrics": metrics}
        if self._output or self._status is Status.SUCCEEDED:
            found["output"] = list(self._output)
        return found | {"status": self._status.value}

    def answer(self) -> dict[str, object]:
        """Return the object as Cog answers those who wait for the end.

        One that failed or was cancelled has no output and no logs there; its stream's `completed`
        and its webhook have them (`snapshot`).
        """
        found = self.snapshot()
        if self._status in {Status.FAILED, Status.CANCELED}:
            found.pop("output", None)
            found["logs"] = ""
        return found

    def snapshot_json(self) -> memoryview:
        """Return the snapshot as JSON.

        Of one that is over it is the data of its last event: however many read it, and however
        slowly, it is there once.
        """
        if self._completed is None:
            return memoryview(to_json(self.snapshot()))
        return self._completed.view_data()

    def answer_json(self) -> memoryview:
        """Return the answer as JSON; where it is the snapshot, that of `snapshot_json`."""
        if self._status is Status.SUCCEEDED:
            return self.snapshot_json()
        return memoryview(to_json(self.answer()))

    def _move(self, status: Status) -> bool:
        if status not in TRANSITIONS.get(self._status, ()):
            return False
        self._status = status
        return True

    def _end(
        self,
        status: Status,
        now: float,
        *,
        error: str | None = None,
        metrics: Mapping[str, Scalar] | None = None,
    ) -> bool:
        if not self._move(status):
            return False
        self._error = error
        for name, value in (metrics or {}).items():
            self._metrics.add(name, value, MetricMode.REPLACE)
        if self._started_at is not None:
            # Nanoseconds, like Cog: more digits are the clock's noise.
            self._predict_time = round(now - self._started_at, 9)
        self._completed = self._append("completed", self.snapshot())
        self.log.close()
        return True

    def _append(self, name: str, value: object) -> Event:
        return self.log.append(name, to_json(value))


def _held_bytes(text: str) -> int:
    """Return what a sound text counts as."""
    return len(text.encode()) + TEXT_OVERHEAD_BYTES
