"""Plot Figure 3: merging at 1/3 and 1/2 against dropping 1/6 and 1/3 of the layers."""

from ffmerge.figures import look, scores
from ffmerge.job import Job
from ffmerge.tables.results import results_of, write_results

if __name__ == "__main__":
    with Job.from_command_line() as job:
        results = results_of(job)
        write_results(results, job.output.tidy)
        points = scores.points(results)
        look.save(scores.draw(points), job, points)
