"""Plot Figure 5: CKA between the outputs of all pairs of feed-forward sublayers (Section 5.5)."""

from ffmerge.figures import heat_maps, look
from ffmerge.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        points = heat_maps.points(job.input.cka, job.params.tasks, shown="feed_forward")
        look.save(heat_maps.draw(points), job, points)
