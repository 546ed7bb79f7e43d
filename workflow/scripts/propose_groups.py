"""Propose groups of sublayers to merge from features alone, beside the searched window."""

import json

from provenance.job import Job
from ffmerge.extensions.clustering import propose
from provenance.csv_files import read_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        selection = {}
        for file in job.input.selections:
            selection |= json.loads(file.read_text())
        proposals = propose(
            [row for file in job.input.alignment for row in read_csv(file)],
            read_csv(job.input.cka),
            selection,
            job.params.sizes,
            job.params.n_layers,
            job.params.anchor,
        )
        job.output.groups.write_text(json.dumps(proposals, indent=2) + "\n")
