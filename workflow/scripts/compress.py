"""Merge the selected feed-forward sublayers into one and store it once (Eqs. 3 and 4)."""

import json

from provenance.job import Job
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.method.permutation import load_permutations
from ffmerge.method.windows import of_role
from ffmerge.models.memory import give_back_large

if __name__ == "__main__":
    give_back_large()  # so that peak memory does not depend on chance
    with Job.from_command_line() as job:
        k = job.params.k
        selection = json.loads(job.input.selection.read_text())
        permutations = load_permutations(*job.input.permutations)
        merge_on_disk(
            job.input.base_model,
            of_role(selection, k, job.params.role, permutations, job.params.anchor),
            permutations if job.params.method == "permute" else None,
            job.output.model,
        )
