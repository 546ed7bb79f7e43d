"""Plot Figure 4: the score of every window of the 1/3 setting before tuning."""

from provenance.job import Job
from experiment.figures import figure4, style

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = figure4.points(job.params.tasks, job.input.windows)
        style.save(figure4.draw(points), job, points)
