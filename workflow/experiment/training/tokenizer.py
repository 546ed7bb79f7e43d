"""Byte-pair encodings for the embedded base models, trained on the embedded data."""

from collections.abc import Iterable

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
TEXT_END = "<|endoftext|>"


def byte_level_bpe(lines: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """GPT-2's kind of tokenizer: byte-level BPE without special tokens around a text.

    lines: the training text; vocabulary: number of tokens; context: the model's positions.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[TEXT_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=TEXT_END, eos_token=TEXT_END, model_max_length=context
    )


def shared_bpe(lines: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Marian's kind of tokenizer: one vocabulary for both languages, each sentence closed by </s>.

    lines: sentences of both languages; vocabulary: number of tokens; context: tokens at most.
    """
    bpe = Tokenizer(models.BPE(unk_token=UNKNOWN))
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, END, UNKNOWN], show_progress=False
    )
    bpe.train_from_iterator(lines, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, bpe.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=context,
    )
