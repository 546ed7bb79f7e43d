"""Quantize a finished model by LLM.int8(), and measure its size on disk (Table 4)."""

import json

from provenance.job import Job
from experiment.evaluation.storage import storage
from ffmerge.method import quantization
from ffmerge.models import checkpoint

if __name__ == "__main__":
    with Job.from_command_line() as job:
        model = quantization.quantize(checkpoint.load(job.input.model, job.params.device))
        quantization.save(model, job.output.model)
        sizes = storage(job.input.base_model, job.input.model, job.output.model, job.checkpoints)
        job.output.storage.write_text(json.dumps(sizes, indent=2) + "\n")
