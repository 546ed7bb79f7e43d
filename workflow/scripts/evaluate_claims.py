"""Test the paper's findings on the per-example scores of this run, and say which hold."""

import csv
from pathlib import Path

import numpy

from ffmerge.claims import about_task, judged
from ffmerge.evidence import Settings, TaskClaims, similarity_claim
from ffmerge.job import Job
from ffmerge.paired_tests import Scored
from ffmerge.paper_reported import read_reported, tolerances
from ffmerge.tables.layout import as_text
from ffmerge.tables.results import read_tests
from ffmerge.variants import BASE, Variant

MARGINS = ("close", "similar", "equal")


def rows_of(file: Path) -> list[dict[str, str]]:
    """A CSV file's rows."""
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


if __name__ == "__main__":
    with Job.from_command_line() as job:
        settings = Settings(job.params.swaps, job.params.confidence, job.params.seed)
        reported = read_reported([*job.input.reported])
        margins = {name: tolerances(reported, name) for name in MARGINS}
        scored: dict[str, dict[str, Scored]] = {task: {} for task in job.params.tasks}
        tests: dict[str, dict[str, dict]] = {task: {} for task in job.params.tasks}
        files = list(zip(job.input.scores, job.input.per_example, strict=True))
        for pair in job.progress(files):
            for task, model, test, columns in read_tests(*([file] for file in pair)):
                tests[task][model] = test
                scored[task][model] = Scored(test, columns, settings.swaps, settings.seed)
        evidence = []
        for (name, task), windows_file, cka_file in zip(
            job.params.tasks.items(), job.input.windows, job.input.cka, strict=True
        ):
            own, metric = tests[name], tests[name][BASE]["metric"]
            untuned = {
                (row["method"], int(row["k"]), int(row["start"])): float(row["score"])
                for row in rows_of(windows_file)
            }
            windows = []
            for model in task["models"]["windows"]:
                variant = Variant.parse(model)
                start = own[model]["merged"][0]["layers"][0]
                windows.append(untuned[variant.method, variant.k, start])
            n_base = own[BASE]["n_parameters"]
            reductions = {
                model: 100 * (1 - test["n_parameters"] / n_base) for model, test in own.items()
            }
            bounds = {margin: of_metric[metric] for margin, of_metric in margins.items()}
            examined = TaskClaims(task["label"], metric, scored[name], bounds, settings)
            evidence += about_task(examined, task["models"], reductions, windows)
            similar: dict[tuple[str, str], list[float]] = {}
            for row in rows_of(cka_file):
                if int(row["i"]) < int(row["j"]):
                    key = row["tower"], row["sublayer"]
                    similar.setdefault(key, []).append(float(row["cka"]))
            for tower in dict.fromkeys(tower for tower, _ in similar):
                ff, attention = (
                    numpy.array(similar[tower, kind]) for kind in ("feed_forward", "attention")
                )
                evidence.append(
                    similarity_claim(f"{task['label']} {tower}", ff, attention, settings)
                )
        rows = list(judged(evidence, settings.confidence))
        with job.output.table.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        shown = [
            {
                "Section": row["section"],
                "Task": row["task"],
                "Claim": row["statement"],
                "On Its Side By": "{on_its_side_by:+.2f} [{low:+.2f}, {high:+.2f}]".format(**row),
                "p (corrected)": f"{row['p_corrected']:.4f}",
                "Verdict": row["verdict"],
            }
            for row in rows
        ]
        job.output.text.write_text(as_text(shown))
