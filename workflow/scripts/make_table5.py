"""Make Table 5 and the tidy file with every number of it, unrounded and with its interval."""

import csv
import json

from ffmerge.evaluation import METRICS
from ffmerge.intervals import bootstrap_interval
from ffmerge.job import Job
from ffmerge.table5 import COLUMNS, Result, as_text, table5
from ffmerge.variants import BASE, Variant

if __name__ == "__main__":
    with Job.from_command_line() as job:
        tasks, options = job.params.tasks, job.params.intervals
        results, base_parameters = [], {}
        files = zip(job.input.scores, job.input.per_example, strict=True)
        for score_file, per_example_file in job.progress(list(files)):
            task, _, variant = score_file.parts[-4:-1]
            test = json.loads(score_file.read_text())
            if variant == BASE:
                base_parameters[task] = test["n_parameters"]
            if variant == BASE and tasks[task]["base"] != BASE:
                continue  # its size is needed, its score is not in the table
            with per_example_file.open(newline="") as file:
                rows = list(csv.DictReader(file))
            low, high = bootstrap_interval(
                test["metric"],
                {name: [row[name] for row in rows] for name in rows[0]},
                options["resamples"],
                options["confidence"],
                job.params.seed,
                test.get("average"),
            )
            window = test["merged"][0]["layers"] if test["merged"] else None
            chosen = Variant.parse(variant) if window else None
            results.append(
                Result(
                    task=task,
                    model=tasks[task]["label"],
                    metric=test["metric"],
                    variant=variant,
                    method=chosen.method if chosen else None,
                    k=chosen.k if chosen else None,
                    first_layer=window[0] if window else None,
                    last_layer=window[-1] if window else None,
                    n_towers=max(1, len(test["merged"])),
                    sublayers_removed=test["n_sublayers_removed"],
                    sublayers=test["n_sublayers"],
                    score=test["score"],
                    low=low,
                    high=high,
                    loss=test["loss"],
                    n_parameters=test["n_parameters"],
                    reduction_percent=100 * (1 - test["n_parameters"] / base_parameters[task]),
                )
            )
        rows = table5(results, {name: METRICS[task["kind"]] for name, task in tasks.items()})
        with job.output.table.open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        with job.output.tidy.open("w", newline="") as file:
            table = csv.DictWriter(file, list(results[0].as_row()))
            table.writeheader()
            table.writerows(result.as_row() for result in results)
        job.output.text.write_text(as_text(rows))
