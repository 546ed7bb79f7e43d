"""A naive implementation of the paper's Sections 3.2 to 3.4, for a ViT in plain PyTorch.

It is written from the paper's text alone and does not use the library. For every window, a forward
pass collects the features and accumulates their covariances, assignments to the first sublayer are
solved, the sublayers are averaged, and the candidate is saved to disk, loaded and evaluated.
"""

import copy
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batches = Sequence[dict[str, Tensor]]


class NaiveSelection:
    """Merge and score windows of one model.

    features, validation: batches of `pixel_values`, the latter with `labels`.
    seconds, cpu_seconds: total of each stage. units: how much work each stage has done, such as
    images or assignments.
    """

    def __init__(
        self, model: nn.Module, features: Batches, n_tokens: int, validation: Batches, scratch: Path
    ) -> None:
        self.model, self.features, self.validation = model, features, validation
        self.n_tokens, self.scratch = n_tokens, scratch
        self.seconds: Counter[str] = Counter()
        self.cpu_seconds: Counter[str] = Counter()
        self.units: Counter[str] = Counter()

    @contextmanager
    def stage(self, name: str, units: int = 1) -> Iterator[None]:
        """Add the time of a block to a stage, and its units of work."""
        begun, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] += time.perf_counter() - begun
        self.cpu_seconds[name] += time.process_time() - cpu
        self.units[name] += units

    def loss(self, start: int, k: int, aligned: bool) -> tuple[float, list[Tensor]]:
        """Merge k sublayers from `start` on. Returns the validation loss and the permutations."""
        permutations = self.permutations(start, k) if aligned else [None] * k
        with self.stage("merge"):
            merged = copy.deepcopy(self.model)
            self.merge(merged, start, permutations)
        with self.stage("save and load"):
            file = self.scratch / "candidate.pt"
            torch.save(merged, file)
            loaded = torch.load(file, weights_only=False)
        with self.stage("evaluation"):
            return self.evaluate(loaded), permutations

    @torch.inference_mode()
    def permutations(self, start: int, k: int) -> list[Tensor]:
        """Find the permutation π of each sublayer of a window to its first one (Eqs. 1 and 2).

        One pass accumulates E[x] and E[xy] for all pairs of sublayers. They are in float64, because
        cancellation in E[xy] - E[x]E[y] changes the permutations in float32.
        """
        outputs: dict[int, Tensor] = {}
        hooks = [
            self.up(self.model, start + i).register_forward_hook(
                lambda _module, _inputs, output, i=i: outputs.update({i: output.flatten(0, -2)})
            )
            for i in range(k)
        ]
        sums: list[Tensor | float] = [0.0] * k
        products: dict[tuple[int, int], Tensor] = {}
        n = 0
        for batch in self.features:
            with self.stage("forward", len(batch["pixel_values"])):
                self.model(pixel_values=batch["pixel_values"])
            with self.stage("covariance", k * k * min(self.n_tokens - n, len(outputs[0]))):
                x = [outputs[i][: self.n_tokens - n].double() for i in range(k)]
                n += len(x[0])
                for i in range(k):
                    sums[i] = sums[i] + x[i].sum(dim=0)
                    for j in range(k):
                        if (i, j) in products:
                            products[i, j].addmm_(x[i].T, x[j])
                        else:
                            products[i, j] = x[i].T @ x[j]
        for hook in hooks:
            hook.remove()
        means = [total / n for total in sums]
        deviations = [(products[i, i].diag() / n - means[i] ** 2).sqrt() for i in range(k)]
        permutations = [torch.arange(len(means[0]))]
        for i in range(1, k):
            with self.stage("assignment"):
                covariance = products[0, i] / n - torch.outer(means[0], means[i])
                correlation = covariance / torch.outer(deviations[0], deviations[i])
                columns = linear_sum_assignment(correlation.numpy(), maximize=True)[1]
                permutations.append(torch.from_numpy(columns))
        return permutations

    @torch.no_grad()
    def merge(self, model: nn.Module, start: int, permutations: Sequence[Tensor | None]) -> None:
        """Replace the sublayers by their average (Eqs. 3 and 4)."""
        k = len(permutations)
        ups = [self.up(model, start + i) for i in range(k)]
        downs = [self.down(model, start + i) for i in range(k)]
        orders = [slice(None) if order is None else order for order in permutations]
        merged = [
            sum(up.weight[order] for up, order in zip(ups, orders, strict=True)) / k,
            sum(up.bias[order] for up, order in zip(ups, orders, strict=True)) / k,
            sum(down.weight[:, order] for down, order in zip(downs, orders, strict=True)) / k,
            sum(down.bias for down in downs) / k,
        ]
        parameters = [nn.Parameter(tensor) for tensor in merged]
        for up, down in zip(ups, downs, strict=True):
            up.weight, up.bias, down.weight, down.bias = parameters

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> float:
        """Compute the mean cross-entropy on the validation images."""
        losses = []
        for batch in self.validation:
            logits = model(pixel_values=batch["pixel_values"]).logits
            losses += cross_entropy(logits, batch["labels"], reduction="none").tolist()
        return sum(losses) / len(losses)

    @staticmethod
    def up(model: nn.Module, layer: int) -> nn.Linear:
        """Look up W_in of a layer."""
        return model.vit.layers[layer].mlp.fc1

    @staticmethod
    def down(model: nn.Module, layer: int) -> nn.Linear:
        """Look up W_out of a layer."""
        return model.vit.layers[layer].mlp.fc2
