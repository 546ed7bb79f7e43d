"""Make Table 1: what each kind of compression needs and saves, with what was measured."""

import json

from ffmerge.evaluation import metric_named
from ffmerge.job import Job
from ffmerge.tables.layout import read_csv, write_table
from ffmerge.tables.table1 import measured, table1

if __name__ == "__main__":
    with Job.from_command_line() as job:
        costs: dict[str, dict] = {}
        untuned: dict[str, dict] = {}
        tuned: dict[str, dict] = {}
        tests: dict[str, dict] = {}
        for file in job.input.costs:
            costs[file.parent.name] = {
                row["model"]: {key: float(row[key]) for key in ("ratio", "weight_bytes")}
                for row in read_csv(file)
            }
        for file in job.input.untuned:
            for row in read_csv(file):
                window = row["method"], int(row["k"]), int(row["start"])
                untuned.setdefault(file.parent.name, {})[window] = float(row["score"])
        for file in job.input.tests:
            task, _, model = file.parts[-4:-1]
            tests.setdefault(task, {})[model] = json.loads(file.read_text())
        for file in job.input.curves:
            task, _, model = file.parts[-4:-1]
            metric = metric_named(next(iter(tests[task].values()))["metric"])
            scores = [float(row["score"]) for row in read_csv(file) if row["score"]]
            tuned.setdefault(task, {})[model] = metric.best(scores)
        entries = []
        for name, task in job.params.tasks.items():
            entries += measured(
                task["label"],
                task["models"],
                costs[name],
                untuned[name],
                tuned[name],
                tests[name],
            )
        write_table(table1(entries), job.output.table, job.output.text)
