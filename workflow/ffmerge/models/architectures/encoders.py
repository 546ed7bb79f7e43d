"""Encoders of text."""

from ffmerge.models.architectures.entry import Architecture, FeedForward, one_tower

_BERT = FeedForward(
    layers="encoder.layer.*",
    up="intermediate.dense",
    down="output.dense",
    attention="attention.output.dense",
)

ENCODERS: dict[str, Architecture] = {
    "bert": one_tower("bert", "encoder", _BERT),
    "roberta": one_tower("roberta", "encoder", _BERT),
    "xlm-roberta": one_tower("roberta", "encoder", _BERT),
    "camembert": one_tower("roberta", "encoder", _BERT),
    "electra": one_tower("electra", "encoder", _BERT),
    "deberta": one_tower("deberta", "encoder", _BERT),
    "deberta-v2": one_tower("deberta", "encoder", _BERT),  # DeBERTa-v3 and mDeBERTa too
    "distilbert": one_tower(
        "distilbert",
        "encoder",
        FeedForward(
            layers="transformer.layer.*",
            up="ffn.lin1",
            down="ffn.lin2",
            attention="attention.out_lin",
            count="n_layers",
        ),
    ),
}
