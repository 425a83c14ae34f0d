"""nginx as its documentation sets it up for streams: nothing buffered, upstream connections kept.

From a configuration of the benchmark's in a folder of its own; the service of the system, and what
is in /etc, are not touched. One worker, which is what one processor can use; its processor time
and memory are those of the worker and of the master.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmark.paced_upstream import TOTAL_SLOTS
from benchmark.peers.peer import Listening, Tell
from benchmark.processes import BenchmarkError, Children, answers, children_of, free_port

# Two for each stream.
_CONNECTIONS = 2 * TOTAL_SLOTS
# Where Debian has it, which is not on everybody's PATH.
_ALSO_IN = "/usr/sbin"

_CONFIGURATION = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {folder}/nginx.pid;
error_log stderr error;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream llama_server {{
        server 127.0.0.1:{upstream_port};
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://llama_server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def prepare(_tell: Tell) -> None:
    """Look for it.

    Raises:
        BenchmarkError: When it is not installed.
    """
    find(_folders())


def _folders() -> str:
    return os.environ.get("PATH", "") + os.pathsep + _ALSO_IN


def find(folders: str) -> str:
    """Return where nginx is.

    Args:
        folders: Where it is looked for, as in PATH.

    Raises:
        BenchmarkError: When it is in none of them.
    """
    found = shutil.which("nginx", path=folders)
    if found is None:
        raise BenchmarkError(
            "there is no nginx: install it (on Debian and Ubuntu: apt install nginx-light), "
            "or measure --without nginx"
        )
    return found


def start(children: Children, upstream_port: int, folder: Path) -> Listening:
    """Start it on a free port."""
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            port=port,
            upstream_port=upstream_port,
            connections=_CONNECTIONS,
            descriptors=_CONNECTIONS + 100,
        )
    )
    arguments = ["-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    child = children.start("nginx", arguments, program=find(_folders()), prints=False)
    child.wait_until(lambda: answers(port, "/health"))
    return Listening(port, (child.pid, *children_of(child.pid)))
