"""A SLURM cluster on one machine, for the tests: accounting, and nodes with GPUs that are none.

    python tests/cluster/cluster.py up
    SLURM_CONF=/var/tmp/ffmerge-slurm/slurm.conf squeue
    python tests/cluster/cluster.py down

Needs root and what slurm-install.sh installs. Every daemon is a child of the program that brings
the cluster up, runs as root with its state in one folder, and is reached from this machine alone.
`down` ends all of them, also those of a cluster whose program was killed, and removes the folder.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

FOLDER = Path("/var/tmp/ffmerge-slurm")
SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
NODES = ("n1", "n2")
N_GPUS = 2  # of a node
ACCOUNT, PARTITION = "project", "gpu"
SECONDS = 60  # for anything to come up or go down

# What a node has is made up, so that a job may ask for what the paper's models would need; what
# limits the jobs at once is the GPUs of a node. A dead node is noticed after SlurmdTimeout.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=17817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.own.pid
SlurmdPidFile={folder}/slurmd-%n.own.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=17819
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
KillWait=3
SlurmdTimeout=10
SlurmctldTimeout=10
MinJobAge=300
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
{nodes}
PartitionName={partition} Nodes={names} Default=YES MaxTime=7-0 State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs=32 RealMemory=262144 Gres=gpu:{n_gpus} State=UNKNOWN"
)
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=17819
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""


class Cluster:
    """The daemons, by name, and the questions that the tests have about their jobs."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "mariadb.socket"),
        }

    def up(self) -> None:
        """Start all daemons and wait until both nodes take jobs."""
        self.down()
        self.folder.mkdir(parents=True)
        self._configure()
        self._start_munge()
        self._start_accounting()
        self._start("slurmctld", "slurmctld", "-D")
        self._wait(lambda: self.ask("scontrol", "ping").returncode == 0)
        for name in NODES:
            self.start_node(name)

    def start_node(self, name: str) -> None:
        """Start a node and wait until it takes jobs."""
        self._start(f"slurmd-{name}", "slurmd", "-D", "-N", name)
        self._wait(lambda: self.takes_jobs(name))

    def down(self) -> None:
        """End the jobs and every daemon, and leave nothing behind."""
        if (self.folder / "slurmctld.pid").exists():
            self.ask("scancel", "--user=root", "--full")
            self._wait(lambda: not self.jobs(), fatal=False)
        daemons = ["slurmctld", "slurmdbd", "mariadb", "munge"]
        for name in [*(f"slurmd-{node}" for node in NODES), *daemons]:
            self._stop(name)
        if self._is_configured():
            SYSTEM_CONFIGURATION.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def daemons(self) -> list[int]:
        """The processes of this cluster that live."""
        return [pid for file in self.folder.glob("*.pid") if (pid := _alive(file))]

    def takes_jobs(self, name: str) -> bool:
        """Whether a node is up; sinfo is late to tell, where it is asked for one node."""
        said = self.ask("scontrol", "--oneliner", "show", "node", name).stdout
        return bool(re.search(r" State=(IDLE|MIXED|ALLOCATED)\s", said))

    def kill_node(self, name: str) -> None:
        """What a crash looks like: its slurmd and every process of its jobs are gone at once."""
        processes = [each for step in self._steps(name) for each in step.children(recursive=True)]
        processes += self._steps(name)
        os.kill(int((self.folder / f"slurmd-{name}.pid").read_text()), signal.SIGKILL)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def ask(self, *command: str) -> subprocess.CompletedProcess:
        """Run a client."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )

    def jobs(self, *options: str) -> list[list[str]]:
        """The jobs that wait or run: id, state, node, comment."""
        said = self.ask("squeue", "--noheader", "--format=%A|%T|%N|%k", *options).stdout
        return [line.split("|") for line in said.splitlines()]

    def running(self, jobs: Sequence[str] = (), node: str = "") -> list[str]:
        """Which of these jobs run, or of all; on a node, if one is named."""
        return self._in_state("RUNNING", jobs, *(["--nodelist", node] if node else []))

    def waiting(self, jobs: Sequence[str] = ()) -> list[str]:
        """Which of these jobs wait to be started, or of all."""
        return self._in_state("PENDING", jobs)

    def _in_state(self, state: str, jobs: Sequence[str], *options: str) -> list[str]:
        found = [job for job, *_ in self.jobs(f"--states={state}", *options)]
        return [job for job in found if not jobs or job in jobs]

    def history(self) -> list[dict[str, str]]:
        """Every run of every job that accounting knows of."""
        fields = ("JobIDRaw", "State", "NodeList", "Start", "End", "Elapsed", "Comment", "JobName")
        said = self.ask(
            "sacct", "-X", "--parsable2", "--noheader", "--duplicates", "--starttime=now-1day",
            f"--format={','.join(fields)}",
        ).stdout  # fmt: skip
        return [dict(zip(fields, line.split("|"), strict=True)) for line in said.splitlines()]

    def _is_configured(self) -> bool:
        """Whether the machine's clients ask this cluster; a link of a lost one counts, too."""
        link = SYSTEM_CONFIGURATION
        return link.is_symlink() and link.readlink() == self.folder / "slurm.conf"

    def _configure(self) -> None:
        if SYSTEM_CONFIGURATION.exists():
            sys.exit(f"error: {SYSTEM_CONFIGURATION} is there: this machine belongs to a cluster")
        host = os.uname().nodename.partition(".")[0]
        nodes = "\n".join(
            NODE.format(name=name, host=host, port=17821 + i, n_gpus=N_GPUS)
            for i, name in enumerate(NODES)
        )
        settings = {
            "host": host,
            "folder": self.folder,
            "nodes": nodes,
            "names": ",".join(NODES),
            "partition": PARTITION,
        }
        for i in range(N_GPUS):  # /dev/null under other names
            os.mknod(self.folder / f"nvidia{i}", 0o20666, os.makedev(1, 3))
        files = f"{self.folder}/nvidia[0-{N_GPUS - 1}]"
        gpus = [f"NodeName={name} Name=gpu File={files}\n" for name in NODES]
        (self.folder / "gres.conf").write_text("".join(gpus))
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**settings))
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(SLURMDBD_CONF.format(**settings))
        dbd.chmod(0o600)
        # Jobs ask without SLURM_CONF: the plugin takes SLURM's variables out of their environment.
        SYSTEM_CONFIGURATION.parent.mkdir(exist_ok=True)
        SYSTEM_CONFIGURATION.unlink(missing_ok=True)
        SYSTEM_CONFIGURATION.symlink_to(self.folder / "slurm.conf")

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = {"key-file": "key", "socket": "socket", "pid-file": "own.pid", "log-file": "log"}
        names["seed-file"] = "seed"
        options = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self._start("munge", "munged", "--foreground", "--force", *options)
        socket = f"--socket={self.folder}/munge.socket"
        self._wait(lambda: self.ask("munge", "-n", socket).returncode == 0)

    def _start_accounting(self) -> None:
        data, socket = self.folder / "mariadb", self.folder / "mariadb.socket"
        initialized = self.ask(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
            "--auth-root-authentication-method=normal", "--skip-test-db",
        )  # fmt: skip
        if initialized.returncode:
            sys.exit(f"error: {initialized.stdout}{initialized.stderr}")
        self._start(
            "mariadb", "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
            f"--socket={socket}", "--skip-networking", f"--pid-file={self.folder}/mariadb.own.pid",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        sql = ("mariadb", "--no-defaults", f"--socket={socket}", "--user=root", "--execute")
        self._wait(
            lambda: self.ask(*sql, "create database if not exists slurm_acct").returncode == 0
        )
        self._start("slurmdbd", "slurmdbd", "-D")
        accounts = ("sacctmgr", "--immediate", "--quiet", "add")
        self._wait(lambda: self.ask(*accounts, "cluster", "test").returncode == 0)
        self.ask(*accounts, "account", ACCOUNT)
        self.ask(*accounts, "user", "root", f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}")

    def _start(self, name: str, program: str, *options: str) -> None:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
        with (self.folder / f"{name}.out").open("w") as said:
            daemon = subprocess.Popen(
                [path, *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the tests, which then end it in order
            )
        (self.folder / f"{name}.pid").write_text(str(daemon.pid))

    def _stop(self, name: str) -> None:
        file = self.folder / f"{name}.pid"
        if not (pid := _alive(file)):
            return
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(15)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(15)

    def _steps(self, name: str) -> list[psutil.Process]:
        """The slurmstepd of every step that runs on a node."""
        on_node = self.running(node=name)
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (words := " ".join(process.info["cmdline"] or [])).startswith("slurmstepd: [")
            and words.partition("[")[2].partition(".")[0] in on_node
        ]

    def _wait(self, ready: Callable[[], bool], fatal: bool = True) -> None:
        deadline = time.monotonic() + SECONDS
        while not ready():
            if time.monotonic() > deadline:
                if not fatal:
                    return
                for file in sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.log")):
                    print(f"{file}:", file.read_text()[-1000:], sep="\n", file=sys.stderr)
                raise TimeoutError("the cluster did not come up")
            time.sleep(0.1)


def _alive(file: Path) -> int | None:
    """The process of a pid file, unless it ended."""
    try:
        process = psutil.Process(int(file.read_text()))
        return process.pid if process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


if __name__ == "__main__":
    if sys.argv[1:] not in (["up"], ["down"]):
        sys.exit("usage: cluster.py up | down")
    getattr(Cluster(), sys.argv[1])()
