"""The framing probes of several requests on one connection, and of sizes.

Source: RFC 9112 and RFC 9110; the section that decides stands beside each probe.
"""

from __future__ import annotations

from tests.http1.probe import (
    CHUNK,
    CONTENT,
    END,
    HANDLED,
    PLAIN_BODY,
    POSTED,
    REFUSED,
    SMUGGLED,
    TOO_LARGE,
    Handled,
    Probe,
    Refused,
    chunked,
    elsewhere,
    get,
    post,
)

SEQUENCE = (
    Probe("two-requests", "9112 9.3.2", get() + get(), HANDLED * 2),
    Probe(
        "three-with-bodies",
        "9112 9.3.2",
        (post(*PLAIN_BODY, body=CONTENT) + chunked(CHUNK + END)) + get(),
        POSTED * 2 + HANDLED,
    ),
    Probe(
        "crlf-after-body",
        "9112 2.2",
        post(*PLAIN_BODY, body=CONTENT + b"\r\n") + get(),
        POSTED + HANDLED,
    ),
    Probe(
        "request-as-body",
        "9112 6.3",
        post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        elsewhere(b"/tokenize", b"POST", payload=SMUGGLED),
    ),
    Probe(
        "request-as-chunk",
        "9112 7.1",
        chunked(b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED) + END),
        elsewhere(b"/tokenize", b"POST", payload=SMUGGLED),
    ),
    Probe(
        "smuggled-behind-length",
        "9112 6.3",
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=END + SMUGGLED),
        REFUSED,
    ),
    Probe(
        "smuggled-behind-coding",
        "9112 6.3",
        post(b"Transfer-Encoding: x", b"Content-Length: 0", body=SMUGGLED),
        REFUSED,
    ),
    Probe("garbage-after-request", "9112 9.3", get() + b"garbage\r\n\r\n", (*HANDLED, Refused())),
    Probe(
        "longer-body-than-length",
        "9112 6.3",
        post(*PLAIN_BODY, body=CONTENT + b"GARBAGE\r\n\r\n"),
        (*POSTED, Refused()),
    ),
    Probe(
        "nothing-after-close",
        "9112 9.6",
        get(b"Connection: close") + SMUGGLED,
        HANDLED,
    ),
    Probe(
        "nothing-after-http-1.0",
        "9112 9.3",
        get(version=b"HTTP/1.0") + SMUGGLED,
        HANDLED,
    ),
)

LIMITS = (
    Probe(
        "target-of-8192",
        "9112 3",
        get(target=b"/livez?" + b"a" * 8185),
        (Handled(b"/livez?" + b"a" * 8185),),
    ),
    Probe("target-of-8193", "9112 3", get(target=b"/livez?" + b"a" * 8186), TOO_LARGE),
    Probe("target-of-9-kb", "9112 3", get(target=b"/" + b"a" * 9216), TOO_LARGE),
    Probe("target-without-end", "9112 3", b"GET /" + b"a" * 40000, TOO_LARGE),
    Probe("101-headers", "9110 5.4", get(*(b"X-%d: a" % i for i in range(100))), TOO_LARGE),
    Probe("90-headers", "9110 5.4", get(*(b"X-%d: a" % i for i in range(88))), HANDLED),
    Probe("header-of-20-kb", "9110 5.4", get(b"X-A: " + b"b" * 20000), HANDLED),
    Probe("header-of-40-kb", "9110 5.4", get(b"X-A: " + b"b" * 40000), TOO_LARGE),
    Probe("headers-of-40-kb", "9110 5.4", get(*(b"X-A: " + b"b" * 1000,) * 40), TOO_LARGE),
    Probe("body-over-the-limit", "9110 8.6", post(b"Content-Length: 67108865"), (Refused(413),)),
)
