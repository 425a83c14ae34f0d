"""The sender of webhooks, to a real receiver over real sockets."""

from __future__ import annotations

import gc
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from proxy._version import __version__
from proxy.core.predictions.webhooks import ALL_EVENTS, WebhookEvent, WebhookUrl, check_url
from proxy.predictions.webhook_client import Patience, WebhookRules, _usual_tls
from proxy.predictions.webhook_sender import Rhythm, WebhookSender
from tests.fakes.webhook_receiver import (
    PATIENCE_S,
    Reply,
    WebhookReceiver,
    after,
    cut_in_body,
    endless,
    hang_up,
    reset,
    stall,
    stall_in_body,
    status,
    webhook_receiver,
)
from tests.left_behind import Leftovers

START, OUTPUT, LOGS, COMPLETED = WebhookEvent
TLS = Path(__file__).parents[1] / "config" / "tls"

HERE = WebhookRules(allow_private=True)
# Short enough not to be waited for, long enough for two events to be within it.
RHYTHM = Rhythm(interval_s=0.1, backoff_s=0.001)


class Prediction:
    """What a sender sees of one.

    Attributes:
        state: What a snapshot tells.
        made: How many snapshots were made.
    """

    def __init__(self) -> None:
        self.state: Any = "new"
        self.made = 0

    def snapshot(self) -> bytes:
        """Tell the state."""
        self.made += 1
        return json.dumps(self.state).encode()


class Story:
    """A prediction with its sender, which is told what happens."""

    def __init__(
        self,
        url: str | WebhookUrl,
        events: frozenset[WebhookEvent] = ALL_EVENTS,
        *,
        rules: WebhookRules = HERE,
        rhythm: Rhythm = RHYTHM,
        trace: dict[str, str] | None = None,
    ) -> None:
        where = check_url(url, allow_private=True) if isinstance(url, str) else url
        self.prediction = Prediction()
        self.sender = WebhookSender(
            where,
            events,
            self.prediction.snapshot,
            name="p1",
            rules=rules,
            rhythm=rhythm,
            trace=trace,
        )

    def happens(self, event: WebhookEvent, state: Any) -> None:
        """Change the prediction, and notify the sender."""
        self.prediction.state = state
        self.sender.notify(event)

    async def run(self) -> None:
        """Run the sender, which has to end by itself."""
        with trio.fail_after(PATIENCE_S):
            await self.sender.run()

    async def complete(self, state: Any = "end") -> None:
        """Let it end at once."""
        self.happens(COMPLETED, state)
        await self.run()


class Names(trio.abc.HostnameResolver):
    """Answers look-ups from a table.

    Attributes:
        asked: What was looked up, in order.
    """

    def __init__(self, **names: list[str]) -> None:
        self.asked: list[str] = []
        self._names = names

    async def getaddrinfo(  # noqa: PLR0917  # the base class's signature
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Return the addresses, in the order of the table."""
        name = host.decode()
        self.asked.append(name)
        if name not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, type, 6, "", (ip, port))
            for ip in self._names[name]
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        """Nobody asks for it."""
        raise NotImplementedError


def named(host: str, receiver: WebhookReceiver, scheme: str = "http") -> WebhookUrl:
    """Return the URL of a receiver with a name, which nobody has looked at yet."""
    return WebhookUrl(scheme, host, receiver.port, "/hook?token=secret")


def given_up(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the operator reads, in order."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def dead_port() -> int:
    """Return a port on which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port: int = listener.socket.getsockname()[1]
    return port


# -- what is sent ----------------------------------------------------------------------------------


async def test_receiver_is_told_in_order(leftovers: Leftovers) -> None:
    """Start, what comes after it, and the end, each with the state of its moment."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        for count, (event, state) in enumerate(
            [(START, "began"), (OUTPUT, "a"), (COMPLETED, "ab")], start=1
        ):
            story.happens(event, state)
            await receiver.wait_deliveries(count)
    assert receiver.told == ["began", "a", "ab"]


async def test_sender_that_has_nothing_to_do_is_woken() -> None:
    """By what happens, and by the end too."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        for count, event in enumerate([START, OUTPUT, COMPLETED], start=1):
            await receiver.wait_open(0)
            await trio.testing.wait_all_tasks_blocked()
            story.happens(event, count)
            await receiver.wait_deliveries(count)
    assert receiver.told == [1, 2, 3]


async def test_request_is_as_cog_makes_it() -> None:
    """But for the user agent, which is ours."""
    async with webhook_receiver() as receiver:
        await Story(receiver.url).complete()
    (delivery,) = receiver.deliveries
    assert delivery.line == "POST /hook?token=secret HTTP/1.1"
    assert delivery.body == b'"end"'
    assert delivery.fields == {
        "host": f"127.0.0.1:{receiver.port}",
        "accept": "*/*",
        "user-agent": f"trio-llama-proxy/{__version__}",
        "content-type": "application/json",
        "content-length": "5",
    }


async def test_token_is_sent_with_each_request() -> None:
    """As the bearer of the operator's token file, on retries too."""
    async with webhook_receiver() as receiver:
        receiver.replies = [status(200), status(503)]
        story = Story(receiver.url, rules=WebhookRules(token="t0ken", allow_private=True))
        story.happens(START, "began")
        await story.complete()
    assert [each.fields["authorization"] for each in receiver.deliveries] == ["Bearer t0ken"] * 3


def test_token_is_not_in_the_words_for_the_rules() -> None:
    """They may be logged."""
    assert "t0ken" not in repr(WebhookRules(token="t0ken"))


async def test_trace_of_the_request_is_passed_on() -> None:
    """W3C's fields, as they came."""
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with webhook_receiver() as receiver:
        await Story(receiver.url, trace=trace).complete()
    assert receiver.deliveries[0].fields["traceparent"] == trace["traceparent"]


async def test_large_state_arrives_whole() -> None:
    """Larger than any buffer on the way."""
    state = "x" * 3_000_000
    async with webhook_receiver() as receiver:
        await Story(receiver.url).complete(state)
    assert receiver.told == [state]


async def test_start_tells_the_state_at_the_start() -> None:
    """Also of a prediction that is over before the sender's task gets to it."""
    async with webhook_receiver() as receiver:
        story = Story(receiver.url)
        story.happens(START, "began")
        await story.complete()
    assert receiver.told == ["began", "end"]


async def test_only_what_is_asked_for_is_sent_and_made() -> None:
    """A snapshot of a long answer costs something."""
    async with webhook_receiver() as receiver:
        story = Story(receiver.url, frozenset({COMPLETED}))
        for event in (START, OUTPUT, LOGS):
            story.happens(event, "more")
        assert story.prediction.made == 0
        await story.complete()
    assert receiver.told == ["end"]
    assert story.prediction.made == 1


async def test_sender_without_completed_ends_with_the_prediction() -> None:
    """And the last output is not lost."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        story = Story(receiver.url, frozenset({OUTPUT}))
        nursery.start_soon(story.run)
        story.happens(OUTPUT, "a")
        await receiver.wait_deliveries(1)
        story.happens(OUTPUT, "ab")
        story.happens(COMPLETED, "ab.")
    assert receiver.told == ["a", "ab."]


# -- how often -------------------------------------------------------------------------------------


async def test_output_that_is_too_soon_is_sent_later_with_all_that_came() -> None:
    """The trailing send: nothing more happens, and the last state arrives."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        story.happens(OUTPUT, "a")
        await receiver.wait_deliveries(1)
        story.happens(OUTPUT, "ab")
        story.happens(LOGS, "abc")
        await receiver.wait_deliveries(2)
        story.happens(COMPLETED, "end")
    assert receiver.told == ["a", "abc", "end"]
    assert story.prediction.made == 3


async def test_completed_does_not_wait_for_the_interval() -> None:
    """Nor does what waits for it keep it back."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        story = Story(receiver.url, rhythm=Rhythm(interval_s=3600))
        nursery.start_soon(story.run)
        story.happens(OUTPUT, "a")
        await receiver.wait_deliveries(1)
        story.happens(OUTPUT, "ab")
        await receiver.wait_open(0)
        await trio.testing.wait_all_tasks_blocked()
        story.happens(COMPLETED, "end")
    assert receiver.told == ["a", "end"]


async def test_slow_receiver_gets_one_request_at_a_time() -> None:
    """What happens meanwhile is in the next one."""
    let = trio.Event()
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        receiver.replies = [after(let)]
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        story.happens(OUTPUT, 0)
        await receiver.wait_deliveries(1)
        for count in range(1, 1000):
            story.happens(OUTPUT, count)
        let.set()
        await receiver.wait_deliveries(2)
        story.happens(COMPLETED, "end")
    assert receiver.told == [0, 999, "end"]
    assert receiver.most_open == 1


async def test_completed_is_after_what_is_under_way_and_in_place_of_what_waits() -> None:
    """Order is kept, and nothing is told twice."""
    let = trio.Event()
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        receiver.replies = [after(let)]
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        story.happens(OUTPUT, "a")
        await receiver.wait_deliveries(1)
        story.happens(OUTPUT, "ab")
        story.happens(COMPLETED, "end")
        let.set()
    assert receiver.told == ["a", "end"]


# -- what fails ------------------------------------------------------------------------------------

FAILURES: dict[str, Reply] = {
    "429": status(429),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "504": status(504),
    "hangs up": hang_up,
    "resets": reset,
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_completed_that_fails_for_now_is_tried_again(
    failure: Reply, leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same body, which is made once."""
    async with webhook_receiver() as receiver:
        receiver.replies = [failure, failure]
        story = Story(receiver.url)
        await story.complete()
    assert receiver.told == ["end"] * 3
    assert story.prediction.made == 1
    assert not given_up(caplog)


@pytest.mark.parametrize("failure", [START, OUTPUT, LOGS], ids=lambda event: event.value)
async def test_other_than_completed_is_tried_once(
    failure: WebhookEvent, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes later tells more."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        receiver.replies = [status(503)]
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        story.happens(failure, "lost")
        await receiver.wait_deliveries(1)
        story.happens(COMPLETED, "end")
    assert receiver.told == ["lost", "end"]
    assert not given_up(caplog)


async def test_lost_output_does_not_keep_the_next_one_back() -> None:
    """A receiver that was away for a moment."""
    async with webhook_receiver() as receiver, trio.open_nursery() as nursery:
        receiver.replies = [hang_up]
        story = Story(receiver.url)
        nursery.start_soon(story.run)
        story.happens(OUTPUT, "a")
        await receiver.wait_deliveries(1)
        story.happens(OUTPUT, "ab")
        await receiver.wait_deliveries(2)
        story.happens(COMPLETED, "end")
    assert receiver.told == ["a", "ab", "end"]


@pytest.mark.parametrize("code", [204, 201, 299])
async def test_every_success_is_one(code: int) -> None:
    """Receivers answer what they like."""
    async with webhook_receiver() as receiver:
        receiver.replies = [status(code)]
        await Story(receiver.url).complete()
    assert len(receiver.deliveries) == 1


@pytest.mark.parametrize("code", [400, 401, 404, 410, 413, 501])
async def test_answer_that_stays_is_given_up_at_once(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line for the operator, which has the host and nothing else of the URL."""
    async with webhook_receiver() as receiver:
        receiver.replies = [status(code)]
        await Story(receiver.url).complete()
    assert len(receiver.deliveries) == 1
    (record,) = given_up(caplog)
    assert record.getMessage() == f"a webhook was given up: status {code}"
    assert vars(record).items() >= {"prediction": "p1", "host": "127.0.0.1", "attempts": 1}.items()
    assert "secret" not in str(vars(record))
    assert "hook?" not in str(vars(record))


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its target was not checked."""
    async with webhook_receiver() as other, webhook_receiver() as receiver:
        receiver.replies = [status(code, f"Location: {other.url}")]
        await Story(receiver.url).complete()
    assert (len(receiver.deliveries), len(other.deliveries)) == (1, 0)
    assert [each.getMessage() for each in given_up(caplog)] == [
        f"a webhook was given up: status {code}"
    ]


async def test_receiver_that_never_recovers_is_given_up_after_twelve_retries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cog's number."""
    async with webhook_receiver() as receiver:
        receiver.replies = [status(503)] * 20
        await Story(receiver.url, rhythm=Rhythm(backoff_s=1e-6)).complete()
    assert len(receiver.deliveries) == 13
    assert [vars(each)["attempts"] for each in given_up(caplog)] == [13]


async def test_dead_receiver_is_given_up(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens; start and output are missed, and completed is tried."""
    story = Story(f"http://127.0.0.1:{await dead_port()}/", rhythm=Rhythm(backoff_s=1e-6))
    story.happens(START, "began")
    story.happens(OUTPUT, "a")
    await story.complete()
    (record,) = given_up(caplog)
    assert record.getMessage() == "a webhook was given up: ConnectError"
    assert vars(record)["attempts"] == 13


async def test_what_is_missed_before_the_end_is_told_to_who_debugs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And to nobody else: a dead receiver would fill the log."""
    caplog.set_level(logging.DEBUG, "proxy.predictions")
    async with webhook_receiver() as receiver:
        receiver.replies = [status(404)]
        story = Story(receiver.url)
        story.happens(START, "began")
        await story.complete()
    (record,) = [each for each in caplog.records if each.name == "proxy.predictions"]
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == "a webhook was not delivered: status 404"
    assert vars(record)["event"] == "start"


async def test_receiver_that_stalls_is_left_and_tried_again(leftovers: Leftovers) -> None:
    """It has so long for its answer, from the start of the request."""
    async with webhook_receiver() as receiver:
        receiver.replies = [stall]
        rules = WebhookRules(allow_private=True, patience=Patience(answer_s=0.5))
        await Story(receiver.url, rules=rules).complete()
    # More than one retry if this machine is as slow as that.
    assert receiver.told[:2] == ["end", "end"]


async def test_delivery_has_a_bound_as_a_whole(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """However long each attempt may take."""
    async with webhook_receiver() as receiver:
        receiver.replies = [status(503), stall]
        await Story(receiver.url, rhythm=Rhythm(backoff_s=0.001, delivery_s=1.0)).complete()
    assert len(receiver.deliveries) == 2
    assert [each.getMessage() for each in given_up(caplog)] == [
        "a webhook was given up: status 503"
    ]


async def test_delivery_that_has_no_answer_within_its_bound_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no better reason yet."""
    async with webhook_receiver() as receiver:
        receiver.replies = [stall]
        await Story(receiver.url, rhythm=Rhythm(delivery_s=0.1)).complete()
    assert [each.getMessage() for each in given_up(caplog)] == ["a webhook was given up: no time"]


async def test_answer_that_breaks_in_its_body_counts(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """The receiver has got what it was sent."""
    async with webhook_receiver() as receiver:
        receiver.replies = [cut_in_body]
        await Story(receiver.url).complete()
        await receiver.wait_open(0)
    assert receiver.told == ["end"]
    assert not given_up(caplog)


async def test_answer_without_an_end_is_left_after_a_little(leftovers: Leftovers) -> None:
    """However long it may take: what it says is nothing to us."""
    async with webhook_receiver() as receiver:
        receiver.replies = [endless]
        rules = WebhookRules(allow_private=True, patience=Patience(finish_s=2 * PATIENCE_S))
        await Story(receiver.url, rules=rules).complete()
        await receiver.wait_open(0)
    assert receiver.told == ["end"]


async def test_answer_that_stalls_in_its_body_is_left(leftovers: Leftovers) -> None:
    """However little it says."""
    async with webhook_receiver() as receiver:
        receiver.replies = [stall_in_body]
        rules = WebhookRules(allow_private=True, patience=Patience(finish_s=0.05))
        await Story(receiver.url, rules=rules).complete()
        await receiver.wait_open(0)
    assert receiver.told == ["end"]


async def test_defect_stays_with_the_sender(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """The prediction runs in the same nursery, and goes on."""
    async with webhook_receiver() as receiver:
        story = Story(receiver.url)
        story.happens(COMPLETED, {"a set is": {"no JSON"}})
        await story.run()
    assert [each.getMessage() for each in given_up(caplog)] == ["a webhook failed"]
    assert not receiver.deliveries


# -- where to --------------------------------------------------------------------------------------


@pytest.fixture
def forbidden() -> WebhookRules:
    """The rules of an operator who has opened nothing."""
    return WebhookRules()


async def test_private_address_is_refused(
    forbidden: WebhookRules, caplog: pytest.LogCaptureFixture
) -> None:
    """No connection, one line, and no second look: the sender is done."""
    async with webhook_receiver() as receiver:
        story = Story(receiver.url, rules=forbidden)
        story.happens(START, "began")
        await story.complete()
        assert receiver.most_open == 0
    assert [each.getMessage() for each in given_up(caplog)] == [
        "a webhook was given up: leads to this machine or a private network, which is not allowed"
    ]


ANSWERS = {
    "private": ["127.0.0.1"],
    "public, then private": ["93.184.216.34", "127.0.0.1"],
    "private in IPv6's clothes": ["::ffff:127.0.0.1"],
    "link-local": ["169.254.169.254"],
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_name_that_leads_to_a_private_address_is_refused(
    answer: list[str], forbidden: WebhookRules, caplog: pytest.LogCaptureFixture
) -> None:
    """What the name is, is no matter; one bad address is enough."""
    names = Names(**{"public.example": answer})
    trio.socket.set_custom_hostname_resolver(names)
    async with webhook_receiver() as receiver:
        await Story(named("public.example", receiver), rules=forbidden).complete()
        assert receiver.most_open == 0
    assert names.asked == ["public.example"]
    assert len(given_up(caplog)) == 1


async def test_name_that_writes_loopback_otherwise_is_refused(forbidden: WebhookRules) -> None:
    """The system's resolver reads decimal and short addresses."""
    async with webhook_receiver() as receiver:
        for host in ("2130706433", "127.1", "0x7f.1"):
            await Story(named(host, receiver), rules=forbidden).complete()
        assert receiver.most_open == 0


async def test_link_local_address_is_refused_with_the_option_too() -> None:
    """Clouds hand out credentials there."""
    trio.socket.set_custom_hostname_resolver(Names(**{"cloud.example": ["169.254.169.254"]}))
    async with webhook_receiver() as receiver:
        await Story(named("cloud.example", receiver)).complete()
        assert receiver.most_open == 0


async def test_name_is_looked_up_once_for_each_request() -> None:
    """A second look could be answered otherwise; the request goes to what was checked."""
    names = Names(**{"receiver.example": ["127.0.0.1"]})
    trio.socket.set_custom_hostname_resolver(names)
    async with webhook_receiver() as receiver:
        receiver.replies = [status(503)]
        await Story(named("receiver.example", receiver)).complete()
    assert names.asked == ["receiver.example"] * 2
    hosts = [each.fields["host"] for each in receiver.deliveries]
    assert hosts == [f"receiver.example:{receiver.port}"] * 2


async def test_next_address_is_tried_when_one_is_dead(leftovers: Leftovers) -> None:
    """As a browser would do."""
    trio.socket.set_custom_hostname_resolver(Names(two=["127.0.0.2", "127.0.0.2", "127.0.0.1"]))
    async with webhook_receiver() as receiver:
        story = Story(named("two", receiver), frozenset({START}))
        story.happens(START, "began")
        await story.complete()
    assert receiver.told == ["began"]


async def test_name_that_is_unknown_is_tried_again_and_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Name servers have bad moments."""
    names = Names()
    trio.socket.set_custom_hostname_resolver(names)
    await Story("http://nobody.example/", rhythm=Rhythm(backoff_s=1e-6)).complete()
    assert len(names.asked) == 13
    assert [each.getMessage() for each in given_up(caplog)] == ["a webhook was given up: gaierror"]


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look the name up itself."""
    async with webhook_receiver() as other, webhook_receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        await Story(receiver.url).complete()
    assert (len(receiver.deliveries), other.most_open) == (1, 0)


# -- TLS -------------------------------------------------------------------------------------------


def server_tls() -> ssl.SSLContext:
    """Return the context of a receiver that is called `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "one.pem", TLS / "one.key")
    return context


@pytest.fixture
def trusting() -> WebhookRules:
    """Rules with the tests' certificate among those that are known."""
    context = ssl.create_default_context(cafile=str(TLS / "one.pem"))
    return WebhookRules(allow_private=True, tls=context)


async def test_tls_is_verified_for_the_name(trusting: WebhookRules, leftovers: Leftovers) -> None:
    """And not for the address that is connected to; the server is told the name."""
    context = server_tls()
    told: list[str | None] = []
    context.sni_callback = lambda _object, name, _context: told.append(name)
    trio.socket.set_custom_hostname_resolver(Names(localhost=["127.0.0.1"]))
    async with webhook_receiver(context) as receiver:
        await Story(named("localhost", receiver, "https"), rules=trusting).complete()
    assert receiver.told == ["end"]
    assert told == ["localhost"]


async def test_tls_for_another_name_fails(
    trusting: WebhookRules, leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent."""
    trio.socket.set_custom_hostname_resolver(Names(other=["127.0.0.1"]))
    async with webhook_receiver(server_tls()) as receiver:
        url = named("other", receiver, "https")
        await Story(url, rules=trusting, rhythm=Rhythm(backoff_s=1e-6)).complete()
    assert not receiver.deliveries
    assert len(given_up(caplog)) == 1


async def test_tls_that_nobody_vouches_for_fails(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word about it, the usual authorities count."""
    trio.socket.set_custom_hostname_resolver(Names(localhost=["127.0.0.1"]))
    async with webhook_receiver(server_tls()) as receiver:
        url = named("localhost", receiver, "https")
        await Story(url, rhythm=Rhythm(backoff_s=1e-6)).complete()
    assert not receiver.deliveries
    assert len(given_up(caplog)) == 1


async def test_certificate_that_this_machine_trusts_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An operator's own authority, beside the usual ones."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "one.pem"))
    _usual_tls.cache_clear()
    trio.socket.set_custom_hostname_resolver(Names(localhost=["127.0.0.1"]))
    try:
        async with webhook_receiver(server_tls()) as receiver:
            await Story(named("localhost", receiver, "https")).complete()
    finally:
        _usual_tls.cache_clear()
    assert receiver.told == ["end"]


# -- cancellation ----------------------------------------------------------------------------------


async def cancel_when(story: Story, condition: Callable[[], Awaitable[None]]) -> None:
    """Run the sender and cancel it when the condition holds."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(story.run)
        await condition()
        nursery.cancel_scope.cancel()


async def test_cancelled_while_it_waits_for_an_answer_leaves_nothing(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closed, and the operator told."""
    async with webhook_receiver() as receiver:
        receiver.replies = [stall]
        story = Story(receiver.url)
        story.happens(COMPLETED, "end")
        await cancel_when(story, lambda: receiver.wait_deliveries(1))
        await receiver.wait_open(0)
    assert [each.getMessage() for each in given_up(caplog)] == ["a webhook was given up: stopped"]


async def test_cancelled_while_it_waits_for_a_retry_leaves_nothing(leftovers: Leftovers) -> None:
    """In the pause between two."""
    async with webhook_receiver() as receiver:
        receiver.replies = [status(503)]
        story = Story(receiver.url, rhythm=Rhythm(backoff_s=3600))
        story.happens(COMPLETED, "end")

        async def in_the_pause() -> None:
            await receiver.wait_deliveries(1)
            await receiver.wait_open(0)

        await cancel_when(story, in_the_pause)
    assert len(receiver.deliveries) == 1


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's collector closes nothing meanwhile: what is closed was closed by us."""
    gc.disable()
    yield
    gc.enable()


async def test_cancelled_in_a_handshake_leaves_nothing(
    trusting: WebhookRules, no_collector: None, leftovers: Leftovers
) -> None:
    """The receiver took the connection and never answers the first message of TLS."""
    trio.socket.set_custom_hostname_resolver(Names(localhost=["127.0.0.1"]))
    async with webhook_receiver() as receiver:
        story = Story(named("localhost", receiver, "https"), rules=trusting)
        story.happens(COMPLETED, "end")
        await cancel_when(story, lambda: receiver.wait_open(1))
        await receiver.wait_open(0)


async def test_cancelled_before_the_end_gives_it_up(caplog: pytest.LogCaptureFixture) -> None:
    """The receiver waits for a word that will not come."""
    story = Story("http://127.0.0.1:1/")
    await cancel_when(story, trio.lowlevel.checkpoint)
    assert [each.getMessage() for each in given_up(caplog)] == ["a webhook was given up: stopped"]


async def test_cancelled_without_completed_gives_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody waits for an end."""
    story = Story("http://127.0.0.1:1/", frozenset({START}))
    await cancel_when(story, trio.lowlevel.checkpoint)
    assert not given_up(caplog)


async def test_what_happens_after_the_end_is_no_matter() -> None:
    """The prediction does not know whether its sender is still there."""
    async with webhook_receiver() as receiver:
        story = Story(receiver.url)
        await story.complete()
        for event in WebhookEvent:
            story.happens(event, "late")
    assert receiver.told == ["end"]
