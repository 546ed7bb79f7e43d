"""Select the best window of each ratio by its validation score (Section 3.4)."""

import json

from provenance.job import Job
from ffmerge.evaluation.metrics import METRICS
from ffmerge.method.windows import select_windows
from provenance.csv_files import read_csv, write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        rows = [row for file in job.input.scores for row in read_csv(file)]
        rows.sort(key=lambda row: (row["method"], int(row["k"]), int(row["start"])))
        if hasattr(job.output, "scores"):
            write_csv(rows, job.output.scores)
        else:  # of one ratio, by one method, of all that the files may hold
            chosen = job.params.method, str(job.params.k)
            rows = [row for row in rows if (row["method"], row["k"]) == chosen]
        scores = {}
        for row in rows:
            if row["k"] == "0":
                continue  # the uncompressed model, for comparison
            by_start = scores.setdefault(int(row["k"]), {}).setdefault(row["method"], {})
            by_start[int(row["start"])] = float(row["score"])
        selection = select_windows(
            scores,
            job.params.n_layers,
            METRICS[job.params.metric].better,
            job.params.starts,
            job.params.n_random,
            job.params.seed,
            getattr(job.params, "only", None),
        )
        job.output.selection.write_text(json.dumps(selection, indent=2) + "\n")
