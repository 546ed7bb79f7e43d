"""Plot Figure 2: performance against compression, with and without alignment."""

from experiment.figures import figures_2_3, style
from experiment.tables.scores import results_of
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = figures_2_3.points(results_of(job))
        style.save(figures_2_3.draw(points), job, points)
