"""A model of OPUS-MT's layout, from its files to beam search: a pickle and two sentencepieces."""

import json
from io import BytesIO

import pyarrow.parquet as pq
import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer, MarianConfig, MarianMTModel

from experiment.tasks import task_for
from ffmerge.models import checkpoint
from ffmerge.models.pretrained import convert
from provenance.sources import REPOSITORY

DATA = REPOSITORY / "resources/demo/data/translation/validation.parquet"
SIDES = {"source": "zh", "target": "en"}
PIECES = 400


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a repository of OPUS-MT, trained on a few sentences; the weights are random."""
    folder = tmp_path_factory.mktemp("opus-mt")
    rows = pq.read_table(DATA).slice(0, 400).to_pydict()
    vocabulary = ["</s>", "<unk>"]
    for side, column in SIDES.items():
        model = BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(rows[column]),
            model_writer=model,
            vocab_size=PIECES if side == "target" else 1200,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{side}.spm").write_bytes(model.getvalue())
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        vocabulary += [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    vocabulary = [*dict.fromkeys(vocabulary), "<pad>"]
    numbers = {piece: i for i, piece in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False))
    settings = {"source_lang": "zh", "target_lang": "en"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    pad = numbers["<pad>"]
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(numbers), max_position_embeddings=64, encoder_layers=2, decoder_layers=2,
            d_model=16, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
            decoder_attention_heads=2, pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=0,
            forced_eos_token_id=0, activation_function="swish", scale_embedding=True,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(dict(model.state_dict()), folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_beams": 6, "max_length": 64, "bad_words_ids": [[pad]]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_of_opus_mts_layout_translates_as_its_own_tokenizer_says(files, tmp_path):
    convert(files, 2, tmp_path / "ours", tmp_path / "scratch", {})
    scoring = {"num_beams": 3, "max_length": 12, "batch_size": 4, "max_examples": 6}
    settings = {"kind": "translation", **SIDES, "max_tokens": 20, "validation": scoring}
    task = task_for(settings, tmp_path / "ours", {"validation": DATA})
    rows = list(task.limited("validation"))
    batch = task.collate(rows)
    # the source by source.spm, the target by target.spm, both numbered by vocab.json
    numbers = json.loads((files / "vocab.json").read_text())
    for side, ids in (("source", batch["input_ids"]), ("target", batch["labels"])):
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(files / f"{side}.spm"))
        text = rows[0][SIDES[side]]
        expected = [numbers[piece] for piece in pieces.encode(text, out_type=str)][:19]
        assert ids[0].tolist()[: len(expected) + 1] == [*expected, numbers["</s>"]], side
    model = checkpoint.load(tmp_path / "ours")
    result = task.evaluate(model, "validation")
    tokenizer = AutoTokenizer.from_pretrained(files)
    inputs = tokenizer(rows[0]["zh"], return_tensors="pt", truncation=True, max_length=20)
    beams = model.generate(**inputs, num_beams=3, max_length=12, do_sample=False)
    assert result.per_example["hypothesis"][0] == tokenizer.decode(
        beams[0], skip_special_tokens=True
    )
    assert any(result.per_example["hypothesis"])
    assert numbers["<pad>"] not in beams[0, 1:].tolist()  # bad_words_ids of the original
