"""A cluster, a clone on it, what happened there, and the same run without any of that."""

import signal
import sys

import pytest
from clone import TARGET, Clone, adapted
from machine import image, prepare
from story import play

from cluster import Cluster


@pytest.fixture(scope="session")
def cluster():
    prepare()
    image()
    # Who ends the tests wants the daemons to end, too.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    cluster = Cluster()
    cluster.up()
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """The same table made without a cluster and without an image, while the cluster is at work."""
    clone = Clone(tmp_path_factory.mktemp("local"))
    command = [sys.executable, "workflow/run.py", TARGET, "--configfile", "config/run.yaml"]
    run = clone.start(*command, "--cores", "1")
    yield clone, run
    run.terminate()


@pytest.fixture(scope="session")
def clone(cluster, tmp_path_factory):
    return adapted(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def story(cluster, clone, local):
    return play(cluster, clone)


def pytest_terminal_summary(terminalreporter):
    """Say once why nothing was tested, and not for each test."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason in {report.longrepr[2].removeprefix("Skipped: ") for report in skipped}:
        terminalreporter.write_line(f"The tests on a cluster were skipped: {reason}")
