"""Score many merged models, and compute the layers that they share with the base model once.

Layers before the first merged one are the base model's and get the same values. So the first
candidate of a batch keeps their outputs, and in the others these layers return what was kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import temporary_changes
from ffmerge.models.towers import towers
from provenance.progress import progress

AT_A_TIME = 2**26  # bytes of batches and kept outputs in memory; a single batch may take more
ROUNDING = 1e-4  # relative distance of outputs that differ by the order of sums only

Batch, Score = TypeVar("Batch"), TypeVar("Score")
Candidate = tuple[Sequence[Group], dict[str, Permutations] | None]
"""Groups to merge, and the permutations by tower; None for vanilla."""


class CandidateScorer:
    """Scores candidates for merging, batch by batch.

    model: the base model; it stays unchanged. merge: merges a candidate in it, by default by
    `merge_in_model`. one_pass: whether a score is one forward pass; if not, every layer is always
    computed. The first outputs that are returned again are checked against a whole pass: in a model
    whose layers also pass values on by other ways than their outputs, every layer is computed from
    then on.
    """

    def __init__(
        self,
        model: nn.Module,
        merge: Callable[..., None] | None = None,
        one_pass: bool = True,
    ) -> None:
        self._model, self._towers = model, towers(model)
        self._merge = merge or partial(merge_in_model, model)
        self._shares, self._is_checked = one_pass, False

    def scores(
        self,
        candidates: Sequence[Candidate],
        batches: Iterable[Batch],
        score: Callable[[Batch], Score],
        is_open: Callable[[int, list[Score]], bool] = lambda i, scores: True,
    ) -> list[list[Score]]:
        """Score each candidate on the batches, in their order. score: of the model as it is then.

        is_open: whether to go on with a candidate, from its index and its scores so far. It is
        asked once more when a candidate has all its scores.
        As many batches are in memory as fit into AT_A_TIME with the outputs that are kept.
        """
        found: list[list[Score]] = [[] for _ in candidates]
        order = sorted(range(len(candidates)), key=lambda i: -_first_layer(candidates[i][0]))
        rest = iter(batches)
        for batch in rest:
            chunk, kept, size = [batch], [[]], 0
            remaining = [i for i in order if is_open(i, found[i])]
            if not remaining:
                break
            for i in progress(remaining, desc="candidates"):
                with temporary_changes(self._model):
                    self._merge(*candidates[i])
                    n = 0
                    while is_open(i, found[i]) and n < len(chunk):
                        found[i].append(self._score(candidates[i][0], chunk[n], kept[n], score))
                        if i == remaining[0]:  # the others take the same batches
                            size += sum(t.nbytes for t in _tensors([chunk[n], kept[n]]))
                            more = list(islice(rest, 1)) if size < AT_A_TIME else []
                            chunk += more
                            kept += [[] for _ in more]
                        n += 1
        return found

    @torch.inference_mode()
    def _score(
        self,
        groups: Sequence[Group],
        batch: Batch,
        kept: list[Any],
        score: Callable[[Batch], Score],
    ) -> Score:
        merged = frozenset(self._towers[g.tower].paths[layer] for g in groups for layer in g.layers)
        run = _Pass(merged, kept if self._shares else None)
        try:
            with self._through(run):
                value = score(batch)
        except Exception:  # a layer that misses what another one keeps for it fails in its own way
            if self._is_checked or not run.n_returned:
                raise
            self._shares = False
            return score(batch)
        if run.n_returned and not self._is_checked:
            whole = _Pass(merged, None)
            with self._through(whole):
                expected = score(batch)
            self._shares = self._is_checked = _is_same(run.last, whole.last)
            return value if self._shares else expected
        return value

    @contextmanager
    def _through(self, run: "_Pass") -> Iterator[None]:
        """Let a pass decide for every layer whether it is computed."""
        with ExitStack() as stack:
            for path in (path for tower in self._towers.values() for path in tower.paths):
                module = self._model.get_submodule(path)
                before = vars(module).get("forward")
                module.forward = run.instead_of(path, module.forward)
                stack.callback(
                    setattr if before else delattr, module, "forward", *[before] * bool(before)
                )
            yield


@dataclass
class _Pass:
    """A forward pass. merged: paths of the layers that are not the base model's.

    kept: outputs of the calls of layers before the first of these, in order; None to keep nothing.
    last: output of the last call. n_returned: outputs that were returned and not computed.
    """

    merged: frozenset[str]
    kept: list[Any] | None
    n_calls: int = 0
    n_returned: int = 0
    last: Any = None

    def instead_of(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            if path in self.merged:
                self.kept = None
            if self.kept is not None and self.n_calls < len(self.kept):
                self.n_returned += 1
            else:
                self.last = forward(*args, **kwargs)
                if self.kept is None or not _can_be_copied(self.last):
                    self.kept = None
                    return self.last
                self.kept.append(self.last)
            self.last = _copy(self.kept[self.n_calls])  # a model may write to what it gets
            self.n_calls += 1
            return self.last

        return call


def _first_layer(groups: Sequence[Group]) -> int:
    return min((min(group.layers) for group in groups), default=0)


def _can_be_copied(output: Any) -> bool:
    if type(output) in (tuple, list):
        return all(map(_can_be_copied, output))
    return output is None or isinstance(output, Tensor)


def _copy(output: Any) -> Any:
    if isinstance(output, tuple | list):
        return type(output)(map(_copy, output))
    return output.clone() if isinstance(output, Tensor) else output


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _is_same(output: Any, expected: Any) -> bool:
    return all(
        torch.dist(a.float(), b.float()) <= ROUNDING * b.float().norm()
        for a, b in zip(_tensors(output), _tensors(expected), strict=True)
    )
