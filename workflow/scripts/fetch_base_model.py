"""Fetch a pretrained model at its pinned commit and store it as the project's own."""

from ffmerge.fetch import fetch_files, list_files, matching
from ffmerge.job import Job
from ffmerge.pretrained import convert, wanted

if __name__ == "__main__":
    with Job.from_command_line() as job:
        repository, revision = job.params.repository, job.params.revision
        where = f"{repository} at {revision}"
        listing = list_files(repository, revision, "model")
        top = {name: file for name, file in listing.items() if "/" not in name}
        weights, beside = wanted(list(top))
        chosen = matching(top, ["config.json"], where)
        chosen |= matching(top, weights, where) | matching(top, beside, where)
        files = fetch_files(
            repository, revision, "model", chosen, job.checkpoints, progress=job.progress
        )
        source = {"repository": repository, "revision": revision}
        convert(files, job.params.n_layers, job.output.model, source)
