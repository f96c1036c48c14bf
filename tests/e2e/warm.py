"""A process that has imported torch and Lightning, and forks for each command.

Most of the time of a short command goes into these imports. A command still has a process, a working folder, an
environment and streams of its own, and imports nextfail itself. Commands share what is decided when Python starts or
torch is loaded, such as PYTHONPATH and OMP_NUM_THREADS.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any

IMPORTED = ("hydra", "lightning", "matplotlib.figure", "omegaconf", "rich.console", "torch", "torchmetrics")


def call(
    module: str, arguments: list[str], cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Like `python -m module *arguments`, run to its end and killed after `timeout` seconds."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        asked = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": env, "streams": [*map(str, streams)]}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        child = server.stdout.readline()
        assert child, f"{__file__} has ended; its stderr says why"
        limit = Timer(timeout, os.kill, (int(child), signal.SIGKILL))
        limit.start()
        code = int(server.stdout.readline())
        limit.cancel()
        return subprocess.CompletedProcess([module, *arguments], code, *(path.read_text() for path in streams))


@cache
def _server() -> subprocess.Popen[str]:
    """The process, which ends with the one that started it: its stdin is closed then."""
    env = {"GOMP_SPINCOUNT": "5000"} | os.environ  # as nextfail sets it before torch is loaded
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )


def _serve() -> dict[str, Any] | None:
    """Answer each request with the child's process id and its exit code; in the child, return the request."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            request: dict[str, Any] = json.loads(line)
            return request
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(request: dict[str, Any]) -> None:
    """Turn this process into the one that was asked for."""
    for number, path in zip((1, 2), request["streams"], strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdin.close()
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115, open until the process ends
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0], sys.argv = request["cwd"], [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in IMPORTED:
        __import__(name)
    gc.freeze()  # what was imported is not collected, and so not copied, by every child
    atexit.register(gc.unfreeze)  # or nanobind, in triton, complains of leaks when a process ends
    if request := _serve():
        _become(request)
