"""Plot Figure 1: the method, drawn for the window that was selected in each model."""

import json

from ffmerge.architectures import towers
from ffmerge.figures import look, overview
from ffmerge.figures.overview_panel import Window
from ffmerge.job import Job
from ffmerge.windows import anchor_layer, start_of_role

if __name__ == "__main__":
    with Job.from_command_line() as job:
        windows = []
        for base_model, selection, task in zip(
            job.input.base_models, job.input.selections, job.params.tasks.values(), strict=True
        ):
            k = task["k"]
            start = start_of_role(json.loads(selection.read_text()), k, "best")
            names = towers(json.loads((base_model / "config.json").read_text())["model_type"])
            for name in names:
                title = f"{task['label']} {name}" if len(names) > 1 else task["label"]
                anchor = anchor_layer(start, k, task["anchor"])
                windows.append(Window(title, task["n_layers"], start, k, anchor))
        look.save(overview.draw(windows), job.output.pdf, job.output.png)
