"""Kinds of task behind one interface: data in, batches, features' inputs, losses and scores out.

Three are the paper's; the fourth is for encoders of sentences.
"""

from pathlib import Path

from ffmerge import config
from ffmerge.tasks.task import Task


def task_for(settings: config.TaskBase, base_model: Path, data: dict[str, Path]) -> Task:
    """The task that `settings.kind` names; imports only what that task needs.

    base_model: directory that holds the tokenizer or image processor.
    data: split (`train`, `validation`, `test`) -> Parquet file or pattern.
    """
    match settings.kind:
        case "language_modeling":
            from ffmerge.tasks.language_modeling import LanguageModeling as kind
        case "image_classification":
            from ffmerge.tasks.image_classification import ImageClassification as kind
        case "translation":
            from ffmerge.tasks.translation import Translation as kind
        case "sentence_retrieval":
            from ffmerge.tasks.sentence_retrieval import SentenceRetrieval as kind
    return kind(settings, base_model, data)
