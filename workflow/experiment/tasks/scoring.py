"""The score of a model with groups of its sublayers merged, before any tuning (Section 3.4)."""

from collections.abc import Sequence

from torch import nn

from experiment.evaluation.metrics import Evaluation
from experiment.tasks import Task
from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import untouched


def score_merged(
    model: nn.Module,
    task: Task,
    groups: Sequence[Group],
    permutations: dict[str, Permutations] | None,
    device: str,
) -> Evaluation:
    """The validation score with these groups merged; the model is left as it was.

    permutations: by tower; None for vanilla.
    """
    with untouched(model):
        merge_in_model(model, groups, permutations)
        return task.evaluate(model, "validation", device)
