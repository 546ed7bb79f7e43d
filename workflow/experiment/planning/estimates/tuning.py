"""Recovery fine-tuning: nearly all of the hours, and of the disk while it runs."""

import math

from experiment.planning.estimates.models import WITH_VOCABULARY, forward_flop, scoring
from experiment.planning.estimates.subject import FLOAT, Estimate, Subject
from experiment.planning.rates import Shape

ADAM = 12  # bytes a parameter of a checkpoint: the weight and AdamW's two moments
TRAINED = 18  # bytes a parameter on a GPU: weight, gradient, two moments, a float16 copy
LOGIT = 12  # bytes a logit, see activation_bytes
CHECKPOINTS = 28  # bytes a parameter on disk: the last, the one being written, the best weights


def fine_tune(s: Subject) -> Estimate:
    """All steps, with a validation and a checkpoint every so often.

    A step is 3 forward passes (backward is two) and the optimizer's traffic, or the launches, and
    before it the processor's part: nobody prepares a batch while the GPU works on another one. Each
    of several GPUs, and the core beside it, has its share of the batch.
    """
    tuning, shape, stored = s.task.fine_tuning, s.shape.computed(s.model), s.weights / FLOAT
    examples = tuning.batch_size / max(1, s.job.n_gpus)
    texts = 2 if s.task.kind == "sentence_retrieval" else 1  # of an example: query and passage
    positions = examples * texts * s.context
    processor = {
        "language_modeling": 0.0,  # its tokens are stored
        "image_classification": examples / s.rates["images"],
        "translation": 2 * examples / s.rates["sentences"],
        "sentence_retrieval": 2 * examples / s.rates["sentences"],
    }[s.task.kind]
    rate = "single_precision" if tuning.precision == "fp32" else "mixed_precision"
    arithmetic = 3 * forward_flop(shape, positions, s.context) / s.rates[rate]
    traffic = stored * s.rates["step_traffic"] / s.rates["gpu_memory_bandwidth"]
    launches = shape.n_layers * shape.n_towers * s.rates["layer_step"]
    step = max(arithmetic + traffic, launches)
    n_evaluations = math.ceil(tuning.max_steps / tuning.evaluate_every)
    validation = scoring(s, s.model, "validation", tuned=True, rate=rate)
    saving = ADAM * stored / s.rates["write"]
    waiting = tuning.max_steps * processor + n_evaluations * (validation.waiting + saving)
    on_gpu = tuning.max_steps * step + n_evaluations * (validation.seconds - validation.waiting)
    return Estimate(
        on_gpu + waiting,
        waiting,
        outputs={"model": s.weights},
        scratch=CHECKPOINTS * stored,
        memory=2 * s.weights,
        gpu_memory=TRAINED * stored + activation_bytes(s, shape, positions),
    )


def activation_bytes(s: Subject, shape: Shape, positions: float) -> float:
    """GPU memory of what backward needs: in each layer, and of text the logits of every position.

    A logit is there in float16 as computed, in float32 for the loss, and both have gradients.
    """
    layers = positions * shape.n_layers * shape.n_towers * shape.d_model * s.rates["activations"]
    has_vocabulary = s.task.kind in WITH_VOCABULARY
    return layers + has_vocabulary * LOGIT * positions * shape.rest / shape.d_model
