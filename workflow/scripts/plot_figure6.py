"""Plot Figure 6: CKA between the outputs of all pairs of self-attention sublayers (Appendix C)."""

from experiment.figures import figures_5_6, style
from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = figures_5_6.points(job.input.cka, job.params.tasks, shown="attention")
        style.save(figures_5_6.draw(points), job, points)
