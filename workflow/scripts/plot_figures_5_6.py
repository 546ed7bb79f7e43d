"""Plot Figure 5 or 6: CKA of all pairs of sublayers, feed-forward or attention (Section 5.5)."""

from provenance.job import Job
from experiment.figures import figures_5_6, style

if __name__ == "__main__":
    with Job.from_command_line() as job:
        shown = figures_5_6.SHOWN[int(job.wildcards.n)]
        points = figures_5_6.points(job.input.cka, job.params.tasks, shown)
        style.save(figures_5_6.draw(points), job, points)
