"""Plot Figure 2: performance against compression, with and without alignment."""

from ffmerge.figures import look, scores
from ffmerge.job import Job
from ffmerge.tables.results import results_of

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = scores.points(results_of(job))
        look.save(scores.draw(points), job, points)
