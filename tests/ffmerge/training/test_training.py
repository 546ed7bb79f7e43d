"""Training: ties hold, the best weights are kept, and a kill costs nothing but time."""

import pytest
import torch

from experiment.config.settings import Training
from ffmerge.evaluation.metrics import Evaluation
from ffmerge.models.size import count_parameters
from provenance.sources import REPOSITORY

VOCABULARY, LENGTH = 50, 8  # of the pico GPT-2


class RandomTokens:
    """A task of random tokens; `scores` are what its evaluations return, one after the other."""

    def __init__(self, scores: list[float] | None = None, interrupt_at: int | None = None) -> None:
        self.scores, self.interrupt_at, self.evaluations = scores, interrupt_at, 0

    @property
    def metric(self):
        from ffmerge.evaluation.metrics import METRICS

        return METRICS["language_modeling"]

    def training_examples(self, training, seed):
        generator = torch.Generator().manual_seed(0)
        return torch.randint(VOCABULARY, (40, LENGTH), generator=generator)

    def collate(self, examples):
        ids = torch.stack(examples)
        return {"input_ids": ids, "labels": ids}

    def loss(self, model, batch):
        return None

    def evaluate(self, model, split, device="cpu"):
        if self.evaluations == self.interrupt_at:
            raise KeyboardInterrupt
        self.evaluations += 1
        with torch.no_grad():
            loss = model(**self.collate(list(self.training_examples(None, 0)))).loss.item()
        score = self.scores[self.evaluations - 1] if self.scores else loss
        return Evaluation(score=score, loss=loss, per_example={})


def settings(**changed) -> Training:
    values = {
        "learning_rate": 1e-2,
        "schedule": "inverse_sqrt",
        "batch_size": 4,
        "max_steps": 6,
        "evaluate_every": 2,
        "warmup_steps": 2,
    }
    return Training(**values | changed)


def tuned(pico, task, training, checkpoints):
    from ffmerge.training.trainer import train

    torch.manual_seed(0)
    model = pico("gpt2")
    curve = train(model, task, training, checkpoints, seed=3)
    return model, curve


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_an_interrupted_training_ends_with_the_same_bits(pico, tmp_path):
    whole, curve = tuned(pico, RandomTokens(), settings(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tuned(pico, RandomTokens(interrupt_at=2), settings(), tmp_path / "cut")
    assert (tmp_path / "cut/checkpoint-4/complete").exists()
    resumed, resumed_curve = tuned(pico, RandomTokens(), settings(), tmp_path / "cut")
    assert same(weights(whole), weights(resumed))
    assert resumed_curve == curve


def test_a_half_written_checkpoint_is_not_resumed(pico, tmp_path):
    whole, _ = tuned(pico, RandomTokens(), settings(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tuned(pico, RandomTokens(interrupt_at=2), settings(), tmp_path / "cut")
    newest = tmp_path / "cut/checkpoint-4"
    (newest / "complete").unlink()
    (newest / "optimizer.pt").write_bytes(b"half")
    resumed, _ = tuned(pico, RandomTokens(), settings(), tmp_path / "cut")
    assert same(weights(whole), weights(resumed))


def test_the_weights_of_the_best_validation_score_are_kept(pico, tmp_path):
    first, _ = tuned(pico, RandomTokens([1.0]), settings(max_steps=2), tmp_path / "first")
    best, curve = tuned(pico, RandomTokens([1.0, 3.0, 2.0]), settings(), tmp_path / "all")
    assert same(weights(first), weights(best))  # perplexity: lower is better
    assert [p["score"] for p in curve if "score" in p] == [1.0, 3.0, 2.0]


def test_the_weights_of_the_lowest_validation_loss_are_kept_if_asked_for(pico, tmp_path):
    last, curve = tuned(pico, RandomTokens(), settings(), tmp_path / "last")
    losses = [p["validation_loss"] for p in curve if "score" in p]
    assert losses[-1] == min(losses)
    by_loss = settings(select_by="loss")
    best, _ = tuned(pico, RandomTokens([1.0, 3.0, 2.0]), by_loss, tmp_path / "by loss")
    assert same(weights(last), weights(best))  # by its scores, the first were the best


def test_tied_sublayers_stay_tied_through_training_and_resuming(pico, tmp_path):
    from ffmerge.training.trainer import train
    from merged_windows import merge_window

    model = pico("gpt2")
    merge_window(model, [0, 1, 2], anchor=0)
    n_parameters = count_parameters(model)
    with pytest.raises(KeyboardInterrupt):
        train(model, RandomTokens(interrupt_at=2), settings(), tmp_path, seed=1)
    train(model, RandomTokens(), settings(), tmp_path, seed=1)
    assert count_parameters(model) == n_parameters
    first, last = (model.transformer.h[i].mlp.c_fc.weight for i in (0, 2))
    assert first is last


def test_a_loss_that_is_not_finite_names_its_step(pico, tmp_path):
    from ffmerge.training.trainer import train

    model = pico("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="loss is nan at step 2"):
        train(model, RandomTokens(), settings(), tmp_path, seed=1)


def test_a_batch_that_devices_cannot_share_evenly_is_refused(pico):
    import yaml

    from experiment.config.run import validated

    raw = yaml.safe_load((REPOSITORY / "config/pico.yaml").read_text())
    tuning = raw["tasks"]["vit"]["fine_tuning"]
    tuning["devices"] = 3
    with pytest.raises(
        ValueError, match=r"fine_tuning.devices: has to divide batch_size, 4 .is 3."
    ):
        validated(raw)
    tuning["devices"] = 1
    raw["tasks"]["vit"]["base_model"]["from_scratch"]["training"]["devices"] = 2
    with pytest.raises(ValueError, match=r"from_scratch.training.devices: has to be 1 .is 2."):
        validated(raw)


def test_one_process_uses_one_of_several_gpus(tmp_path, monkeypatch):
    from transformers import TrainingArguments

    from ffmerge.training.trainer import _arguments

    def sees_two_gpus(arguments):  # as transformers does where there is no launcher
        arguments._n_gpu, arguments.distributed_state = 2, None
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(sees_two_gpus))
    assert TrainingArguments(str(tmp_path)).n_gpu == 2
    arguments = _arguments(settings(), tmp_path, 0, "cpu")
    assert arguments.n_gpu == 1 and arguments.train_batch_size == 4


# --- deterministic algorithms ---------------------------------------------------------------------


@pytest.fixture
def deterministic():
    """What a job on a GPU asks for (provenance.job.prepare_torch)."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def test_steps_are_deterministic_and_what_comes_between_them_only_warns(
    pico, tmp_path, deterministic, monkeypatch
):
    from ffmerge.training import trainer

    seen = {"step": [], "validation": []}
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled
    forward = trainer.Trainer.training_step

    def step(*inputs, **options):
        seen["step"].append(warn_only())
        return forward(*inputs, **options)

    class Watched(RandomTokens):
        def evaluate(self, *inputs):
            seen["validation"].append(warn_only())
            return super().evaluate(*inputs)

    monkeypatch.setattr(trainer.Trainer, "training_step", step)
    tuned(pico, Watched(), settings(), tmp_path)
    assert seen == {"step": [False] * 6, "validation": [True] * 3}


def test_an_operation_that_has_no_deterministic_form_is_a_warning(pico, tmp_path, deterministic):
    class OwnLoss(RandomTokens):
        def loss(self, model, batch):
            return model(**batch).loss

    class Indeterminate(OwnLoss):
        def loss(self, model, batch):
            torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
            return super().loss(model, batch)

    expected, _ = tuned(pico, OwnLoss(), settings(), tmp_path / "plain")
    with pytest.warns(UserWarning, match="another run may give other bits: put_ does not have"):
        found, _ = tuned(pico, Indeterminate(), settings(), tmp_path / "warned")
    assert same(weights(found), weights(expected))
