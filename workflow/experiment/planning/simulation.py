"""How long jobs take together: the longest path, and list scheduling on a number of GPUs."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A job to schedule: its seconds, what it occupies, and the steps (by index) it waits for."""

    seconds: float
    n_gpus: int = 0
    threads: int = 1
    after: tuple[int, ...] = ()


def seconds_to_the_end(steps: Sequence[Step]) -> list[float]:
    """Seconds of the longest path from the beginning of each step to the end of everything.

    Raises ValueError where steps wait for each other.
    """
    following: list[list[int]] = [[] for _ in steps]
    waiting = [0] * len(steps)  # the steps that follow, not yet counted
    for i, step in enumerate(steps):
        for before in step.after:
            following[before].append(i)
            waiting[before] += 1
    longest = [0.0] * len(steps)
    todo, n_done = [i for i, n in enumerate(waiting) if n == 0], 0
    while todo:
        i = todo.pop()
        n_done += 1
        longest[i] = steps[i].seconds + max((longest[j] for j in following[i]), default=0.0)
        for before in steps[i].after:
            waiting[before] -= 1
            if waiting[before] == 0:
                todo.append(before)
    if n_done < len(steps):
        raise ValueError("the jobs wait for each other in a circle")
    return longest


def longest_path(steps: Sequence[Step]) -> list[int]:
    """The steps, in order, that take the longest one after the other."""
    rest = seconds_to_the_end(steps)
    following: list[list[int]] = [[] for _ in steps]
    for i, step in enumerate(steps):
        for before in step.after:
            following[before].append(i)
    path, choices = [], list(range(len(steps)))
    while choices:
        path.append(max(choices, key=lambda i: rest[i]))
        choices = following[path[-1]]
    return path


def schedule(steps: Sequence[Step], n_gpus: int, n_cores: int) -> list[float]:
    """When each step starts, in seconds from the beginning, by list scheduling.

    Whenever something is free, the ready step with the longest path behind it starts on it. A step
    on GPUs occupies them and none of the cores; another as many cores as it has threads. Where only
    GPUs count and each step has one, no schedule is shorter than half of this one (Graham 1966).
    Raises ValueError for a step that asks for more GPUs than there are.
    """
    if (asked := max((step.n_gpus for step in steps), default=0)) > n_gpus:
        raise ValueError(f"a job asks for {asked} GPUs of {n_gpus}")
    rest = seconds_to_the_end(steps)
    waiting = [len(step.after) for step in steps]
    following: list[list[int]] = [[] for _ in steps]
    for i, step in enumerate(steps):
        for before in step.after:
            following[before].append(i)
    started = [0.0] * len(steps)
    free = {True: n_gpus, False: n_cores}
    on_gpu = [step.n_gpus > 0 for step in steps]
    occupied = [step.n_gpus or min(step.threads, n_cores) for step in steps]
    ready = sorted((-rest[i], i) for i, n in enumerate(waiting) if n == 0)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        left = []
        for priority, i in ready:
            if occupied[i] <= free[on_gpu[i]]:
                free[on_gpu[i]] -= occupied[i]
                started[i] = now
                heapq.heappush(running, (now + steps[i].seconds, i))
            else:
                left.append((priority, i))
        now = running[0][0]
        ready = left
        while running and running[0][0] <= now:
            _, i = heapq.heappop(running)
            free[on_gpu[i]] += occupied[i]
            for j in following[i]:
                waiting[j] -= 1
                if waiting[j] == 0:
                    ready.append((-rest[j], j))
        ready.sort()
    return started


def total_seconds(steps: Sequence[Step], started: Sequence[float]) -> float:
    """When the last step of a schedule is at its end."""
    return max((s + step.seconds for s, step in zip(started, steps, strict=True)), default=0.0)


def peak(changes: Sequence[tuple[float, float]]) -> float:
    """The highest sum on the way of (time, change); at one time, what is freed goes first."""
    level = highest = 0.0
    for _, change in sorted(changes):
        level += change
        highest = max(highest, level)
    return highest
