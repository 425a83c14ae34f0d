"""The hub: when viewers are told what, and what it keeps of an exchange."""

from __future__ import annotations

import gc
import json
import logging
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.causes import EndCause, Phase
from proxy.core.status.text import MAX_LINE_BYTES
from proxy.runtime.exchange import Exchange
from proxy.web.status.shown import Shown
from tests.fakes.staged_engine import StagedEngine
from tests.web.status.staged_hub import (
    Seen,
    Stage,
    chunk,
    event,
    followed,
    is_watched,
    settle,
    staged,
)

# -- status ----------------------------------------------------------------------------------------


async def test_viewer_is_told_everything_at_once(autojump_clock: object) -> None:
    """Before anything else happens; with the texts so far."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.passing.note(event("Hello"))
            seen = stage.viewer()
            ((_, kind, snapshot),) = seen.read()
            assert kind == "status"
            assert snapshot["exchanges"][0]["text"] == "Hello"
            assert snapshot["proxy"]["viewers"] == 1


async def test_phase_is_told_when_it_changes(autojump_clock: object) -> None:
    """In the same moment, and not when the next regular status is due."""
    async with staged() as stage, followed(stage) as seen:
        await trio.sleep(0.3)
        told = []
        with stage.exchange() as exchange:
            told.append(trio.current_time())
            for phase in (Phase.CONNECTING, Phase.PREFILL, Phase.DECODE):
                await trio.sleep(0.07)
                exchange.enter(phase)
                told.append(trio.current_time())
            await trio.sleep(0.07)
        await settle()
        assert [phase for _, phase in seen.phases()] == [
            "queued",
            "connecting",
            "prefill",
            "decode",
        ]
        assert [at for at, _ in seen.phases()] == pytest.approx(told)


async def test_end_is_told_when_it_comes(autojump_clock: object) -> None:
    """The exchange is in the history then, and no longer in flight."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            await trio.sleep(0.1)
            exchange.end(EndCause.CANCELLED_BY_ADMIN)
            await trio.sleep(0.1)
            assert seen.statuses()[-1][1]["exchanges"][0]["cause"] == "cancelled_by_admin"
        ended_at = trio.current_time()
        await settle()
        at, last = next(found for found in seen.statuses() if found[1]["perf_history"])
        assert at == pytest.approx(ended_at)
        assert [each["cause"] for each in last["perf_history"]] == ["cancelled_by_admin"]
        assert last["exchanges"] == []


async def test_status_comes_four_times_a_second_while_something_goes_on(
    autojump_clock: object,
) -> None:
    """However many tokens pass."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.enter(Phase.DECODE)
            async with followed(stage) as seen:
                for _ in range(1000):
                    exchange.passing.note(event("a"))
                    await trio.sleep(0.002)
                assert len(seen.statuses()) in (8, 9)


async def test_status_comes_each_second_while_nothing_goes_on(autojump_clock: object) -> None:
    """Only memory and times change then."""
    async with staged() as stage, followed(stage) as seen:
        await trio.sleep(10.1)
        assert 10 <= len(seen.statuses()) <= 12


async def test_phases_that_follow_each_other_at_once_are_told_together(
    autojump_clock: object,
) -> None:
    """Twenty times a second at most, whatever exchanges do."""
    async with staged() as stage, followed(stage) as seen:
        for number in range(500):
            with stage.exchange(f"r{number}") as exchange:
                exchange.enter(Phase.PREFILL)
                await trio.sleep(0.002)
        assert len(seen.statuses()) <= 22


async def test_engine_is_told_when_it_changes(autojump_clock: object) -> None:
    """A crash is shown at once."""
    engine = StagedEngine()
    async with staged(engine) as stage, followed(stage) as seen:
        await trio.sleep(0.3)
        engine.crash()
        crashed_at = trio.current_time()
        await settle()
        at, snapshot = seen.statuses()[-1]
        assert at == pytest.approx(crashed_at)
        assert snapshot["engine"]["state"] == "crashed"


async def test_statuses_are_numbered_upwards(autojump_clock: object) -> None:
    """`id` tells one from the next."""
    async with staged() as stage:
        viewer = stage.hub.attach()
        first = viewer.queue.take()
        await trio.sleep(1.1)
        second = viewer.queue.take()
        numbers = [int(frame.split(b"\n")[0].removeprefix(b"id: ")) for frame in (first, second)]
        assert numbers[0] < numbers[1]


async def test_nobody_is_told_nothing(autojump_clock: object) -> None:
    """Without a viewer the hub sleeps, and does not look at anything."""
    async with staged() as stage:
        before = stage.hub._number
        with stage.exchange() as exchange:
            exchange.enter(Phase.DECODE)
            await trio.sleep(60)
            assert not is_watched(exchange)
        assert stage.hub._number == before


# -- tokens ----------------------------------------------------------------------------------------


async def test_tokens_are_told_in_batches(autojump_clock: object) -> None:
    """Each waits for 50 ms at most; what comes meanwhile is one event."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            for _ in range(100):
                exchange.passing.note(event("a"))
                await trio.sleep(0.01)
            await settle()
            batches = [data["text"] for _, kind, data in seen.events if kind == "token"]
            assert "".join(batches) == "a" * 100
            assert 18 <= len(batches) <= 22


async def test_token_is_late_by_a_batch_at_most(autojump_clock: object) -> None:
    """50 ms, whenever it comes."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            for number in range(200):
                await trio.sleep(0.017 * (number % 7))
                exchange.passing.note(event(f"{trio.current_time()} "))
            await settle()
        late = [
            at - float(each)
            for at, kind, data in seen.events
            if kind == "token"
            for each in data["text"].split()
        ]
        assert len(late) == 200
        assert max(late) <= 0.0501


async def test_text_and_thought_are_told_apart(autojump_clock: object) -> None:
    """One event for each change between them."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            for kind in ("reasoning_content", "reasoning_content", "content", "content"):
                exchange.passing.note(event("a", kind))
            await settle()
            assert [
                (data["kind"], data["text"]) for _, event, data in seen.events if event == "token"
            ] == [("thought", "aa"), ("text", "aa")]


async def test_token_comes_after_the_status_that_told_of_its_exchange(
    autojump_clock: object,
) -> None:
    """Also of one that begins, and speaks, within the gap after the last status."""
    async with staged() as stage, followed(stage) as seen:
        await trio.sleep(0.3)
        with stage.exchange("r0"):
            await trio.lowlevel.checkpoint()
            await trio.sleep(0.001)
            with stage.exchange("r1") as exchange:
                exchange.passing.note(event("a"))
                await settle()
        order = [
            kind
            for _, kind, data in seen.events
            if kind == "token" or "r1" in [each["request_id"] for each in data["exchanges"]]
        ]
        assert order[:2] == ["status", "token"]


async def test_last_tokens_of_an_exchange_are_told(autojump_clock: object) -> None:
    """Those that came just before its end."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            await settle()
            exchange.passing.note(event("a") + event("b"))
        await settle()
        assert seen.tokens() == "ab"


async def test_invalid_utf8_is_shown_as_replacement(autojump_clock: object) -> None:
    """Bytes that are none, half a character, half a surrogate pair: U+FFFD and never an error."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            for data in (b"\xff\xfe", b"\xf0\x9f\x98", b"\\ud83d", b"\xed\xa0\xbd"):
                body = b'data: {"choices":[{"index":0,"delta":{"content":"%b|"}}]}\n\n' % data
                exchange.passing.note(body)
            exchange.passing.note(b"data: \xff\n\ndata: [[[\n\n\x00\xff\n" + event("end"))
            await settle()
            told = seen.tokens()
            assert told.endswith("end")
            assert told.replace("\ufffd", "") == "||||end"
            assert stage.snapshot()["exchanges"][0]["text"] == told


async def test_names_that_utf8_has_no_form_of_are_shown(autojump_clock: object) -> None:
    """Half a character in a name that llama-server tells breaks no event."""
    async with staged() as stage:
        with stage.exchange("r\ud83d"):
            seen = stage.viewer()
            ((_, _, snapshot),) = seen.read()
            assert snapshot["exchanges"][0]["request_id"] == "r\ufffd"


# -- who comes late --------------------------------------------------------------------------------


async def test_late_viewer_gets_the_text_so_far(autojump_clock: object) -> None:
    """All of it, from somebody who watched all the time."""
    async with staged() as stage, followed(stage):
        with stage.exchange() as exchange:
            for number in range(500):
                exchange.passing.note(event(f"{number} "))
                await trio.sleep(0.001)
            late = stage.viewer()
            late.read()
            shown = late.statuses()[0][1]["exchanges"][0]
            assert shown["text"] == "".join(f"{number} " for number in range(500))
            assert not shown["text_cut"]


async def test_first_viewer_gets_the_last_text(autojump_clock: object) -> None:
    """Nobody kept more: that is said."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            for number in range(500):
                exchange.passing.note(event(f"{number} "))
            seen = stage.viewer()
            seen.read()
            shown = seen.statuses()[0][1]["exchanges"][0]
            assert shown["text"].endswith("498 499 ")
            assert shown["text_cut"]


async def test_first_viewer_of_what_has_just_begun_gets_all(autojump_clock: object) -> None:
    """Then nothing is cut."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.passing.note(event("a"))
            exchange.passing.note(event("b"))
            seen = stage.viewer()
            seen.read()
            shown = seen.statuses()[0][1]["exchanges"][0]
            assert (shown["text"], shown["text_cut"]) == ("ab", False)


async def test_text_is_bounded_and_said_to_be_cut(autojump_clock: object) -> None:
    """The end of it is kept; a viewer that was there has had the rest."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            for _ in range(200):
                exchange.passing.note(event("x" * 1000))
                await trio.sleep(0.01)
            exchange.passing.note(event("end"))
            await trio.sleep(0.3)
            shown = stage.snapshot()["exchanges"][0]
            assert len(shown["text"]) == 64 * 1024
            assert shown["text"].endswith("xend")
            assert shown["text_cut"]
            assert len(seen.tokens()) == 200_003


async def test_later_statuses_have_no_texts(autojump_clock: object) -> None:
    """Tokens carry what follows."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            exchange.passing.note(event("secret"))
            await trio.sleep(1)
        for _, snapshot in seen.statuses()[1:]:
            for each in snapshot["exchanges"]:
                assert (each["text"], each["thought"], each["prompt"]) == (None, None, None)


class Play:
    """An exchange whose pieces are numbered, and viewers that come and go meanwhile."""

    def __init__(self, stage: Stage, exchange: Exchange) -> None:
        self.stage = stage
        self.exchange = exchange
        self.said = ""
        self.viewers: list[tuple[Seen, str]] = []
        self._rest = b""

    async def act(self, what: str, how: int) -> None:
        """Take one step."""
        if what == "say":
            word = f"{self.said.count(' ')} "
            self.said += word
            self._pass(event(word), how)
        elif what == "come":
            seen = self.stage.viewer()
            self.viewers.append((seen, ""))
        elif what == "go" and len(self.viewers) > 1:
            self.stage.hub.detach(self.viewers.pop(how % len(self.viewers))[0].viewer)
        elif what == "read" and self.viewers:
            self.viewers[how % len(self.viewers)][0].read()
        else:
            await trio.sleep(how / 50)

    def _pass(self, data: bytes, how: int) -> None:
        """Pass an event in a chunk, as payload, or cut in two anywhere."""
        if how % 3 == 0 and not self._rest:
            self.exchange.passing.note(chunk(data))
            return
        data = self._rest + data
        cut = len(data) if how % 3 == 1 else how * 7 % len(data)
        self._rest = data[cut:]
        if cut:
            self.exchange.passing.note(data[:cut])

    def end(self) -> None:
        """Pass what is left."""
        if self._rest:
            self.exchange.passing.note(self._rest)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "say", "say", "come", "go", "read", "wait"]),
        st.integers(0, 40),
    ),
    max_size=150,
)


@settings(deadline=None, max_examples=150)
@given(_STEPS)
def test_no_token_is_twice_or_missing_for_any_viewer(steps: list[tuple[str, int]]) -> None:
    """The first text and the tokens are the answer, or its end where that is said to be cut."""

    async def play() -> None:
        async with staged() as stage:
            with stage.exchange() as exchange:
                exchange.enter(Phase.DECODE)
                playing = Play(stage, exchange)
                for what, how in steps:
                    await playing.act(what, how)
                playing.end()
            await settle()
            for seen, _ in playing.viewers:
                seen.read()
                first = next(iter(seen.statuses()[0][1]["exchanges"]), None)
                assert first is not None
                shown = first["text"] + seen.tokens()
                assert first["text_cut"] or shown == playing.said
                # Words that begin in what was forgotten are missing whole.
                assert playing.said.endswith(shown)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_event_larger_than_a_line_may_be_is_left_out(autojump_clock: object) -> None:
    """The next one is read again."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            for _ in range(5):
                exchange.passing.note(b"data: " + b"x" * (MAX_LINE_BYTES // 4))
                await settle()
            exchange.passing.note(b"\n\n" + event("after"))
            await settle()
            assert seen.tokens() == "after"


async def test_what_passes_faster_than_it_is_read_is_left_out_and_said(
    autojump_clock: object,
) -> None:
    """Memory is bounded; the text has a gap."""
    async with staged() as stage, followed(stage) as seen:
        with stage.exchange() as exchange:
            await settle()
            for _ in range(100):
                exchange.passing.note(b"x" * 100_000)
            assert stage.hub._shown[exchange]._unread_bytes <= 1024 * 1024
            exchange.passing.note(b"\n\n" + event("after"))
            await trio.sleep(0.3)
            assert seen.tokens() == "after"
            assert seen.statuses()[-1][1]["exchanges"][0]["text_cut"]


# -- who is slow -----------------------------------------------------------------------------------


async def test_stalled_viewer_loses_tokens_and_keeps_the_latest_status(
    autojump_clock: object,
) -> None:
    """What waits for it is bounded; others lose nothing."""
    async with staged() as stage, followed(stage) as quick:
        stalled = stage.viewer()
        with stage.exchange() as exchange:
            for number in range(600):
                exchange.passing.note(event(f"{number} " * 200))
                await trio.sleep(0.05)
            waits = stalled.viewer.queue.take()
            assert len(waits) < 300_000
            stalled.take(waits)
            assert stalled.viewer.queue.lost > 0
            assert len(stalled.statuses()) == 2
            assert trio.current_time() - stalled.statuses()[-1][1]["proxy"]["uptime_s"] < 0.5
            assert stalled.tokens().endswith("599 ")
            assert (
                len(stalled.tokens())
                < len(quick.tokens())
                == sum(200 * len(f"{number} ") for number in range(600))
            )


# -- what is left ----------------------------------------------------------------------------------


async def test_detached_viewer_leaves_no_watch(autojump_clock: object) -> None:
    """The last one: an event costs what it did before."""
    async with staged() as stage:
        with stage.exchange("r1") as one, stage.exchange("r2") as two:
            first, second = stage.viewer(), stage.viewer()
            assert is_watched(one)
            stage.hub.detach(first.viewer)
            assert is_watched(one)
            assert is_watched(two)
            stage.hub.detach(second.viewer)
            stage.hub.detach(second.viewer)
            assert not is_watched(one)
            assert not is_watched(two)
            assert stage.hub._shown == {}
        with stage.exchange("r3") as three:
            assert not is_watched(three)
        assert stage.snapshot()["proxy"]["viewers"] == 0


async def test_ended_exchange_leaves_no_watch(autojump_clock: object) -> None:
    """Whoever still holds the exchange holds no viewer."""
    async with staged() as stage, followed(stage):
        with stage.exchange() as exchange:
            assert is_watched(exchange)
        assert not is_watched(exchange)
        assert stage.hub._shown == {}


def _alive(kind: type[Any]) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


async def test_ended_exchange_is_kept_by_nobody(autojump_clock: object) -> None:
    """Neither it nor what is shown of it, and without the collector's help."""

    async def one(stage: Stage) -> None:
        with stage.exchange() as exchange:
            exchange.enter(Phase.DECODE)
            exchange.passing.note(event("a"))
            await settle()
            exchange.finish()

    gc.collect()
    before = _alive(Exchange), _alive(Shown)
    gc.disable()
    try:
        async with staged() as stage:
            await one(stage)
            async with followed(stage):
                await one(stage)
                await settle()
                assert (_alive(Exchange), _alive(Shown)) == before
            stage.snapshot()
            await one(stage)
            assert (_alive(Exchange), _alive(Shown)) == before
    finally:
        gc.enable()


async def test_snapshot_for_nobody_watches_nothing(autojump_clock: object) -> None:
    """`/status/json` has the texts as far as they are kept, and leaves no trace."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.passing.note(event("Hello"))
            assert stage.snapshot()["exchanges"][0]["text"] == "Hello"
            assert not is_watched(exchange)
            assert stage.hub._shown == {}


# -- privacy ---------------------------------------------------------------------------------------


async def test_without_content_no_text_is_told_or_read(autojump_clock: object) -> None:
    """No prompt, no text, no token; what passes is not even looked at."""
    async with staged(content=False) as stage:
        with stage.exchange() as exchange:
            exchange.passing.note(event("secret"))
            async with followed(stage) as seen:
                assert not is_watched(exchange)
                exchange.passing.note(event("secret"))
                await trio.sleep(1)
                told = json.dumps([seen.events, stage.snapshot()])
                assert "secret" not in told
                assert {kind for _, kind, _ in seen.events} == {"status"}
                shown = seen.statuses()[0][1]
                assert shown["content"] == "none"
                assert shown["exchanges"][0]["text"] is None
                assert shown["exchanges"][0]["thought"] is None
                assert shown["exchanges"][0]["prompt"] is None


# -- the end of all --------------------------------------------------------------------------------


async def test_shutdown_ends_viewers(autojump_clock: object) -> None:
    """Those there are, and those that come."""
    async with staged() as stage:
        seen = stage.viewer()
        stage.backend.shut_down()
        assert seen.viewer.over
        assert stage.viewer().viewer.over


# -- defects ---------------------------------------------------------------------------------------


def _break(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("broken", ["note_ended", "snapshot"])
async def test_defect_in_what_is_told_is_no_exchanges(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """It is logged, the viewers are sent away, and the hub goes on for the next one."""
    async with staged() as stage:
        seen = stage.viewer()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage.facts, broken, _break)
            with stage.exchange() as exchange:
                exchange.enter(Phase.DECODE)
                exchange.passing.note(event("a"))
                await settle()
                exchange.finish()
            assert exchange.cause is EndCause.FINISHED
            assert len(stage.backend.exchanges) == 0
            await settle()
        assert seen.viewer.over
        assert [each.levelno for each in caplog.records if each.name == "proxy.status"] == [
            logging.ERROR
        ]
        async with followed(stage) as other:
            with stage.exchange():
                await settle()
            assert len(other.statuses()) > 1


async def test_defect_in_what_is_shown_is_no_exchanges(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that cannot be taken passes all the same."""
    async with staged() as stage:
        seen = stage.viewer()
        with stage.exchange() as exchange:
            monkeypatch.setattr(Shown, "take", _break)
            exchange.passing.note(event("a"))
            exchange.passing.note(event("b"))
            assert not is_watched(exchange)
        assert seen.viewer.over
        assert stage.hub._shown == {}
        assert len([each for each in caplog.records if each.name == "proxy.status"]) == 1


async def test_defect_while_one_is_opened_is_no_exchanges(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in flight, and gone at its end."""
    async with staged() as stage:
        stage.viewer()
        monkeypatch.setattr(Shown, "__init__", _break)
        with stage.exchange():
            assert len(stage.backend.exchanges) == 1
        assert len(stage.backend.exchanges) == 0
        assert "sent away" in caplog.text


async def test_viewer_that_cannot_be_told_is_not_kept(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request fails, and nothing is watched for it."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            monkeypatch.setattr(stage.facts, "snapshot", _break)
            with pytest.raises(RuntimeError):
                stage.hub.attach()
            assert not is_watched(exchange)
            assert len(stage.hub._viewers) == 0
