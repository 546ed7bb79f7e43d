"""BLEU by sacreBLEU (Section 4.3), from per-sentence counts that sum to the corpus score."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU

N_GRAMS = 4
COUNTS = [
    *(f"correct_{n}" for n in range(1, N_GRAMS + 1)),
    *(f"total_{n}" for n in range(1, N_GRAMS + 1)),
    "hypothesis_length",
    "reference_length",
]


def sentence_counts(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, list[int]]:
    """BLEU's sufficient statistics: n-gram matches, n-gram totals and lengths of each sentence.

    Returns column name (see COUNTS) -> one value a sentence.
    """
    scorer = BLEU(effective_order=True)
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        score = scorer.sentence_score(hypothesis, [reference])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return {name: [row[i] for row in rows] for i, name in enumerate(COUNTS)}


def bleu_from_counts(sums: Sequence[float]) -> float:
    """Corpus BLEU from sentence counts summed in the order of COUNTS."""
    counts = [int(x) for x in sums]
    return BLEU.compute_bleu(
        correct=counts[:N_GRAMS],
        total=counts[N_GRAMS : 2 * N_GRAMS],
        sys_len=counts[-2],
        ref_len=counts[-1],
        smooth_method="exp",
    ).score


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU and sacreBLEU's signature."""
    scorer = BLEU()
    return scorer.corpus_score(list(hypotheses), [list(references)]).score, str(
        scorer.get_signature()
    )
