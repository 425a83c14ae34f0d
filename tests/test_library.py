"""The library: its names, the examples of docs/embedding.md, and what leaves its blocks."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import proxy
from proxy.runtime.outbound import ControlClient
from tests.cli.command import ROOT, environment
from tests.fakes.engines import FAKE, wait_gone
from tests.left_behind import Leftovers
from tests.promises.observe import until
from tests.web.wire import PATIENCE_S, Sent, ask_port

PAGE = (ROOT / "docs" / "embedding.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DEMO = ROOT / "proxy" / "data" / "demo.gguf"
PROPS = Sent("GET", "/props")


# -- names and documentation -----------------------------------------------------------------------


@pytest.mark.parametrize("name", proxy.__all__)
def test_public_name_exists_and_is_documented(name: str) -> None:
    """Each name can be imported and is described in docs/embedding.md."""
    assert getattr(proxy, name) is not None
    assert f"`{name}`" in PAGE


def test_star_import_gives_exactly_the_public_names() -> None:
    """`__all__` is the whole surface, in order and without repetition."""
    found: dict[str, Any] = {}
    exec("from proxy import *", found)
    assert sorted(set(found) - {"__builtins__"}) == sorted(proxy.__all__)
    assert len(set(proxy.__all__)) == len(proxy.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelled name fails as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'open_lama_server'"):
        _ = proxy.open_lama_server


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither Trio nor httpx nor the web framework: reading the version needs none of them."""
    heavy = {"trio", "httpx", "hypercorn", "quart", "quart_trio", "h11", "ssl"}
    code = "import sys, proxy; print(proxy.__version__, *sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    version, *modules = found.stdout.split()
    assert version == proxy.__version__
    assert heavy.isdisjoint(modules)


def headings() -> Iterator[str]:
    """Return what each example stands under."""
    heading = ""
    for line in PAGE.splitlines():
        heading = line.lstrip("# ") if line.startswith("#") else heading
        if line == "```python":
            yield heading.replace(" ", "_").lower()


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=[f"{n}-{text}" for n, text in enumerate(headings())]
)
def test_example_runs(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    """Every program in docs/embedding.md does what it says, to its end."""
    shutil.copy(DEMO, tmp_path / "model.gguf")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/embedding.md", "exec"), {"__name__": "__main__"})


# -- the engine's block ----------------------------------------------------------------------------


async def test_engine_is_ready_on_entry_and_gone_on_exit(leftovers: Leftovers) -> None:
    """Inside it answers, on a private socket; outside neither process nor folder is left."""
    async with proxy.open_llama_server(model=DEMO) as engine:
        assert engine.state == proxy.EngineState.READY
        pid, address = engine.pid, engine.address
        assert pid is not None
        assert address.uds is not None
        folder = Path(address.uds).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(await ControlClient(address, engine.api_key).slots()) == engine.total_slots
    await wait_gone(pid)
    assert not folder.exists()
    assert engine.pid is None


def fail_twice() -> None:
    """Fail while an error is handled."""
    try:
        raise OSError("before")
    except OSError:
        raise LookupError("mine")  # noqa: B904  # the context is what the test looks at


async def test_error_of_the_body_leaves_as_itself(leftovers: Leftovers) -> None:
    """What the caller's own code raises is not wrapped, and keeps its cause and context."""
    with pytest.raises(LookupError) as caught:
        async with proxy.open_llama_server() as engine, proxy.open_proxy(engine, port=0):
            fail_twice()
    assert caught.value.__cause__ is None
    assert isinstance(caught.value.__context__, OSError)


async def test_group_of_the_body_stays_a_group(leftovers: Leftovers) -> None:
    """A group that the caller raised is handed on as it was."""
    with pytest.raises(ExceptionGroup) as caught:
        async with proxy.open_llama_server() as engine, proxy.open_proxy(engine, port=0):
            raise ExceptionGroup("mine", [LookupError()])
    assert caught.value.message == "mine"
    assert [type(each) for each in caught.value.exceptions] == [LookupError]


async def test_cancelled_while_loading_leaves_nothing(leftovers: Leftovers) -> None:
    """A load that takes for ever ends with its block."""
    loading = trio.Event()
    with trio.CancelScope() as scope:
        async with proxy.open_llama_server(
            llama_server=str(FAKE), extra_args=["--fake-load-s", "600"], wait_ready=False
        ) as engine:
            engine.watch(loading.set)
            await until(lambda: engine.pid is not None)
            scope.cancel()
            await engine.wait_ready()
    assert scope.cancelled_caught


async def test_broken_model_is_a_typed_error_with_the_log(
    tmp_path: Path, leftovers: Leftovers
) -> None:
    """The reason is a sentence without a path; llama-server's last lines come with it."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(proxy.EngineLoadFailed) as caught:
        async with proxy.open_llama_server(model=path):
            raise AssertionError("entered")
    assert str(tmp_path) not in caught.value.reason
    assert caught.value.log_tail


async def test_missing_model_is_a_typed_error(tmp_path: Path, leftovers: Leftovers) -> None:
    """A path that leads nowhere fails at once."""
    with pytest.raises(proxy.EngineLoadFailed):
        async with proxy.open_llama_server(model=tmp_path / "missing.gguf"):
            raise AssertionError("entered")


async def test_missing_binary_is_a_typed_error(tmp_path: Path, leftovers: Leftovers) -> None:
    """What was named is not replaced by something else."""
    with pytest.raises(proxy.EngineNotFound):
        async with proxy.open_llama_server(llama_server=str(tmp_path / "llama-server")):
            raise AssertionError("entered")


@pytest.mark.parametrize(
    "arguments",
    [
        {"extra_args": ["--port", "1"]},
        {"extra_args": ["--api-key=mine"]},
        {"model": "model.gguf", "router": True},
        {"model": "model.gguf", "extra_args": ["-m", "other.gguf"]},
    ],
    ids=["port", "key", "router and model", "two models"],
)
async def test_arguments_that_cannot_be_used_are_a_config_error(
    arguments: dict[str, Any], leftovers: Leftovers
) -> None:
    """Nothing is launched."""
    with pytest.raises(proxy.ConfigError):
        async with proxy.open_llama_server(**arguments):
            raise AssertionError("entered")


async def test_router_is_launched_without_a_model(leftovers: Leftovers) -> None:
    """The demo model is not forced on a llama-server that is to serve several."""
    async with proxy.open_llama_server(
        llama_server=str(FAKE), extra_args=["--fake-tell-key"], router=True
    ) as engine:
        (told,) = [line for line in engine.logs.tail(100) if "argv" in line]
    assert engine.router
    assert "gguf" not in told


# -- the proxy's block -----------------------------------------------------------------------------


async def test_taken_port_is_a_config_error_as_itself(leftovers: Leftovers) -> None:
    """Also from within the engine's block, which then ends in order."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(proxy.ConfigError, match=f"port {port}"):
            async with proxy.open_llama_server() as engine, proxy.open_proxy(engine, port=port):
                raise AssertionError("entered")


@pytest.mark.parametrize("given", ["host", "sockets"])
async def test_open_address_without_keys_is_a_config_error(
    given: str, leftovers: Leftovers
) -> None:
    """Nobody else's machine gets to use the model by a slip; the socket is closed again."""
    arguments: dict[str, Any] = {"host": "0.0.0.0", "port": 0}
    if given == "sockets":
        arguments = {"sockets": proxy.bind_sockets("0.0.0.0", 0)}
    with pytest.raises(proxy.ConfigError, match="not a loopback address"):
        async with (
            proxy.open_upstream("http://127.0.0.1:9", wait_ready=False) as engine,
            proxy.open_proxy(engine, **arguments),
        ):
            raise AssertionError("entered")


async def test_open_address_with_a_key_is_served(leftovers: Leftovers) -> None:
    """With keys any address will do; the URL is one that this machine can dial."""
    async with (
        proxy.open_upstream("http://127.0.0.1:9", wait_ready=False) as engine,
        proxy.open_proxy(
            engine, host="0.0.0.0", port=0, api_keys=[proxy.ApiKey.from_text("key")]
        ) as server,
    ):
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert (await ask_port(server.port, Sent("GET", "/livez"))).status == 200


async def test_proxies_share_an_engine_and_engines_a_program(leftovers: Leftovers) -> None:
    """Two proxies before one engine, a third before another: each answers with its own."""
    async with (
        proxy.open_llama_server(extra_args=["--parallel", "2"]) as two,
        proxy.open_llama_server(extra_args=["--parallel", "3"]) as three,
        proxy.open_proxy(two, port=0) as first,
        proxy.open_proxy(two, port=0) as second,
        proxy.open_proxy(three, port=0) as third,
    ):
        assert two.address != three.address
        assert two.api_key != three.api_key
        for server, slots in ((first, 2), (second, 2), (third, 3)):
            answer = await ask_port(server.port, PROPS)
            assert f'"total_slots":{slots}'.encode() in answer.body.replace(b" ", b"")
        await first.drain()
        with pytest.raises(OSError, match="all attempts to connect"):
            await ask_port(first.port, PROPS)
        assert (await ask_port(second.port, PROPS)).status == 200


async def take_away(listener: socket.socket) -> None:
    """Close a socket under who waits on it; the proxy's end has to cancel the wait for it."""
    trio.lowlevel.notify_closing(listener)
    listener.close()
    with trio.fail_after(PATIENCE_S):
        await trio.sleep_forever()


async def test_crash_in_the_background_reaches_the_caller(leftovers: Leftovers) -> None:
    """The body is cancelled, and one typed exception says what the cause was.

    The real way to break a task from outside: take its listening socket away.
    """
    sockets = proxy.bind_sockets("127.0.0.1", 0)
    with pytest.raises(proxy.ProxyCrashed) as caught:
        async with (
            proxy.open_llama_server() as engine,
            proxy.open_proxy(engine, sockets=sockets),
        ):
            await take_away(sockets[0])
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.__cause__.subgroup(trio.ClosedResourceError) is not None
    assert engine.state == proxy.EngineState.STOPPED


async def test_restart_after_a_stop_for_good_is_refused_and_harmless(
    leftovers: Leftovers,
) -> None:
    """A program may stop its engine while the proxy lives on; asking for a restart is a 503."""
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0) as server,
    ):
        await engine.stop()
        answer = await ask_port(server.port, Sent("POST", "/proxy/restart"))
        assert (answer.status, answer.error["type"]) == (503, "unavailable_error")
        assert (await ask_port(server.port, Sent("GET", "/livez"))).status == 200


async def test_engine_is_launched_before_the_web_framework_is_loaded(
    leftovers: Leftovers,
) -> None:
    """Without waiting for it: the proxy answers as llama-server does while it loads."""
    async with (
        proxy.open_llama_server(
            llama_server=str(FAKE), extra_args=["--fake-load-s", "600"], wait_ready=False
        ) as engine,
        proxy.open_proxy(engine, port=0) as server,
    ):
        assert engine.state is proxy.EngineState.STARTING
        answer = await ask_port(server.port, Sent("GET", "/health"))
    assert answer.status == 503
    assert answer.error["message"] == "Loading model"
