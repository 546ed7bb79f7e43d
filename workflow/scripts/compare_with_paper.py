"""Set every number that the paper prints beside the one recomputed here."""

import csv
import json

from ffmerge.comparison import Recomputed, compared, settings_of, summary
from ffmerge.job import Job
from ffmerge.paper_reported import read_reported
from ffmerge.tables.hyperparameters import shared_settings
from ffmerge.tables.layout import as_text
from ffmerge.tables.results import read_results

if __name__ == "__main__":
    with Job.from_command_line() as job:
        reported = read_reported(job.input.reported)
        repositories = {row["task"]: row["repository"] for row in reported["models"]}
        results = read_results(
            job.input.scores,
            job.input.per_example,
            job.params.tasks,
            job.params.intervals,
            job.params.seed,
        )
        records: dict[str, list[dict]] = {task: [] for task in job.params.tasks}
        for file in job.input.records:
            records[file.parts[-4]].append(json.loads(file.read_text()))
        tasks = {}
        for (name, task), base_model, storage in zip(
            job.params.tasks.items(), job.input.base_models, job.input.storage, strict=True
        ):
            hyperparameters = shared_settings(records[name])
            architecture = json.loads((base_model / "config.json").read_text())
            tasks[name] = Recomputed(
                comparable=task["repository"] == repositories.get(name),
                results=[result for result in results if result.task == name],
                ratios=task["ratios"],
                storage=json.loads(storage.read_text()),
                hyperparameters=hyperparameters,
                settings=settings_of(task["settings"], architecture, hyperparameters),
            )
        rows = list(compared(reported, tasks))
        with job.output.table.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        counts = [{"Verdict": verdict, "Numbers": str(n)} for verdict, n in summary(rows).items()]
        job.output.text.write_text(as_text(counts))
