"""The configuration files of the SLURM that cluster.py brings up, and where clients find them."""

import os
import sys
from pathlib import Path

SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
NODES = ("n1", "n2")
N_GPUS = 2  # of a node
ACCOUNT, PARTITION = "project", "gpu"

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


def is_in_use(folder: Path) -> bool:
    """Whether the machine's clients ask this folder's cluster; a link of a lost one counts, too."""
    link = SYSTEM_CONFIGURATION
    return link.is_symlink() and link.readlink() == folder / "slurm.conf"


def is_of_another_cluster(folder: Path) -> bool:
    """Whether the machine belongs to a cluster already."""
    return SYSTEM_CONFIGURATION.exists() and not is_in_use(folder)


def write(folder: Path) -> None:
    """Write what the daemons read, and have the machine's clients ask them."""
    if is_of_another_cluster(folder):
        sys.exit(f"error: {SYSTEM_CONFIGURATION} is there: this machine belongs to a cluster")
    host = os.uname().nodename.partition(".")[0]
    nodes = "\n".join(
        NODE.format(name=name, host=host, port=17821 + i, n_gpus=N_GPUS)
        for i, name in enumerate(NODES)
    )
    settings = {
        "host": host,
        "folder": folder,
        "nodes": nodes,
        "names": ",".join(NODES),
        "partition": PARTITION,
    }
    for i in range(N_GPUS):  # /dev/null under other names
        os.mknod(folder / f"nvidia{i}", 0o20666, os.makedev(1, 3))
    gpus = f"{folder}/nvidia[0-{N_GPUS - 1}]"
    lines = [f"NodeName={name} Name=gpu File={gpus}\n" for name in NODES]
    (folder / "gres.conf").write_text("".join(lines))
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**settings))
    dbd = folder / "slurmdbd.conf"
    dbd.write_text(SLURMDBD_CONF.format(**settings))
    dbd.chmod(0o600)
    # Jobs ask without SLURM_CONF: the plugin takes SLURM's variables out of their environment.
    SYSTEM_CONFIGURATION.parent.mkdir(exist_ok=True)
    SYSTEM_CONFIGURATION.unlink(missing_ok=True)
    SYSTEM_CONFIGURATION.symlink_to(folder / "slurm.conf")


def remove(folder: Path) -> None:
    """Have the machine's clients ask nobody."""
    if is_in_use(folder):
        SYSTEM_CONFIGURATION.unlink()
