"""Leave the selected window of layers out of the base model (Section 4.4)."""

import json

from provenance.job import Job
from ffmerge.method.layer_drop import drop_on_disk
from ffmerge.method.windows import layers_of, start_of_role

if __name__ == "__main__":
    with Job.from_command_line() as job:
        k = job.params.k
        start = start_of_role(json.loads(job.input.selection.read_text()), k, job.params.role)
        drop_on_disk(job.input.base_model, layers_of(start, k), job.output.model)
