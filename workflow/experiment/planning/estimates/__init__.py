"""What one job takes, from shapes and rates: declared arithmetic, an entry a rule.

Seconds, bytes and FLOP (a multiplication and an addition are two). No job has to have run for it.
What all jobs have in common, their start and the reading and writing of files, is in
`experiment.planning.plan`.
"""

from collections.abc import Callable

from experiment.planning.estimates import alignment, files, models, tuning
from experiment.planning.estimates.subject import Estimate, Subject

ESTIMATES: dict[str, Callable[[Subject], Estimate]] = {
    "fetch_dataset": files.fetch_dataset,
    "fetch_archive": files.fetch_archive,
    "unpack_parallel_text": files.unpack_parallel_text,
    "unpack_ilsvrc2012": files.unpack_ilsvrc2012,
    "fetch_base_model": files.fetch_base_model,
    "fetch_package": files.fetch_package,
    "unpack_base_model": files.unpack_base_model,
    "convert_base_model": files.weights_only,
    "collect_features": lambda s: models.collect(s, s.shape.d_ff),
    "collect_outputs": lambda s: models.collect(s, 2 * s.shape.d_model),
    "align_feed_forwards": alignment.align_feed_forwards,
    "compute_cka": alignment.compute_cka,
    "score_windows": models.score_candidates,
    "score_layer_drops": models.score_candidates,
    "select_windows": lambda s: Estimate(),
    "select_layer_drops": lambda s: Estimate(),
    "compress": files.weights_only,
    "drop_layers": files.weights_only,
    "tokenize_text": files.tokenize_text,
    "fine_tune": tuning.fine_tune,
    "quantize": models.quantize,
    "score_test": models.score_test,
    "measure_cost": models.measure_cost,
    "make_table1": files.summarize,
    "make_score_table": files.summarize,
    "make_hyperparameters": files.summarize,
    **{f"plot_figure{n}": files.summarize for n in (1, 4)},
    "plot_scores": files.summarize,
    "plot_scores_and_layer_drops": files.summarize,
    "plot_similarity": files.summarize,
    "compare_with_paper": files.summarize,
    "evaluate_claims": files.summarize,
    "make_report": files.summarize,
}


def estimate(subject: Subject) -> Estimate:
    """What a job takes. Raises ValueError naming a rule that has no entry in `ESTIMATES`."""
    try:
        of_rule = ESTIMATES[subject.job.rule]
    except KeyError:
        raise ValueError(
            f"rule {subject.job.rule} has no estimate: add one to ESTIMATES in "
            "experiment.planning.estimates"
        ) from None
    return of_rule(subject)
