"""What a run was: when and where its jobs ran, from which code, and what each rule took."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from provenance.page.lineage import Graph
from provenance.records import configuration_files


def run(graph: Graph) -> dict[str, Any]:
    """When, where, from which code and in which environment the jobs ran, and the seal of all."""
    jobs = graph.jobs
    digests = sorted(str(job["digest"]) for job in jobs)
    commits: dict[str, list[bool]] = defaultdict(list)
    for job in jobs:
        commits[job["commit"] or "no commit known"].append(bool(job["dirty"]))
    hosts = Counter((m.get("host"), m.get("cpu"), m.get("gpu")) for m in graph.machines)
    return {
        "n_jobs": len(jobs),
        "n_altered": sum(job["altered"] for job in jobs),
        "started": min(filter(None, (job["started"] for job in jobs)), default=None),
        "ended": max(filter(None, (job["ended"] for job in jobs)), default=None),
        "seconds": sum(job["seconds"] or 0 for job in jobs),
        "commits": [
            {"commit": commit, "n": len(dirty), "n_dirty": sum(dirty)}
            for commit, dirty in sorted(commits.items(), key=lambda each: -len(each[1]))
        ],
        "hosts": [{"host": host, "cpu": cpu, "gpu": gpu} for host, cpu, gpu in hosts],
        "environments": environments(graph.environments),
        "seal": sha256("\n".join(digests).encode()).hexdigest(),
    }


def environments(used: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """The images or locks that jobs ran in, each once: path, sha256 and Python's version."""
    found = {}
    for environment in used:
        lock = environment.get("lock") or {}
        path = environment.get("image") or lock.get("path") or "an environment of no lock"
        digest = environment.get("image_sha256") or lock.get("sha256") or ""
        found[path, digest] = environment.get("python", "")
    return [
        {"path": path, "sha256": digest, "python": python}
        for (path, digest), python in found.items()
    ]


def rules(graph: Graph) -> list[dict[str, Any]]:
    """What the jobs of each rule took together, in the order in which they build on each other."""
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for job in graph.jobs:
        by_rule.setdefault(job["rule"], []).append(job)
    return [
        {
            "rule": rule,
            "did": jobs[0]["did"],
            "n": len(jobs),
            "seconds": sum(job["seconds"] or 0 for job in jobs),
            "memory": max(job["memory"] or 0 for job in jobs),
        }
        for rule, jobs in by_rule.items()
    ]


def configurations(results: Path, root: Path = Path()) -> list[str]:
    """The files of config/ whose results these are."""
    return [
        str(file.relative_to(root))
        for file in configuration_files(root)
        if (yaml.safe_load(file.read_text()) or {}).get("results") == str(results)
    ]
