"""A real SLURM cluster of one node, on this machine alone: controller, node, accounting and their database on loopback.

python tests/slurm/cluster.py up      # needs root, and Debian's slurm-wlm, munge, slurmdbd and mariadb-server
python tests/slurm/cluster.py down    # stops it and removes its folder
python tests/slurm/cluster.py conf    # prints what SLURM_CONF has to be

Everything lies in one folder, that of NEXTFAIL_SLURM or nextfail-slurm among the temporary files. Nothing outside it
is read or written.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(os.environ.get("NEXTFAIL_SLURM", f"{tempfile.gettempdir()}/nextfail-slurm"))
CONF = ROOT / "slurm.conf"
DAEMONS = ("mariadbd", "munged", "slurmdbd", "slurmctld", "slurmd")  # in the order in which they start
PORTS = {"mariadbd": 16820, "slurmdbd": 16819, "slurmctld": 16817, "slurmd": 16818}
CLUSTER = "nextfail"
MAX_ARRAY = 5  # small, so that sweeps have to be sent in pieces

SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={root}/munge/socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStoragePass={root}/munge/socket
MailProg=/bin/true
ReturnToService=2
KillWait=5
MaxArraySize={max_array}
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadbd}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
PidFile={root}/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
"""


def up() -> None:
    """Start the cluster and return when a job ran on it and its accounts know of it."""
    refuse_unless_possible()
    try:
        bring_up()
    except BaseException:
        down()
        raise


def bring_up() -> None:
    """Write the configuration and start the daemons, one after the other."""
    ROOT.mkdir(mode=0o755, parents=True)
    for name in ("munge", "mysql", "state", "spool", "log"):
        (ROOT / name).mkdir(mode=0o700 if name == "munge" else 0o755)
    (ROOT / "munge").chmod(0o711)
    values = {"root": ROOT, "host": socket.gethostname().partition(".")[0], "cluster": CLUSTER, "max_array": MAX_ARRAY,
              "password": secrets.token_hex(16), **PORTS}  # fmt: skip
    write("slurm.conf", SLURM_CONF.format(**values), 0o644)
    write("slurmdbd.conf", SLURMDBD_CONF.format(**values), 0o600)
    write("cgroup.conf", "IgnoreSystemd=yes\n", 0o644)  # read where there is a cgroup v2
    write("users.sql", "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
          f"CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY '{values['password']}';\n"
          "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n", 0o600)  # fmt: skip
    (ROOT / "munge" / "key").write_bytes(secrets.token_bytes(128))
    (ROOT / "munge" / "key").chmod(0o400)
    call("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={ROOT}/mysql", "--skip-test-db")
    for daemon in DAEMONS:
        start(daemon)
        if daemon in PORTS:
            until(lambda daemon=daemon: listens(PORTS[daemon]), f"{daemon} does not listen")
        if daemon == "slurmdbd":
            until(registered, "the accounts do not answer")
    until(lambda: "idle" in call("sinfo", "-h", "-o", "%T", check=False), "the node does not become idle")
    job = call("sbatch", "--parsable", "--output=/dev/null", "--wrap=true").strip().partition(";")[0]
    sacct = ("sacct", "-X", "-n", "-o", "state", "-j", job)
    until(lambda: "COMPLETED" in call(*sacct, check=False), "a first job does not end")
    print(f"SLURM runs: export SLURM_CONF={CONF}")


def registered() -> bool:
    """Whether the accounts know this cluster; they are told if not."""
    if CLUSTER in call("sacctmgr", "-n", "list", "cluster", check=False):
        return True
    call("sacctmgr", "-i", "add", "cluster", CLUSTER, check=False)
    return False


def refuse_unless_possible() -> None:
    """Leave with one message if a cluster cannot be brought up here."""
    if os.geteuid() != 0:
        leave("needs root: its daemons start jobs as their users")
    if missing := [name for name in (*DAEMONS, "sbatch", "mariadb-install-db") if shutil.which(name) is None]:
        leave(f"{', '.join(missing)} not found: apt-get install slurm-wlm munge slurmdbd mariadb-server")
    if ROOT.exists():
        leave(f"{ROOT} exists already: take it down first")
    if Path("/etc/slurm/slurm.conf").exists() or processes("slurmctld", "slurmd", "slurmdbd"):
        leave("this machine runs SLURM, or is set up for it, and is left as it is")
    if taken := [port for port in PORTS.values() if listens(port)]:
        leave(f"port {taken[0]} is taken")


def down() -> None:
    """Stop whatever of the cluster runs, and remove its folder."""
    if not ROOT.exists():
        leave(f"there is no cluster in {ROOT}")
    call("scancel", "--user=root", check=False)
    for daemon in reversed(DAEMONS):
        stop(daemon)
    shutil.rmtree(ROOT)
    print(f"SLURM is down, and {ROOT} removed")


def start(daemon: str) -> None:
    """Start one daemon, in the background."""
    command = {
        "mariadbd": [daemon, "--no-defaults", "--user=root", f"--datadir={ROOT}/mysql", f"--socket={ROOT}/mysql.socket",
                     f"--pid-file={pid_file(daemon)}", "--bind-address=127.0.0.1", f"--port={PORTS['mariadbd']}",
                     "--skip-name-resolve", f"--init-file={ROOT}/users.sql", "--innodb-buffer-pool-size=64M"],
        "munged": [daemon, "--foreground", f"--key-file={ROOT}/munge/key", f"--socket={ROOT}/munge/socket",
                   f"--pid-file={pid_file(daemon)}", f"--seed-file={ROOT}/munge/seed"],
    }.get(daemon, [daemon, "-D"])  # fmt: skip
    with (ROOT / "log" / f"{daemon}.out").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)
    if not pid_file(daemon).exists():  # in the foreground not all of them write it
        pid_file(daemon).write_text(str(process.pid))


def stop(daemon: str, number: int = signal.SIGTERM) -> None:
    """Stop one daemon and wait for its end; nothing if it does not run."""
    try:
        pid = int(pid_file(daemon).read_text())
        os.kill(pid, number)
    except (OSError, ValueError):
        return
    until(lambda: not alive(pid), f"{daemon} does not end")
    pid_file(daemon).unlink(missing_ok=True)


def pid_file(daemon: str) -> Path:
    """Where a daemon's process id is."""
    return ROOT / f"{daemon}.pid"


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def processes(*names: str) -> list[int]:
    """Ids of running processes with one of these names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() in names and alive(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def environment() -> dict[str, str]:
    """That of this process, with the cluster's configuration."""
    return os.environ | {"SLURM_CONF": str(CONF)}


def call(*command: str, check: bool = True) -> str:
    """What a command prints."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if check and done.returncode:
        leave(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    return done.stdout


def listens(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(true: Callable[[], bool], complaint: str, seconds: float = 90) -> None:
    """Wait for something to become true, or leave with a complaint and the end of the logs."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            for log in sorted((ROOT / "log").glob("*")):
                print(f"--- {log.name}\n{''.join(log.read_text(errors='replace').splitlines(keepends=True)[-15:])}")
            leave(complaint)
        time.sleep(0.2)


def write(name: str, text: str, mode: int) -> None:
    """A file of the cluster's."""
    (ROOT / name).touch(mode=mode)
    (ROOT / name).write_text(text)


def leave(message: str) -> None:
    """Say one thing on stderr and exit."""
    print(f"cluster: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    {"up": up, "down": down, "conf": lambda: print(CONF)}.get(sys.argv[-1], lambda: leave("say up, down or conf"))()
