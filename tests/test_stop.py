"""Signals while other processes are started."""

import subprocess
import sys

SCRIPT = """
import os, signal, subprocess, sys
from nextfail import stop

seen = []
stop.handle([signal.SIGINT], lambda number, frame: seen.append(number))
with stop.blocked():
    os.kill(os.getpid(), signal.SIGINT)
    child = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    told = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout
    inside = len(seen)
print(told.strip(), inside, len(seen))
os.kill(os.getpid(), signal.SIGINT)
print(len(seen))
"""

LISTENING = """
import subprocess, sys
from nextfail import stop

child = (
    "import os, signal; from nextfail import stop; signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # as without nohup
    "os.kill(os.getpid(), signal.SIGINT); print(stop.requested);"
    "stop.listen(); print(stop.requested); os.kill(os.getpid(), signal.SIGHUP); print(stop.requested)"
)
with stop.blocked():
    print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
"""


def told(script: str) -> list[str]:
    # a process of its own: pytest's other threads would take the signal
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_signal_waits_while_processes_are_started() -> None:
    assert told(SCRIPT) == ["alive", "0", "1", "2"]


def test_a_process_started_so_hears_signals_once_it_listens() -> None:
    assert told(LISTENING) == ["None", "2", "1"]
