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
import sys
from collections.abc import Sequence
from contextlib import suppress

import psutil
import slurm_files
from daemons import Daemons
from slurm_files import NODES


class Cluster(Daemons):
    """A cluster that comes up and goes down, and what the tests ask about its jobs."""

    def up(self) -> None:
        """Start all daemons and wait until both nodes take jobs.

        Raises SystemExit if the cluster of another program is up, whose jobs would end with it.
        """
        if self.is_in_use():
            sys.exit("error: a cluster is up on this machine; to end it: cluster.py down")
        self.down()
        self.folder.mkdir(parents=True)
        slurm_files.write(self.folder)
        self.start_munge()
        self.start_accounting()
        self.start("slurmctld", "slurmctld", "-D")
        self.wait(lambda: self.ask("scontrol", "ping").returncode == 0)
        for name in NODES:
            self.start_node(name)

    def start_node(self, name: str) -> None:
        """Start a node and wait until it takes jobs."""
        self.start(f"slurmd-{name}", "slurmd", "-D", "-N", name)
        self.wait(lambda: self.takes_jobs(name))

    def down(self) -> None:
        """End the jobs and every daemon, and leave nothing behind."""
        if (self.folder / "slurmctld.pid").exists():
            self.ask("scancel", "--user=root", "--full")
            self.wait(lambda: not self.jobs(), fatal=False)
        daemons = ["slurmctld", "slurmdbd", "mariadb", "munge"]
        for name in [*(f"slurmd-{node}" for node in NODES), *daemons]:
            self.stop(name)
        slurm_files.remove(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

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
        fields = (
            "JobIDRaw",
            "State",
            "NodeList",
            "Start",
            "End",
            "AllocTRES",
            "Comment",
            "JobName",
        )
        said = self.ask(
            "sacct", "-X", "--parsable2", "--noheader", "--duplicates", "--starttime=now-1day",
            f"--format={','.join(fields)}",
        ).stdout  # fmt: skip
        return [dict(zip(fields, line.split("|"), strict=True)) for line in said.splitlines()]

    def _steps(self, name: str) -> list[psutil.Process]:
        """The slurmstepd of every step that runs on a node."""
        on_node = self.running(node=name)
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (words := " ".join(process.info["cmdline"] or [])).startswith("slurmstepd: [")
            and words.partition("[")[2].partition(".")[0] in on_node
        ]


if __name__ == "__main__":
    if sys.argv[1:] not in (["up"], ["down"]):
        sys.exit("usage: cluster.py up | down")
    getattr(Cluster(), sys.argv[1])()
