"""Every framing probe, through the framer alone and over a socket to the main listener."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import pytest
import trio

from proxy.core.framing import Limits
from tests.core.framing_transcript import Transcript, play, read_by_h11
from tests.http1.probe import Cut, Handled, Outcome, Probe, Refused
from tests.http1.probes import PROBES

LIMITS = Limits(max_body=64 * 1024 * 1024)

# Sent after what is handled, on the same connection: if a body was taken to end elsewhere than
# where it ends, this is not answered, or something else is as well.
LAST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

# Over the time for which the proxy goes on reading after a refusal, far below any other time limit.
PATIENCE_S = 8

each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)


def end_of(transcript: Transcript) -> Outcome | None:
    """Return how the last request ended, if not by being complete."""
    if transcript.fault is not None:
        return Refused(transcript.fault.status)
    last = transcript.requests[-1] if transcript.requests else None
    if last is not None and not last.complete:
        return Cut(last.head.target)
    ended = transcript.framer.at_request_start or (last is not None and not last.head.keep_alive)
    return None if ended else Cut()


def as_handled(head: h11.Request, payload: bytes, status: int | None) -> Handled:
    """Return what h11 read in the shape of the table."""
    hosts = [value for name, value in head.headers if name == b"host"]
    assert len(hosts) <= 1
    host = hosts[0] if hosts else None
    return Handled(head.target, head.method, host, payload, status)


def test_probes_names_are_unique() -> None:
    """No two probes have the same name."""
    assert [name for name, count in Counter(p.name for p in PROBES).items() if count > 1] == []


def test_probes_number_covers_the_measured_set() -> None:
    """There are at least as many probes as those that stock Hypercorn was measured with."""
    assert len(PROBES) >= 82


@each_probe
def test_framer_given_probe_hands_on_what_the_table_says(probe: Probe) -> None:
    """The framer refuses or hands on each probe as the table says, and h11 reads it alike."""
    transcript = play([probe.data], LIMITS)
    complete = [request for request in transcript.requests if request.complete]
    handled = [outcome for outcome in probe.outcomes if isinstance(outcome, Handled)]
    expected_end = None if len(handled) == len(probe.outcomes) else probe.outcomes[-1]
    assert end_of(transcript) == expected_end
    assert len(complete) == len(handled)
    for request, expected in zip(complete, handled, strict=True):
        assert as_handled(*read_by_h11(request), expected.status) == expected


@dataclass(frozen=True)
class Answer:
    """A response, as a client reads it."""

    status: int
    closes: bool
    body: bytes


async def converse(url: str, probe: Probe) -> bytes:
    """Send the probe on a new connection and return everything that comes until it is closed."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    received = b""
    with trio.fail_after(PATIENCE_S):
        stream = await trio.open_tcp_stream(address.hostname, address.port)
        async with stream:
            try:
                await stream.send_all(probe.data)
                if isinstance(probe.outcomes[-1], Handled):
                    await stream.send_all(LAST)
                if isinstance(probe.outcomes[-1], Cut):
                    await stream.send_eof()
                while data := await stream.receive_some():
                    received += data
            except trio.BrokenResourceError:
                # A reset: what had come by then is what the client has.
                pass
    return received


def read_answers(received: bytes, methods: list[bytes]) -> list[Answer]:
    """Return the final responses in `received`; `methods` are those of the requests."""
    answers: list[Answer] = []
    while received:
        reader = h11.Connection(h11.CLIENT)
        method = methods[len(answers)] if len(answers) < len(methods) else b"GET"
        reader.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"localhost")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(received)
        while isinstance(response := reader.next_event(), h11.InformationalResponse):
            pass
        assert isinstance(response, h11.Response)
        body = b""
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        closes = (b"connection", b"close") in [(n, v.lower()) for n, v in response.headers]
        answers.append(Answer(response.status_code, closes, body))
        received = reader.trailing_data[0]
    return answers


def fits(answer: Answer, outcome: Outcome) -> bool:
    """Return whether that is the answer that the table says."""
    match outcome:
        case Handled(status=None):
            return answer.status < 500
        case Handled(status=status):
            return answer.status == status
        case Refused(status=status):
            error = json.loads(answer.body)["error"]
            return answer.closes and (answer.status, error["code"], error["type"]) == (
                status,
                status,
                "invalid_request_error",
            )
        case Cut():
            # RFC 9112 section 8 lets a server answer an incomplete request with an error.
            return answer.closes and answer.status >= 400


@each_probe
async def test_listener_given_probe_answers_what_the_table_says(
    proxy_url: str, probe: Probe
) -> None:
    """The main listener answers exactly the requests of the probe that the table lists."""
    expected = list(probe.outcomes)
    methods = [outcome.method for outcome in expected if isinstance(outcome, Handled)]
    answers = read_answers(await converse(proxy_url, probe), methods)
    kept_open = not any(answer.closes for answer in answers[: len(expected)])
    if isinstance(expected[-1], Handled) and kept_open:
        expected.append(Handled())
    if isinstance(expected[-1], Cut) and len(answers) < len(expected):
        expected.pop()
    assert len(answers) == len(expected), (probe.section, answers)
    for answer, outcome in zip(answers, expected, strict=True):
        assert fits(answer, outcome), (probe.section, answer, outcome)
