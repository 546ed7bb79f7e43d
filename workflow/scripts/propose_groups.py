"""Propose groups of sublayers to merge from features alone, beside the window that was searched."""

import json

from ffmerge.method import groups
from ffmerge.method.clustering import Clusters, aligned_correlation, output_cka
from ffmerge.method.windows import start_of_role
from provenance.csv_files import read_csv
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        n_layers, anchor = job.params.n_layers, job.params.anchor
        aligned = read_csv(job.input.alignment)
        compared = [r for r in read_csv(job.input.cka) if r["sublayer"] == "feed_forward"]
        towers = list(dict.fromkeys(row["tower"] for row in aligned))
        similarities = {
            strategy: {t: read([r for r in rows if r["tower"] == t], n_layers) for t in towers}
            for strategy, read, rows in (
                ("correlation", aligned_correlation, aligned),
                ("cka", output_cka, compared),
            )
        }
        selection = json.loads(job.input.selection.read_text())
        proposals = {}
        for k in job.params.sizes:
            start = start_of_role(selection, k, "best")
            chosen = {"window": groups.window(towers, start, k, anchor)}
            for strategy, similarity in similarities.items():
                removed = dict.fromkeys(towers, k - 1)
                chosen[strategy] = Clusters(similarity, anchor).select(removed)
            proposals[str(k)] = {
                strategy: {t: [list(g.layers) for g in found if g.tower == t] for t in towers}
                for strategy, found in chosen.items()
            }
        job.output.groups.write_text(json.dumps(proposals, indent=2) + "\n")
