"""Extract the images and labels of one split from the tar files of ILSVRC 2012."""

from provenance.job import Job, check_digest
from experiment.inputs.ilsvrc2012 import features, read_devkit, training_images, validation_images
from experiment.inputs.parquet import write_shards

ROWS_A_GROUP, ROWS_A_FILE = 100, 5_000  # of about 110 kB each

if __name__ == "__main__":
    with Job.from_command_line() as job:
        if job.params.sha256 is not None:
            check_digest(job.input.archive, job.params.sha256)
        devkit = read_devkit(job.input.devkit)
        images = training_images if job.wildcards.split == "train" else validation_images
        rows = job.progress(images(job.input.archive, devkit))
        schema = features(devkit).arrow_schema
        write_shards(rows, schema, job.output.files, ROWS_A_GROUP, ROWS_A_FILE)
