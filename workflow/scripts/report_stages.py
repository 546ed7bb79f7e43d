"""Report the time, memory and disk of each stage of a run, and whether it kept its limits."""

import json
from pathlib import Path

from provenance.job import Job
from experiment.rehearsal import Stage, alignment_row, rows, size_on_disk, stages_text
from ffmerge.models.format import WEIGHTS
from provenance.csv_files import write_csv
from provenance.record import read_record

if __name__ == "__main__":
    with Job.from_command_line() as job:
        stages = [Stage.of(read_record(file)) for file in job.input.records]
        base_models = zip(job.params.tasks, job.params.base_models, strict=True)
        weights = {task: size_on_disk(Path(directory) / WEIGHTS) for task, directory in base_models}
        table = rows(stages, weights)
        aligned = {s.task: s.seconds for s in stages if s.rule == "align_feed_forwards"}
        alignment = [
            alignment_row(task, aligned[task], json.loads(file.read_text()))
            for task, file in zip(job.params.tasks, job.input.alone, strict=True)
        ]
        write_csv(table, job.output.table)
        write_csv(alignment, job.output.alignment)
        job.output.text.write_text(stages_text(table, alignment))
