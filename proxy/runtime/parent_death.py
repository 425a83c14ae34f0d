"""Ways to make a child die with us, even when we are killed without notice.

Owns the platform's means, none of which is enough alone (docs/platforms.md has the table):

* Linux: the kernel kills the child when the thread that started it ends (`PR_SET_PDEATHSIG`). It
  misses what the child forked.
* POSIX: the *guard*, a shell of our own that waits for the end of a pipe which only we hold open,
  then kills the child's whole process group.
* Elsewhere than Linux: llama-server itself exits when its standard input ends, if it believes that
  a router started it.
* Windows: a job object that kills its processes when its last handle is closed.

Knows nothing of llama-server's states. Source: prctl(2); llama.cpp
`tools/server/server-models.cpp`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from proxy.runtime.exit_watch import ExitWatch

_PR_SET_PDEATHSIG = 1

# `read` fails at the end of the pipe, that is, when the owner is gone. The signals are ignored
# because a service manager sends them to every process of the service, and the owner may still be
# draining then.
_GUARD_SCRIPT = 'trap "" HUP INT TERM; read -r _ || kill -s KILL -- "-$1"'
_SHELL = "/bin/sh"

STDIN_ENDS_IT = {"LLAMA_SERVER_ROUTER_PORT": "0"}
"""What makes llama-server exit at the end of its standard input. Undocumented, hence never the only
means."""


def kernel_kills_orphans() -> bool:
    """Return whether the kernel can be told to kill the child when we end."""
    return sys.platform == "linux"


def die_with_owner() -> Callable[[], None]:
    """Return what the child must run between fork and exec. Linux only.

    The thread that calls Popen has to live as long as the child: so it is Trio's own, not a worker
    thread.
    """
    owner = os.getpid()
    # Looked up here: in the child of a process with threads, the less is done the better.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:  # We died before the call: nobody would send the signal.
            os._exit(127)

    return in_child


class Guard:
    """A shell that kills a process group when we are gone. POSIX only.

    Args:
        group: The process group.

    Raises:
        OSError: When there is no shell; then what the child forked may outlive our sudden death.
    """

    def __init__(self, group: int) -> None:
        read_end, self._write_end = os.pipe()
        try:
            self._shell = subprocess.Popen(
                [_SHELL, "-c", _GUARD_SCRIPT, _SHELL, str(group)],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        self._watch = ExitWatch(self._shell)

    async def release(self) -> None:
        """End the shell: the group is gone, and its number may be given to another one.

        Cancellation: the shell is killed before the first await; only its exit status may be left
        to the interpreter to collect.
        """
        self._shell.kill()
        os.close(self._write_end)
        await self._watch.wait()
        self._watch.close()
        self._shell.wait()
