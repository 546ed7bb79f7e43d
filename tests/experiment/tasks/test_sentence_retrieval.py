"""Sentence retrieval: pairs out of running text, embeddings, scores, and training without labels.

The example of a model of one's own, config/examples/minilm.yaml, is in test_own_task.py.
"""

import math
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from experiment.base_model import shared_bpe
from experiment.config.run import validated
from experiment.config.settings import Training
from experiment.config.tasks import KINDS, READING, SCORING, TrainedFromScratch
from experiment.evaluation.retrieval import inverse_cloze, sentences
from experiment.inputs.model_files import model_in_package
from experiment.tasks import task_for
from experiment.tasks.sentence_retrieval import contrastive_losses
from ffmerge.evaluation.accuracy import accuracy, sentence_embeddings
from ffmerge.evaluation.metrics import METRICS
from ffmerge.models import checkpoint
from ffmerge.training.trainer import train
from provenance.sources import REPOSITORY

PARAGRAPHS = [
    "The river rises in the hills. That river flows through three towns. At last the river ends.",
    "Bread is made of flour and salt. Good bread needs time to rest. A baker sells bread at dawn.",
    "A train leaves the city at noon. Nobody waits for the train. That train is never late.",
    "Stars are born in clouds of gas. All stars shine for very long. In the end the stars fade.",
    "The court heard both sides today. A judge leads the court. Much is asked of such a court.",
    "Wheat is sown in autumn or spring. Rain lets the wheat grow. The price of wheat follows.",
]
SHORT = ["Yes. No. Perhaps.", "One sentence of quite a few words but nothing else beside it."]
ROUNDING = 1e-5  # of float32 states that another padding adds up in another order


@pytest.fixture
def encoder():
    """A BERT without a head, with random weights that tell texts apart."""
    torch.manual_seed(0)
    model = checkpoint.from_scratch(
        {
            "model_type": "bert",
            "architectures": ["BertModel"],
            "vocab_size": 200,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    )
    return model.eval()


@pytest.fixture
def task(tmp_path):
    """task(batch_size=…, **settings): of the paragraphs above in every split, two too short."""
    shared_bpe(PARAGRAPHS, 200, 64).save_pretrained(tmp_path / "base")
    rows = pa.table({"text": [SHORT[0], *PARAGRAPHS, SHORT[1]]})
    pq.write_table(rows, tmp_path / "text.parquet")

    def made(batch_size: int = 4, **changes):
        scored = {"batch_size": batch_size, "max_examples": changes.pop("max_examples", None)}
        parts = {
            "kind": "sentence_retrieval",
            "min_words": 3,
            "max_tokens": 64,
            "pooling": "mean",
            "temperature": 0.1,
            "features": {"n_tokens": 10, "batch_size": 4},
            "validation": scored,
            "test": scored,
        }
        data = dict.fromkeys(("train", "validation", "test"), tmp_path / "text.parquet")
        return task_for(parts | changes, tmp_path / "base", data)

    return made


# --- queries and passages -------------------------------------------------------------------------


def test_a_full_stop_after_an_abbreviation_or_initial_ends_no_sentence():
    text = "Mr. Smith met J. K. Jones in St. Louis at 3.30 p.m. on Monday. Was it late? It was!"
    assert sentences(text) == [
        "Mr. Smith met J. K. Jones in St. Louis at 3.30 p.m. on Monday.",
        "Was it late?",
        "It was!",
    ]


@pytest.mark.parametrize("paragraph", PARAGRAPHS)
def test_a_query_is_a_sentence_and_its_passage_the_others_in_order(paragraph):
    query, passage = inverse_cloze(paragraph, 3)
    parts = sentences(paragraph)
    assert query in parts
    assert passage == " ".join(part for part in parts if part != query)


def test_the_query_is_not_always_the_first_sentence():
    places = {sentences(text).index(inverse_cloze(text, 3).query) for text in PARAGRAPHS}
    assert len(places) > 1


def test_queries_and_passages_have_the_minimum_length():
    assert all(inverse_cloze(text, 3) is None for text in SHORT)
    text = "Never. Five words are in here. And another five in here."
    for min_words, fits in ((5, True), (6, False)):
        pair = inverse_cloze(text, min_words)
        assert (pair is not None) is fits
    assert inverse_cloze(text, 5).query != "Never."


def test_a_split_keeps_the_long_paragraphs_in_order_up_to_the_limit(task):
    pairs = task().pairs("test")
    assert [pairs[i] for i in range(len(pairs))] == [inverse_cloze(t, 3) for t in PARAGRAPHS]
    assert len(task().pairs("test", 4)) == 4
    assert task(max_examples=4).evaluate(_Words(), "test").details == {"n_passages": 4}


def test_text_without_a_long_enough_paragraph_is_an_error(task):
    with pytest.raises(ValueError, match=r"none of 8 paragraphs .* min_words = 50"):
        task(min_words=50).pairs("test")


# --- embeddings and scores ------------------------------------------------------------------------


def test_an_embedding_is_a_unit_vector_of_the_mean_or_the_first_state():
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 3.0], [50.0, 70.0]]])
    mask = torch.tensor([[1, 1, 0]])
    mean = sentence_embeddings(hidden, mask, "mean")[0].tolist()
    assert mean == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])
    assert sentence_embeddings(hidden, mask, "cls")[0].tolist() == [1.0, 0.0]


def test_a_contrastive_loss_is_the_negative_logarithm_of_the_own_passages_share():
    similarities = torch.tensor([[0.9, 0.1, -0.3], [0.2, 0.4, 0.8]])
    losses = contrastive_losses(similarities, torch.tensor([0, 1]), temperature=0.5)
    for row, own, loss in zip(similarities.tolist(), (0, 1), losses.tolist(), strict=True):
        shares = [math.exp(s / 0.5) for s in row]
        assert loss == pytest.approx(-math.log(shares[own] / sum(shares)), abs=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_score_is_that_of_comparing_every_query_with_every_passage(task, encoder, pooling):
    """One text at a time, so without padding; cosines and ranks by hand."""
    own = task(pooling=pooling)
    result = own.evaluate(encoder, "test")

    def embedded(text: str) -> torch.Tensor:
        ids = own.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = encoder(input_ids=ids).last_hidden_state[0]
        return states.mean(dim=0) if pooling == "mean" else states[0]

    pairs = [inverse_cloze(text, 3) for text in PARAGRAPHS]
    passages = [embedded(pair.passage) for pair in pairs]
    correct, losses = [], []
    for i, pair in enumerate(pairs):
        query = embedded(pair.query)
        cosines = [torch.cosine_similarity(query, p, dim=0).item() for p in passages]
        correct.append(int(max(range(len(cosines)), key=cosines.__getitem__) == i))
        total = sum(math.exp(cosine / 0.1) for cosine in cosines)
        losses.append(-math.log(math.exp(cosines[i] / 0.1) / total))
    assert 0 < sum(correct) < len(correct), "says nothing if all are found, or none"
    assert result.per_example["correct"] == correct
    assert result.score == accuracy(correct)
    # cosines differ by rounding, and a temperature of 0.1 makes ten times as much of it
    assert result.per_example["negative_log_likelihood"] == pytest.approx(losses, abs=1e-4)
    assert result.loss == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def embeddings(own, encoder, texts):
    with torch.inference_mode():
        return own._embedded(encoder, own._tokenized(texts))


def embeddings_alone(own, encoder, texts):
    return torch.cat([embeddings(own, encoder, [text]) for text in texts])


def test_a_text_has_the_same_embedding_alone_and_padded_among_longer_ones(task, encoder):
    texts = [*SHORT, *PARAGRAPHS]
    together, alone = embeddings(task(), encoder, texts), embeddings_alone(task(), encoder, texts)
    assert torch.allclose(together, alone, atol=ROUNDING)
    assert together.norm(dim=1).tolist() == pytest.approx([1.0] * len(texts), abs=ROUNDING)


def test_the_score_is_reproducible_and_the_same_at_every_batch_size(task, encoder):
    first = task(batch_size=4).evaluate(encoder, "test")
    assert task(batch_size=4).evaluate(encoder, "test").per_example == first.per_example
    for batch_size in (1, 100):
        other = task(batch_size=batch_size).evaluate(encoder, "test")
        assert other.per_example["correct"] == first.per_example["correct"]
        assert other.loss == pytest.approx(first.loss, abs=1e-4)


def test_a_query_finds_its_passage_although_others_have_the_same_text(task, encoder, tmp_path):
    once = task().evaluate(encoder, "test").per_example["correct"]
    folder = tmp_path / "twice"
    folder.mkdir()
    pq.write_table(pa.table({"text": PARAGRAPHS * 2}), folder / "text.parquet")
    own = task(batch_size=5)
    own.data = dict.fromkeys(own.data, folder)
    assert own.evaluate(encoder, "test").per_example["correct"] == once * 2
    assert 0 < sum(once) < len(once)


class _Words(torch.nn.Module):
    """An encoder that knows nothing but which tokens a text has: it finds passages all the same."""

    def forward(self, input_ids, attention_mask):
        class States:
            last_hidden_state = torch.nn.functional.one_hot(input_ids, 200).float()

        return States()


def test_words_shared_by_query_and_passage_lead_to_the_passage(task):
    assert task().evaluate(_Words(), "test").score > 100 / len(PARAGRAPHS)


# --- training and features ------------------------------------------------------------------------


def test_the_training_loss_is_that_of_the_batchs_own_passages(task, encoder):
    own = task()
    pairs = [inverse_cloze(text, 3) for text in PARAGRAPHS[:4]]
    vectors = embeddings_alone(own, encoder, [text for pair in pairs for text in pair])
    similarities = vectors[0::2] @ vectors[1::2].T
    expected = contrastive_losses(similarities, torch.arange(4), 0.1).mean().item()
    loss = own.loss(encoder, own.collate(pairs))
    # as above: rounding of cosines, over a temperature of 0.1
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    loss.backward()
    assert all(layer.output.dense.weight.grad.norm() > 0 for layer in encoder.encoder.layer)


@pytest.mark.long
def test_training_teaches_a_model_without_a_head_to_find_passages(task, encoder, tmp_path):
    training = Training(
        learning_rate=5e-3,
        schedule="constant",
        batch_size=6,
        max_steps=30,
        evaluate_every=30,
    )
    before = task().evaluate(encoder, "validation")
    curve = train(encoder, task(), training, tmp_path / "checkpoints", seed=1)
    after = task().evaluate(encoder, "validation")
    assert after.score > before.score
    assert after.loss < before.loss / 2
    assert curve[-1]["score"] == after.score


def test_features_are_of_queries_and_passages_without_padding(task, encoder):
    from ffmerge.method.features import Features, collect_features

    own = task()
    n_tokens = sum(int(batch["attention_mask"].sum()) for batch in own.feature_batches())
    texts = [text for t in PARAGRAPHS for text in inverse_cloze(t, 3)]
    assert n_tokens == sum(len(own.tokenizer(text)["input_ids"]) for text in texts)
    file = own.base_model / "features.safetensors"
    collect_features(encoder, own.feature_batches(), n_tokens, file)
    assert Features(file).towers() == {"encoder": 3}
    assert Features(file).layer("encoder", 2).shape == (n_tokens, 32)


def test_an_encoder_and_its_tokenizer_are_trained_from_scratch(task, encoder, tmp_path):
    from experiment.base_model import train_base_model

    own = task()
    architecture = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 200}
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    widths = {"hidden_size": 16, "intermediate_size": 32, "pad_token_id": 0}
    training = {"learning_rate": 1e-3, "schedule": "constant", "batch_size": 3}
    recipe = TrainedFromScratch.model_validate(
        {
            "architecture": architecture | sizes | widths,
            "vocabulary": 200,
            "training": training | {"max_steps": 2, "evaluate_every": 2},
        }
    )
    made = tmp_path / "made"
    parts = own.settings.model_dump(exclude_unset=True)
    curve = train_base_model(parts, recipe, own.data, made, tmp_path / "kept", seed=1)
    trained = task_for(parts, made, own.data)
    result = trained.evaluate(checkpoint.load(made), "validation")
    assert result.loss == pytest.approx(curve[-1]["validation_loss"], rel=0.01)  # kept as float16


# --- configuration, and the other places that know all kinds --------------------------------------


def test_every_kind_of_task_has_a_metric():
    assert set(METRICS) == set(KINDS)


def errors(raw: dict) -> list[str]:
    with pytest.raises(ValueError) as error:
        validated(raw)
    return str(error.value).split("\n")


def example() -> dict:
    file = REPOSITORY / "config/examples/minilm.yaml"
    return yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size: has to be at least 2, for the other examples are the "),
        ({"devices": 2}, "devices: has to be 1 for kind sentence_retrieval (is 2)"),
    ],
)
def test_a_batch_without_wrong_passages_is_refused(monkeypatch, changes, message):
    monkeypatch.chdir(REPOSITORY)
    raw = example()
    raw["tasks"]["minilm"]["fine_tuning"] |= changes
    (error,) = errors(raw)
    assert error.startswith(f"tasks.minilm.fine_tuning.{message}")


def test_a_base_model_has_only_one_source(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    raw = example()
    raw["tasks"]["minilm"]["base_model"]["path"] = "resources/demo/models/gpt2"
    assert errors(raw) == [
        "tasks.minilm.base_model: path, package: only one of them can say where the model is"
    ]
    raw = example()
    del raw["tasks"]["minilm"]["base_model"]["package"]["sha256"]
    (error,) = errors(raw)
    assert error.startswith("tasks.minilm.base_model.package.sha256: is missing")


def test_keys_that_only_scoring_needs_are_no_parameters_of_the_features(monkeypatch):
    assert set(SCORING) <= set(KINDS["sentence_retrieval"].model_fields)
    assert not set(SCORING) & set(READING)


# --- a model in a package -------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path):
    """wheel(*names): a wheel with files of these names."""

    def made(*names: str):
        with zipfile.ZipFile(tmp_path / "own-1.0-py3-none-any.whl", "w") as file:
            for name in names:
                file.writestr(name, name)
        return tmp_path / "own-1.0-py3-none-any.whl"

    return made


def test_only_a_models_files_are_taken_from_its_folder(wheel):
    wanted = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")
    package = wheel(
        *(f"own/model/{name}" for name in wanted),
        *("own/model/README.md", "own/model/1_Pooling/config.json", "own/config.json"),
    )
    files = model_in_package(package, "own/model")
    assert sorted(files) == sorted(wanted)
    assert files["config.json"] == b"own/model/config.json"


@pytest.mark.parametrize(
    ("names", "directory", "message"),
    [
        (["own/model/config.json"], "own/model", r"own/model in own-1.0.* has no file pytorch_mod"),
        (["own/model/model.safetensors"], "own/model", "has no file config.json"),
        (["own/model/config.json"], "elsewhere", "holds no file that matches 'elsewhere/"),
    ],
)
def test_a_package_without_the_model_is_refused(wheel, names, directory, message):
    with pytest.raises(ValueError, match=message):
        model_in_package(wheel(*names), directory)


def test_a_wheel_for_any_python_is_requested_without_a_python_version():
    from experiment.inputs.packages import download_command

    for tags in ("py3-none-any", "py2.py3-none-any"):
        command = download_command("pypi", "own", "1.0", f"own-1.0-{tags}.whl")
        assert {"--implementation=py", "--abi=none", "--platform=any"} <= set(command)
        assert not any(word.startswith("--python-version") for word in command)
