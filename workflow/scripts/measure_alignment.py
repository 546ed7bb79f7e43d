"""Time the steps of aligning feed-forward sublayers, each alone, on a sample of the pairs."""

import json
from functools import partial

from provenance.job import Job
from experiment.alignment_steps import sample, steps_alone
from ffmerge.method.features import Features

if __name__ == "__main__":
    with Job.from_command_line() as job:
        features = Features(job.input.features)
        towers = features.towers()
        tower = next(iter(towers))
        layer = partial(features.layer, tower)
        pairs = [tuple(pair) for pair in job.params.pairs]
        chosen = sample(pairs, job.params.n_pairs)
        n_tokens, d_ff = layer(0).shape
        measured = {
            "n_tokens": n_tokens,
            "d_ff": d_ff,
            "n_pairs": len(pairs) * len(towers),
            "n_measured": len(chosen),
            "threads": job.threads,
            "seconds_a_pair": steps_alone(layer, chosen, job.threads),
        }
        job.output.alone.write_text(json.dumps(measured, indent=2) + "\n")
