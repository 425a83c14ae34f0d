"""The model by itself: what it makes of reports, without a page."""

from __future__ import annotations

from tests.browser.status.view import StatusPage

_IN_MODEL = """
const done = arguments[arguments.length - 1];
const exchange = (id, rest) => ({ request_id: id, phase: "decode", started_at: 100, elapsed_s: 1,
    text: null, thought: null, prompt: null, tokens_per_second: null, cause: null,
    ...rest });
const report = (exchanges, ended = []) => ({ exchanges, perf_history: ended });
import("/status/static/model.js").then(({ Model }) => {
    const model = new Model();
    %s
}).then(done, (error) => done(String(error)));
"""


def in_model(page: StatusPage, code: str) -> object:
    """Run code with a new `model`, in a page of the site."""
    page.load()
    return page.driver.execute_async_script(_IN_MODEL % code)


def test_elapsed_goes_on_between_reports_and_stops_with_the_end(page: StatusPage) -> None:
    """And is the history's own number once there is one."""
    found = in_model(
        page,
        """
        model.report(report([exchange("a")]), 0);
        const [card] = model.cards.values();
        const seen = [card.elapsed(500)];
        model.report(report([]), 1000);
        seen.push(card.elapsed(9000));
        model.report(report([], [{ request_id: "a", ended_at: 102, cause: "finished",
            total_s: 2 }]), 1250);
        seen.push(card.elapsed(9000), card.cause);
        return seen;
        """,
    )
    assert found == [1.5, 2, 2, "finished"]


def test_history_of_an_older_exchange_with_the_same_id_is_not_its_end(page: StatusPage) -> None:
    """It ended before this one began."""
    found = in_model(
        page,
        """
        model.report(report([exchange("a")]), 0);
        model.report(report([], [{ request_id: "a", ended_at: 50, cause: "finished" }]), 1);
        return [...model.cards.values()][0].cause;
        """,
    )
    assert found is None


def test_ends_are_told_once(page: StatusPage) -> None:
    """Of an exchange that is still told to its client, and then gone."""
    found = in_model(
        page,
        """
        const names = (cards) => cards.map((card) => card.exchange.request_id);
        return [
            names(model.report(report([exchange("a")]), 0)),
            names(model.report(report([exchange("a", { phase: "ended", cause: "finished" })]), 1)),
            names(model.report(report([]), 2)),
        ];
        """,
    )
    assert found == [[], ["a"], []]


def test_card_of_an_end_that_is_still_being_told_stays(page: StatusPage) -> None:
    """However long that takes."""
    found = in_model(
        page,
        """
        model.report(report([exchange("a", { phase: "ended", cause: "finished" })]), 0);
        model.expire(99000, () => false);
        const before = model.cards.size;
        model.report(report([]), 99000);
        model.expire(99001, () => false);
        return [before, model.cards.size];
        """,
    )
    assert found == [1, 0]


def test_rates_are_bounded(page: StatusPage) -> None:
    """The last thirty seconds at four reports a second."""
    found = in_model(
        page,
        """
        for (let at = 0; at < 500; at += 1) {
            model.report(report([exchange("a", { tokens_per_second: at })]), at);
        }
        const { rates } = model.cards.get("a");
        return [rates.length, rates[0]];
        """,
    )
    assert found == [120, 380]
