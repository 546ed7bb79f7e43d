"""Plot Figure 6: CKA between the outputs of all pairs of self-attention sublayers (Appendix C)."""

from ffmerge.figures import heat_maps, look
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = heat_maps.points(job.input.cka, job.params.tasks, shown="attention")
        look.save(heat_maps.draw(points), job, points)
