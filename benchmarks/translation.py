"""Score translations in batches, against one `generate` call for each sentence."""

from dataclasses import dataclass

import torch

import subjects
from ffmerge.evaluation.bleu import corpus_bleu
from timing import Measured, compared, in_turns


@dataclass(frozen=True)
class Size:
    """How many sentences of the demo's test split to translate, and how often."""

    n_sentences: int
    rounds: int


FULL = Size(200, 3)
TOY = Size(12, 1)


def measure(size: Size = FULL) -> list[Measured]:
    """Measure one line: batches of similar length against single sentences in the file's order."""
    task = subjects.demo_task("marian", test={"max_examples": size.n_sentences})
    model = subjects.demo_model("marian").eval()
    samples = in_turns(
        size.rounds,
        library=lambda: task.evaluate(model, "test").per_example["hypothesis"],
        one_by_one=lambda: one_by_one(task, model, size.n_sentences),
    )
    for ours, theirs in zip(samples["library"], samples["one_by_one"], strict=True):
        assert ours.returned == theirs.returned
    return [
        compared(
            f"translation of {size.n_sentences} sentences: one by one / library",
            samples["one_by_one"],
            samples["library"],
            ("at least", 1),
        )
    ]


@torch.inference_mode()
def one_by_one(task, model, n_sentences: int) -> list[str]:
    """Translate and score as in the example of transformers' documentation."""
    how, settings = task.settings.test, task.settings
    rows = task.rows("test").select(range(n_sentences))
    hypotheses = []
    for row in rows:
        inputs = task.tokenizer(
            row[settings.source],
            return_tensors="pt",
            truncation=True,
            max_length=settings.max_tokens,
        )
        generated = model.generate(
            **inputs, num_beams=how.num_beams, max_length=how.max_length, do_sample=False
        )
        hypotheses.append(task.tokenizer.decode(generated[0], skip_special_tokens=True))
    corpus_bleu(hypotheses, [row[settings.target] for row in rows])
    return hypotheses
