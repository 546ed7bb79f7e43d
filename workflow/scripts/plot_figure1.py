"""Plot Figure 1: the method, drawn for the window that was selected in each model."""

from experiment.figures import figure1, style
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        files = zip(job.input.base_models, job.input.selections, strict=True)
        tasks = zip(job.params.tasks.values(), files, strict=True)
        points = [point for task, of_task in tasks for point in figure1.points(task, *of_task)]
        style.save(figure1.draw(points), job, points)
