"""Plot Figure 4: the score of every window of the 1/3 setting before tuning."""

from ffmerge.figures import look, untuned
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = untuned.points(job.params.tasks, job.input.windows)
        look.save(untuned.draw(points), job, points)
