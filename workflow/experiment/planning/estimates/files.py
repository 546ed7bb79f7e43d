"""Jobs that fetch, convert, tokenize, or summarize: what they take is mostly their files."""

from experiment.planning.estimates.subject import Estimate, Subject


def fetch_dataset(s: Subject) -> Estimate:
    """A download; and the first reader's import into the cache of `datasets`, which is once."""
    return _split(s, s.split(s.job.wildcards["split"])["bytes"] / s.rates["download"])


def unpack_parallel_text(s: Subject) -> Estimate:
    """Every pair to Parquet, and the first reader's import."""
    return _split(s, s.split(s.job.wildcards["split"])["examples"] / s.rates["pairs"])


def unpack_ilsvrc2012(s: Subject) -> Estimate:
    """Images as they are to Parquet (read and written like any file), and the first import."""
    return _split(s, s.split(s.job.wildcards["split"])["bytes"] / s.rates["read"])


def _split(s: Subject, seconds: float) -> Estimate:
    held = s.split(s.job.wildcards["split"])
    imported = held["cache_bytes"] / s.rates["import"]
    return Estimate(seconds + imported, outputs={"files": held["bytes"]}, cache=held["cache_bytes"])


def fetch_archive(s: Subject) -> Estimate:
    """A download."""
    size = s.split("archive")["bytes"]
    return Estimate(size / s.rates["download"], outputs={"archive": size})


def fetch_base_model(s: Subject) -> Estimate:
    """A download; weights counted as float32."""
    return Estimate(s.weights / s.rates["download"], outputs={"files": s.weights}, memory=s.weights)


def fetch_package(s: Subject) -> Estimate:
    """A download, of a size that nobody has told: not counted."""
    return Estimate()


def unpack_base_model(s: Subject) -> Estimate:
    """Weights as they are in the package, counted as float32, in memory once."""
    return Estimate(outputs={"files": s.weights}, memory=s.weights)


def weights_only(s: Subject) -> Estimate:
    """Tensors read, changed a little, and written as float32."""
    return Estimate(outputs={"model": s.weights}, memory=3 * s.weights)


def tokenize_text(s: Subject) -> Estimate:
    """All tokens of the training split, stored as int32."""
    n = s.split("train")["examples"]
    return Estimate(n / s.rates["text_tokens"], outputs={"tokens": 4 * n}, memory=2 * 4 * n)


def summarize(s: Subject) -> Estimate:
    """A table or a figure: an interval, or a paired test, of each model's test that it reads."""
    n_tests = sum(path.endswith("/test.csv") for path in s.job.inputs.get("per_example", []))
    return Estimate(n_tests * s.rates["test_of_a_model"])
