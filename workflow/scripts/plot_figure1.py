"""Plot Figure 1: the method, drawn for the window that was selected in each model."""

from ffmerge.figures import look, overview
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        files = zip(job.input.base_models, job.input.selections, strict=True)
        tasks = zip(job.params.tasks.values(), files, strict=True)
        points = [point for task, of_task in tasks for point in overview.points(task, *of_task)]
        look.save(overview.draw(points), job, points)
