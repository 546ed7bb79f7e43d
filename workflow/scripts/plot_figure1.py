"""Plot Figure 1: the method, drawn for the window that was selected in each model."""

from provenance.job import Job
from experiment.figures import figure1, style

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = figure1.points(job.params.tasks, job.input.base_models, job.input.selections)
        style.save(figure1.draw(points), job, points)
