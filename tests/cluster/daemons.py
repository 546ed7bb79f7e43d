"""Daemons on this machine: started as children, known by a pid file each, and ended in order."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from slurm_files import ACCOUNT

FOLDER = Path("/var/tmp/ffmerge-slurm")
SECONDS = 60  # for anything to come up or go down


class Daemons:
    """The daemons of a cluster, with their state in one folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "mariadb.socket"),
        }

    def living(self) -> list[int]:
        """The processes of this cluster that live."""
        return [pid for file in self.folder.glob("*.pid") if (pid := _alive(file))]

    def is_in_use(self) -> bool:
        """Whether the program that started them lives, for they are its children."""
        parents = {psutil.Process(pid).ppid() for pid in self.living()}
        return bool(parents - {1, os.getpid()})  # 1: of those whose program has ended

    def start(self, name: str, program: str, *options: str) -> None:
        """Start a daemon, by the name that it has here."""
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

    def stop(self, name: str) -> None:
        """End a daemon, if it is there."""
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

    def wait(self, ready: Callable[[], bool], fatal: bool = True) -> None:
        """Wait until something is true; if that may not fail, raises TimeoutError with the logs."""
        deadline = time.monotonic() + SECONDS
        while not ready():
            if time.monotonic() > deadline:
                if not fatal:
                    return
                for file in sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.log")):
                    print(f"{file}:", file.read_text()[-1000:], sep="\n", file=sys.stderr)
                raise TimeoutError("the cluster did not come up")
            time.sleep(0.1)

    def ask(self, *command: str) -> subprocess.CompletedProcess:
        """Run a client."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )

    def start_munge(self) -> None:
        """What the others know each other by."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = {"key-file": "key", "socket": "socket", "pid-file": "own.pid", "log-file": "log"}
        names["seed-file"] = "seed"
        options = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self.start("munge", "munged", "--foreground", "--force", *options)
        socket = f"--socket={self.folder}/munge.socket"
        self.wait(lambda: self.ask("munge", "-n", socket).returncode == 0)

    def start_accounting(self) -> None:
        """The history of all jobs, with an account to run them on."""
        data, socket = self.folder / "mariadb", self.folder / "mariadb.socket"
        initialized = self.ask(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
            "--auth-root-authentication-method=normal", "--skip-test-db",
        )  # fmt: skip
        if initialized.returncode:
            sys.exit(f"error: {initialized.stdout}{initialized.stderr}")
        self.start(
            "mariadb", "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
            f"--socket={socket}", "--skip-networking", f"--pid-file={self.folder}/mariadb.own.pid",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        sql = ("mariadb", "--no-defaults", f"--socket={socket}", "--user=root", "--execute")
        self.wait(
            lambda: self.ask(*sql, "create database if not exists slurm_acct").returncode == 0
        )
        self.start("slurmdbd", "slurmdbd", "-D")
        accounts = ("sacctmgr", "--immediate", "--quiet", "add")
        self.wait(lambda: self.ask(*accounts, "cluster", "test").returncode == 0)
        self.ask(*accounts, "account", ACCOUNT)
        self.ask(*accounts, "user", "root", f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}")


def _alive(file: Path) -> int | None:
    """The process of a pid file, unless it ended."""
    try:
        process = psutil.Process(int(file.read_text()))
        return process.pid if process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
