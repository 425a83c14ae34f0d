"""The framing probes of lengths, transfer codings and chunks.

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
    TOO_LARGE,
    Cut,
    Handled,
    Probe,
    Refused,
    chunked,
    elsewhere,
    get,
    post,
)

LENGTH = (
    Probe("length", "9112 6.2", post(*PLAIN_BODY, body=CONTENT), POSTED),
    Probe("length-zeros", "9110 8.6", post(b"Content-Length: 0016", body=CONTENT), POSTED),
    Probe(
        "body-that-nobody-reads",
        "9112 9.3",
        get(b"Content-Length: 2") + b"{}",
        (Handled(payload=b"{}"),),
    ),
    Probe("length-zero", "9112 6.3", get(b"Content-Length: 0"), HANDLED),
    Probe(
        "get-with-body",
        "9110 9.3.1",
        get(b"Content-Length: 2", target=b"/props") + b"{}",
        elsewhere(b"/props", payload=b"{}"),
    ),
    Probe(
        "post-without-length",
        "9112 6.3",
        post(),
        elsewhere(b"/tokenize", b"POST"),
    ),
    Probe("two-lengths", "9112 6.3", get(b"Content-Length: 0", b"Content-Length: 5"), REFUSED),
    Probe("same-length-twice", "9112 6.3", post(*PLAIN_BODY * 2, body=CONTENT), REFUSED),
    Probe("length-list", "9112 6.3", post(b"Content-Length: 16, 16", body=CONTENT), REFUSED),
    Probe("length-list-of-two", "9112 6.3", get(b"Content-Length: 0, 5"), REFUSED),
    Probe("length-plus", "9110 8.6", post(b"Content-Length: +16", body=CONTENT), REFUSED),
    Probe("length-minus", "9110 8.6", get(b"Content-Length: -1"), REFUSED),
    Probe("length-hex", "9110 8.6", post(b"Content-Length: 0x10", body=CONTENT), REFUSED),
    Probe("length-empty", "9110 8.6", get(b"Content-Length:"), REFUSED),
    Probe("length-space", "9110 8.6", post(b"Content-Length: 1 6", body=CONTENT), REFUSED),
    Probe("length-fraction", "9110 8.6", post(b"Content-Length: 16.0", body=CONTENT), REFUSED),
    Probe("length-underscore", "9110 8.6", post(b"Content-Length: 1_6", body=CONTENT), REFUSED),
    Probe("length-words", "9110 8.6", get(b"Content-Length: zero"), REFUSED),
    Probe("length-other-digits", "9110 8.6", get(b"Content-Length: \xd9\xa0"), REFUSED),
    Probe("length-2^64", "9110 8.6", post(b"Content-Length: %d" % 2**64), (Refused(413),)),
    Probe(
        "length-2^64+16", "9110 8.6", post(b"Content-Length: %d" % (2**64 + 16)), (Refused(413),)
    ),
    Probe("length-2^63", "9110 8.6", post(b"Content-Length: %d" % 2**63), (Refused(413),)),
    Probe(
        "length-5000-digits", "9110 8.6", post(b"Content-Length: " + b"9" * 5000), (Refused(413),)
    ),
    Probe(
        "length-and-chunked",
        "9112 6.3",
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=END),
        REFUSED,
    ),
    Probe(
        "chunked-and-length",
        "9112 6.3",
        post(b"Transfer-Encoding: chunked", *PLAIN_BODY, body=CHUNK + END),
        REFUSED,
    ),
    Probe("body-cut", "9112 8", post(*PLAIN_BODY, body=CONTENT[:-1]), (Cut(b"/tokenize"),)),
    Probe("head-cut", "9112 8", get()[:-2], (Cut(),)),
    Probe("line-cut", "9112 8", b"GET /livez HTT", (Cut(),)),
)

CODING = (
    Probe("chunked", "9112 7.1", chunked(CHUNK + END), POSTED),
    Probe(
        "chunked-upper-case",
        "9112 7",
        post(b"transfer-encoding: CHUNKED", body=CHUNK + END),
        POSTED,
    ),
    Probe("chunked-empty", "9112 7.1", get(b"Transfer-Encoding: chunked") + END, HANDLED),
    Probe("identity", "9112 7", get(b"Transfer-Encoding: identity"), REFUSED),
    Probe("gzip-chunked", "9112 6.1", post(b"Transfer-Encoding: gzip, chunked", body=END), REFUSED),
    Probe("chunked-gzip", "9112 6.3", post(b"Transfer-Encoding: chunked, gzip", body=END), REFUSED),
    Probe(
        "chunked-identity",
        "9112 6.3",
        post(b"Transfer-Encoding: chunked, identity", body=END),
        REFUSED,
    ),
    Probe(
        "chunked-chunked",
        "9112 6.1",
        post(b"Transfer-Encoding: chunked, chunked", body=END),
        REFUSED,
    ),
    Probe(
        "chunked-twice",
        "9112 6.1",
        post(*(b"Transfer-Encoding: chunked",) * 2, body=END),
        REFUSED,
    ),
    Probe(
        "chunked-and-identity",
        "9112 6.1",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=END),
        REFUSED,
    ),
    Probe("xchunked", "9112 6.1", post(b"Transfer-Encoding: xchunked", body=END), REFUSED),
    Probe("chunked-quoted", "9112 6.1", post(b'Transfer-Encoding: "chunked"', body=END), REFUSED),
    Probe(
        "chunked-parameter", "9112 7", post(b"Transfer-Encoding: chunked;q=1", body=END), REFUSED
    ),
    Probe("chunked-comma", "9112 6.1", post(b"Transfer-Encoding: chunked,", body=END), REFUSED),
    Probe("coding-empty", "9112 6.1", get(b"Transfer-Encoding:"), REFUSED),
    Probe(
        "chunked-vertical-tab",
        "9112 6.1",
        post(b"Transfer-Encoding: \x0bchunked", body=END),
        REFUSED,
    ),
    Probe(
        "chunked-obs-fold",
        "9112 5.2",
        post(b"Transfer-Encoding:", b" chunked", body=END),
        REFUSED,
    ),
    Probe(
        "chunked-space-before-colon",
        "9112 5.1",
        post(b"Transfer-Encoding : chunked", body=END),
        REFUSED,
    ),
    Probe(
        "chunked-http-1.0",
        "9112 6.1",
        get(b"Transfer-Encoding: chunked", version=b"HTTP/1.0") + END,
        REFUSED,
    ),
)

CHUNKS = (
    Probe(
        "many-chunks",
        "9112 7.1",
        chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in CONTENT) + END),
        POSTED,
    ),
    Probe("size-zeros", "9112 7.1", chunked(b"000" + CHUNK + b"000\r\n\r\n"), POSTED),
    Probe(
        "size-upper-case",
        "9112 7.1",
        chunked(b"A\r\n" + CONTENT[:10] + b"\r\n6\r\n" + CONTENT[10:] + b"\r\n" + END),
        POSTED,
    ),
    Probe(
        "extension",
        "9112 7.1.1",
        chunked(b'10;a=b;c="d;\\"e"\r\n' + CONTENT + b"\r\n" + END),
        POSTED,
    ),
    Probe(
        "extension-spaces",
        "9112 7.1.1",
        chunked(b"10 ; a = b\r\n" + CONTENT + b"\r\n" + END),
        POSTED,
    ),
    Probe("trailer", "9112 7.1.2", chunked(CHUNK + b"0\r\nX-Checksum: 1\r\n\r\n"), POSTED),
    Probe("size-plus", "9112 7.1", chunked(b"+" + CHUNK + END), REFUSED),
    Probe("size-minus", "9112 7.1", chunked(b"-1\r\n\r\n" + END), REFUSED),
    Probe("size-0x", "9112 7.1", chunked(b"0x" + CHUNK + END), REFUSED),
    Probe("size-empty", "9112 7.1", chunked(b"\r\n" + CHUNK + END), REFUSED),
    Probe("size-not-hex", "9112 7.1", chunked(b"g\r\n" + CONTENT + b"\r\n" + END), REFUSED),
    Probe("size-leading-space", "9112 7.1", chunked(b" " + CHUNK + END), REFUSED),
    Probe(
        "size-trailing-space", "9112 7.1", chunked(b"10 \r\n" + CONTENT + b"\r\n" + END), REFUSED
    ),
    Probe("size-underscore", "9112 7.1", chunked(b"1_0\r\n" + CONTENT + b"\r\n" + END), REFUSED),
    Probe("size-2^64", "9112 7.1", chunked(b"10000000000000000\r\n"), REFUSED),
    Probe("size-2^64+16", "9112 7.1", chunked(b"1" + b"0" * 14 + CHUNK + END), REFUSED),
    Probe("size-2^63", "9112 7.1", chunked(b"8000000000000000\r\n"), (Refused(413),)),
    Probe("size-of-a-terabyte", "9112 7.1", chunked(b"10000000000\r\n"), (Refused(413),)),
    Probe("sizes-over-the-limit", "9112 7.1", chunked(CHUNK + b"4000000\r\n"), (Refused(413),)),
    Probe("bare-lf-after-size", "9112 2.2", chunked(b"10\n" + CONTENT + b"\r\n" + END), REFUSED),
    Probe("bare-cr-after-size", "9112 2.2", chunked(b"10\r" + CONTENT + b"\r\n" + END), REFUSED),
    Probe("bare-lf-after-data", "9112 2.2", chunked(b"10\r\n" + CONTENT + b"\n" + END), REFUSED),
    Probe(
        "bare-lf-in-extension",
        "9112 7.1.1",
        chunked(b"10;a\nb\r\n" + CONTENT + b"\r\n" + END),
        REFUSED,
    ),
    Probe("bare-lf-ends-body", "9112 2.2", chunked(CHUNK + b"0\r\n\n"), REFUSED),
    Probe(
        "data-longer-than-size", "9112 7.1", chunked(b"f\r\n" + CONTENT + b"\r\n" + END), REFUSED
    ),
    Probe(
        "data-shorter-than-size",
        "9112 7.1",
        chunked(b"11\r\n" + CONTENT + b"\r\n" + END),
        REFUSED,
    ),
    Probe("no-crlf-after-data", "9112 7.1", chunked(b"10\r\n" + CONTENT + END), REFUSED),
    Probe(
        "extension-without-name",
        "9112 7.1.1",
        chunked(b"10;\r\n" + CONTENT + b"\r\n" + END),
        REFUSED,
    ),
    Probe(
        "extension-open-quote",
        "9112 7.1.1",
        chunked(b'10;a="\r\n' + CONTENT + b"\r\n" + END),
        REFUSED,
    ),
    Probe(
        "extension-nul",
        "9112 7.1.1",
        chunked(b"10;a\x00\r\n" + CONTENT + b"\r\n" + END),
        REFUSED,
    ),
    Probe(
        "extension-20-kib",
        "9112 7.1.1",
        chunked(b"10;" + b"a" * 20480 + b"\r\n" + CONTENT + b"\r\n" + END),
        REFUSED,
    ),
    Probe(
        "extensions-20-kib-in-all",
        "9112 7.1.1",
        chunked((b"1;" + b"a" * 400 + b"\r\n \r\n") * 50 + END),
        REFUSED,
    ),
    Probe("trailer-host", "9110 6.5.1", chunked(CHUNK + b"0\r\nHost: x\r\n\r\n"), REFUSED),
    Probe(
        "trailer-length",
        "9110 6.5.1",
        chunked(CHUNK + b"0\r\nContent-Length: 1\r\n\r\n"),
        REFUSED,
    ),
    Probe(
        "trailer-authorization",
        "9110 6.5.1",
        chunked(CHUNK + b"0\r\nAuthorization: x\r\n\r\n"),
        REFUSED,
    ),
    Probe(
        "trailer-malformed",
        "9112 7.1.2",
        chunked(CHUNK + b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
        REFUSED,
    ),
    Probe("trailer-obs-fold", "9112 5.2", chunked(CHUNK + b"0\r\nX-A: b\r\n c\r\n\r\n"), REFUSED),
    Probe(
        "trailers-20-kib",
        "9110 6.5",
        chunked(CHUNK + b"0\r\n" + b"X-A: bcdefghijklmnop\r\n" * 1000 + b"\r\n"),
        TOO_LARGE,
    ),
    Probe("chunks-cut", "9112 8", chunked(CHUNK), (Cut(b"/tokenize"),)),
)
