"""Which files of a repository or package make up a model."""

from fnmatch import fnmatchcase

from experiment.inputs.fetch import File, matching
from ffmerge.models.format import BESIDE, PICKLES, SAFETENSORS


def model_files(listing: dict[str, File], where: str) -> dict[str, File]:
    """What of a model's files is wanted: weights, configuration, tokenizer or processor.

    Safetensors where there are any, else pickled weights, which `ffmerge.models.pretrained`
    converts. Other formats and whatever is in a folder are left out.
    Raises ValueError if there are no weights or no configuration.
    """
    top = {name: file for name, file in listing.items() if "/" not in name}
    safe = any(fnmatchcase(name, SAFETENSORS) for name in top)
    return {
        **matching(top, ["config.json"], where),
        **matching(top, [SAFETENSORS if safe else PICKLES], where),
        **matching(top, BESIDE, where),
    }
