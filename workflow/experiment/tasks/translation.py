"""Machine translation (Section 4.3): beam search, sacreBLEU."""

import math
from collections.abc import Iterator, Sequence
from random import Random

from torch import nn
from torch.utils.data import Dataset

from experiment.config.settings import Training
from experiment.evaluation.perplexity import summed_losses
from experiment.tasks.task import ROW, Batch, Columns, Task, longest_first
from ffmerge.evaluation.bleu import corpus_bleu, sentence_counts
from ffmerge.evaluation.metrics import Evaluation
from ffmerge.models.format import IGNORED
from provenance.progress import progress

POOL = 20  # batches among which examples are grouped by length


class Translation(Task):
    """An encoder-decoder that translates sentence by sentence."""

    one_pass = False

    def training_examples(self, training: Training, seed: int) -> Dataset:
        rows = self.rows("train")
        if not training.group_by_length:
            return rows
        pairs = zip(rows[self.settings.source], rows[self.settings.target], strict=True)
        lengths = [len(source) + len(target) for source, target in pairs]  # characters
        return rows.select(grouped_by_length(lengths, training.batch_size, seed))

    def collate(self, examples: list[dict]) -> Batch:
        cut = {"truncation": True, "max_length": self.settings.max_tokens}
        sources = [example[self.settings.source] for example in examples]
        targets = [example[self.settings.target] for example in examples]
        batch = self.tokenizer(sources, padding=True, return_tensors="pt", **cut)
        target = self.tokenizer(text_target=targets, padding=True, return_tensors="pt", **cut)
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, IGNORED)
        return {**{key: batch[key] for key in ("input_ids", "attention_mask")}, "labels": labels}

    def feature_batches(self) -> Iterator[Batch]:
        for batch in self.batches_for_features(self.rows("validation")):
            # selects the features' rows; the causal decoder needs no mask
            batch["decoder_attention_mask"] = (batch["labels"] != IGNORED).long()
            yield batch

    def to_score(self, split: str) -> Iterator[tuple[str, list[int], Batch]]:
        """Batches of sentences of similar length, each with its split and numbers of its rows."""
        rows, size = list(self.limited(split)), getattr(self.settings, split).batch_size
        by_length = longest_first([row[self.settings.source] for row in rows])
        groups = [by_length[start : start + size] for start in range(0, len(rows), size)]
        batches = progress(self.batches_of(rows, groups), len(groups), "translations")
        for chosen, batch in zip(groups, batches, strict=True):
            yield split, chosen, batch

    def scores(self, model: nn.Module, batch: tuple[str, list[int], Batch], device: str) -> Columns:
        split, chosen, tensors = batch
        how = getattr(self.settings, split)
        inputs = {key: value.to(device) for key, value in tensors.items()}
        generated = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            num_beams=how.num_beams,
            max_length=how.max_length,
            do_sample=False,
        )
        logits = model(**inputs).logits  # with teacher forcing
        losses, counts = summed_losses(logits, inputs["labels"], "translation")
        return {
            ROW: chosen,
            "hypothesis": self.tokenizer.batch_decode(generated, skip_special_tokens=True),
            "negative_log_likelihood": losses,
            "n_tokens": counts,
        }

    def evaluation(self, split: str, columns: Columns) -> Evaluation:
        hypotheses = columns["hypothesis"]
        losses, counts = columns["negative_log_likelihood"], columns["n_tokens"]
        references = list(self.limited(split)[self.settings.target])
        score, signature = corpus_bleu(hypotheses, references)
        return Evaluation(
            score=score,
            loss=math.fsum(losses) / sum(counts),
            per_example={
                **sentence_counts(hypotheses, references),
                "negative_log_likelihood": losses,
                "n_tokens": counts,
                "hypothesis": hypotheses,
            },
            details={"signature": signature, "n_sentences": len(references)},
        )


def grouped_by_length(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """Order examples so that each batch has examples of similar length.

    Shuffled examples are sorted within pools of batches, then each pool's batches are shuffled:
    with batches sorted by length, a model would unlearn long sentences during the short ones.
    """
    random = Random(seed)
    order = random.sample(range(len(lengths)), len(lengths))
    grouped = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda i: lengths[i])
        batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        random.shuffle(batches)
        grouped += [i for batch in batches for i in batch]
    return grouped
