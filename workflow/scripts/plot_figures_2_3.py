"""Plot Figure 2 or 3: test scores of models against the parameters removed."""

from provenance.job import Job
from experiment.figures import figures_2_3, style
from experiment.tables.scores import read_results, write_results

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = read_results(job)
        if hasattr(job.output, "tidy"):
            write_results(results, job.output.tidy)
        points = figures_2_3.points(results)
        style.save(figures_2_3.draw(points), job, points)
