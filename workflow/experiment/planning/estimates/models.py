"""Jobs that run a model: FLOP from shapes, seconds from rates, and the processor's part of them."""

import math
from dataclasses import replace

from experiment.planning.estimates.subject import FLOAT, Estimate, Subject
from experiment.planning.rates import Shape

LINE = {
    "language_modeling": 0.1,
    "image_classification": 30,
    "translation": 300,
    "sentence_retrieval": 30,
}
"""Bytes of a test's table a token, image, sentence or query: a window of text has some 50."""
WITH_VOCABULARY = ("language_modeling", "translation")  # kinds whose models put out logits of it
KEPT = 8  # hidden activations, d_ff wide, in memory at once in a forward pass without gradients


def forward_flop(shape: Shape, positions: float, context: float) -> float:
    """FLOP of a forward pass over `positions` of every tower.

    2 a parameter and position (the head shares the embeddings, counted once), and 4 · context ·
    d_model a layer and position for the two products of attention; its causal half is not saved.
    """
    attention = 4 * context * shape.d_model
    layers = sum(shape.n_layers * (2 * of_layer + attention) for of_layer in shape.layer)
    return positions * (layers + 2 * shape.rest)


def forward_seconds(s: Subject, shape: Shape, batches: float, flop: float, rate: str) -> float:
    """Seconds of `batches` forward passes: as arithmetic, or if that is more, to launch them."""
    launched = batches * shape.n_layers * shape.n_towers * s.rates["layer_forward"]
    return max(flop / s.rates[rate], launched)


def windows_of_text(n_tokens: int, context: int, stride: int) -> int:
    """Windows of `perplexity.sliding_windows`: the first, and one a stride after it."""
    return 1 + math.ceil(max(0, n_tokens - context) / stride)


def scoring(
    s: Subject, model: str, split: str, *, tuned: bool, rate: str = "single_precision"
) -> Estimate:
    """One evaluation of a model on a split.

    Text: windows × context positions. Images: also decoded, one after the other, on the processor.
    Retrieval: a query and a passage each, both counted at their full length, and tokenized before.
    Translation: a batch takes as many steps as its longest hypothesis has tokens; a model that is
    not tuned may never end one, and is counted with `max_length`.
    """
    how, n = getattr(s.task, split), s.n_examples(split)
    shape, weights = s.shape.computed(model), FLOAT * s.shape.stored(model)
    match s.task.kind:
        case "language_modeling":
            n_windows = windows_of_text(n, how.context, how.stride)
            flop = forward_flop(shape, n_windows * how.context, how.context)
            batches = n_windows / how.batch_size
            logits = how.batch_size * (how.stride + 1) * shape.rest / shape.d_model
            positions = how.batch_size * how.context
            return Estimate(
                forward_seconds(s, shape, batches, flop, rate),
                gpu_memory=weights + FLOAT * (KEPT * positions * shape.d_ff + 3 * logits),
            )
        case "image_classification":
            flop = forward_flop(shape, n * s.context, s.context)
            decoding = n / s.rates["images"]
            seconds = forward_seconds(s, shape, n / how.batch_size, flop, rate)
            buffers = FLOAT * KEPT * how.batch_size * s.context * shape.d_ff
            return Estimate(seconds + decoding, decoding, gpu_memory=weights + buffers)
        case "sentence_retrieval":
            n_texts = 2 * n
            flop = forward_flop(shape, n_texts * s.context, s.context)
            tokenizing = n_texts / s.rates["sentences"]
            seconds = forward_seconds(s, shape, n_texts / how.batch_size, flop, rate)
            buffers = FLOAT * KEPT * how.batch_size * s.context * shape.d_ff
            return Estimate(seconds + tokenizing, tokenizing, gpu_memory=weights + buffers)
        case "translation":
            n_tokens = s.rates["translation_tokens"] if tuned else how.max_length
            batches = math.ceil(n / how.batch_size)
            seconds = batches * n_tokens * shape.n_layers * s.rates["layer_token"]
            tokenizing = 2 * n / s.rates["sentences"]
            beams = how.batch_size * how.num_beams
            cached = beams * n_tokens * shape.n_layers * 4 * shape.d_model  # keys, values, twice
            logits = 3 * beams * shape.rest / shape.d_model
            return Estimate(
                seconds + tokenizing, tokenizing, gpu_memory=weights + FLOAT * (cached + logits)
            )


def score_candidates(s: Subject) -> Estimate:
    """Each candidate of the job: merging (not counted), and one evaluation on validation data."""
    names = [
        "base" if method == "base" else f"{method}-k{k}{'' if method == 'drop' else '-first'}-best"
        for method, k, _ in s.job.params["candidates"]
    ]
    runs = [scoring(s, name, "validation", tuned=name == "base") for name in names]
    return Estimate(
        sum(run.seconds for run in runs),
        sum(run.waiting for run in runs),
        memory=2 * s.weights,
        # merging happens in the base model, with the window's own sublayers kept
        gpu_memory=max(run.gpu_memory for run in runs) + s.weights,
    )


def score_test(s: Subject) -> Estimate:
    """One evaluation on the test split, in float32; an int8 model is counted as if it were not."""
    run = scoring(s, s.model, "test", tuned=True)
    return replace(
        run,
        outputs={"per_example": s.n_examples("test") * LINE[s.task.kind]},
        memory=2 * s.weights,
    )


def collect(s: Subject, values: int) -> Estimate:
    """A forward pass over n_tokens positions; `values` float32 numbers a position and layer."""
    shape, a_batch = s.shape, s.task.features.batch_size * s.context
    flop = forward_flop(shape, s.n_tokens, s.context)
    images = s.task.kind == "image_classification"
    waiting = s.n_tokens / s.context / s.rates["images"] if images else 0.0
    has_vocabulary = s.task.kind in WITH_VOCABULARY
    seconds = forward_seconds(s, shape, math.ceil(s.n_tokens / a_batch), flop, "single_precision")
    logits = a_batch * shape.rest / shape.d_model if has_vocabulary else 0
    return Estimate(
        seconds + waiting,
        waiting,
        {"features": feature_bytes(s, values), "outputs": feature_bytes(s, values)},
        memory=2 * s.weights,
        gpu_memory=s.weights + FLOAT * (KEPT * a_batch * shape.d_ff + logits),
    )


def feature_bytes(s: Subject, values: int) -> float:
    """Bytes of a file of features: n_layers · n_tokens · values · 4 of each tower."""
    return s.shape.n_towers * s.shape.n_layers * s.n_tokens * values * FLOAT


def measure_cost(s: Subject) -> Estimate:
    """Forward passes of all its models on one batch, with a round to warm up; all in memory."""
    base = collect(s, s.shape.d_ff)
    rounds, names = s.job.params["rounds"] + 1, s.job.params["models"]
    weights = FLOAT * sum(s.shape.stored(name) for name in names)
    return Estimate(
        rounds * len(names) * base.seconds,
        memory=2 * weights,
        gpu_memory=base.gpu_memory - s.weights + weights,
    )


def quantize(s: Subject) -> Estimate:
    """Linear maps of the layers in int8, the rest in float16; the base model once as float32."""
    n = s.shape.stored(s.model)
    layers = n - s.shape.rest
    files = {"model": layers + 2 * s.shape.rest}
    original = FLOAT * s.shape.parameters
    return Estimate(
        outputs=files, scratch=original, memory=2 * original + s.weights, gpu_memory=s.weights
    )
