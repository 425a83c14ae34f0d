"""Where the fast listener is for a client."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.core.fast_reach import FastReach

LOOPBACK = FastReach(["127.0.0.1"], 8081)
BOTH_LOOPBACKS = FastReach(["127.0.0.1", "::1"], 8081)
EVERYWHERE = FastReach(["0.0.0.0"], 8081)
ON_THE_LAN = FastReach(["127.0.0.1", "192.168.1.5"], 8081)


@pytest.mark.parametrize("reach", [LOOPBACK, BOTH_LOOPBACKS, EVERYWHERE, ON_THE_LAN])
@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:8080", "http://localhost:8081"),
        ("localhost", "http://localhost:8081"),
        ("LOCALHOST.:8080", "http://localhost:8081"),
        ("127.0.0.1:8080", "http://127.0.0.1:8081"),
        ("ui.localhost:8080", "http://ui.localhost:8081"),
        ("[::1]:8080", "http://[::1]:8081"),
        ("[0:0::1]", "http://[::1]:8081"),
    ],
)
def test_url_has_the_name_that_a_client_here_used(reach: FastReach, host: str, url: str) -> None:
    """Its host with our port, brackets where an address has colons."""
    assert reach.url_for(host_field=host, client_host="127.0.0.1") == url


@pytest.mark.parametrize("reach", [EVERYWHERE, ON_THE_LAN])
@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("gpu.lan:8080", "http://gpu.lan:8081"),
        ("192.168.1.5:8080", "http://192.168.1.5:8081"),
        ("[2001:db8::1]:8080", "http://[2001:db8::1]:8081"),
    ],
)
def test_url_has_the_name_that_a_remote_client_used(reach: FastReach, host: str, url: str) -> None:
    """Where others than this machine can reach the fast listener, they get their own URL."""
    assert reach.url_for(host_field=host, client_host="192.168.1.77") == url


@pytest.mark.parametrize("reach", [LOOPBACK, BOTH_LOOPBACKS, FastReach(["127.8.8.8"], 8081)])
@pytest.mark.parametrize(
    ("host", "client"),
    [
        pytest.param("gpu.lan:8080", "192.168.1.77", id="remote"),
        pytest.param("192.168.1.5:8080", "192.168.1.77", id="remote, by address"),
        pytest.param("localhost:8080", "192.168.1.77", id="remote that says localhost"),
        pytest.param("gpu.lan:8080", "127.0.0.1", id="behind a reverse proxy here"),
        pytest.param("gpu.lan:8080", None, id="behind one on a unix socket"),
        pytest.param("localhost.evil.example", "127.0.0.1", id="a name like ours"),
    ],
)
def test_url_that_a_client_could_never_reach_is_none(
    reach: FastReach, host: str, client: str | None
) -> None:
    """Nobody is sent to a listener on loopback but who is on this machine."""
    assert reach.url_for(host_field=host, client_host=client) is None


@pytest.mark.parametrize("client", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", None])
def test_url_for_a_client_on_loopback_however_it_comes(client: str | None) -> None:
    """Every loopback address is this machine; a socket without addresses is, too."""
    found = LOOPBACK.url_for(host_field="localhost", client_host=client)
    assert found == "http://localhost:8081"


@pytest.mark.parametrize("host", ["", "a b", "a,b", "localhost:99999", "http://localhost", "[::1"])
@pytest.mark.parametrize("reach", [LOOPBACK, EVERYWHERE])
def test_url_without_a_host_to_build_it_from_is_none(reach: FastReach, host: str) -> None:
    """A name is never made up."""
    assert reach.url_for(host_field=host, client_host="127.0.0.1") is None


def test_url_of_a_listener_with_tls_is_https() -> None:
    """A page of ours came by https then and may not ask by http."""
    found = replace(LOOPBACK, secure=True).url_for(host_field="localhost", client_host="127.0.0.1")
    assert found == "https://localhost:8081"


@pytest.mark.parametrize(
    ("public_url", "url"),
    [
        ("https://llm.example", "https://llm.example"),
        ("https://llm.example/", "https://llm.example"),
        ("https://llm.example:8443/fast/", "https://llm.example:8443/fast"),
    ],
)
@pytest.mark.parametrize("host", ["gpu.lan", "localhost:8080", ""])
def test_url_that_the_operator_names_is_everybodys(public_url: str, url: str, host: str) -> None:
    """Whatever the client used, loopback or not; a path may follow it."""
    reach = replace(LOOPBACK, public_url=public_url)
    assert reach.url_for(host_field=host, client_host="192.168.1.77") == url
