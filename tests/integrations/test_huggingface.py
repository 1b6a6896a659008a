"""A recorded run of Hugging Face's Trainer that was resumed is that of an undisturbed one."""

import shutil

import numpy as np
import pytest
import torch

from skdmap import Displacement, TrajectoryRecorder, open_trajectory
from skdmap.exceptions import SkdmapWarning
from skdmap.integrations import HuggingFaceCallback

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.usefixtures("quiet_packages")


class TokenTask(torch.utils.data.Dataset):
    """Sequences of tokens, and whether the first is an even one."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        tokens = torch.randint(0, 20, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens[0] % 2}


class Stop(transformers.TrainerCallback):
    """Ends the process of training as a kill would: no callback hears of it."""

    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            raise KeyboardInterrupt


def new_model(seed=0):
    configuration = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.BertForSequenceClassification(configuration)


def train(folder, callbacks, *, resume=None, seed=0, max_steps=12, **settings):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=max_steps, per_device_train_batch_size=4,
        report_to=[], save_strategy="steps", save_steps=5, logging_steps=1, disable_tqdm=True,
        use_cpu=True, learning_rate=1e-2, lr_scheduler_type="constant", **settings,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        trainer = transformers.Trainer(
            new_model(seed), arguments, train_dataset=TokenTask(), callbacks=list(callbacks)
        )
        trainer.train(resume_from_checkpoint=resume)
    return trainer


SETTINGS = [
    {}, {"record_every": 3}, {"record_every": 3, "sketch_dim": 32},
    {"dtype": "float16"}, {"record_every": Displacement(0.05)},
    {"record_every": 4, "record": lambda model: model.classifier.weight.reshape(-1)},
]  # fmt: skip


@pytest.mark.parametrize("stopped_at", [5, 8])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_resumed_run_has_the_rows_of_an_undisturbed_one(tmp_path, settings, stopped_at):
    whole = HuggingFaceCallback(**settings, store=tmp_path / "whole")
    train(tmp_path / "undisturbed", [whole])
    store = tmp_path / "rows"
    first = HuggingFaceCallback(**settings, store=store)
    if stopped_at == 5:  # a run that ends, and is made longer
        train(tmp_path / "checkpoints", [first], max_steps=5)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "checkpoints", [first, Stop(stopped_at)])
        first.close()
        assert first.recorder_.interrupted_
    second = HuggingFaceCallback(**settings, store=store)
    # Another initialization: what counts is loaded after the callback was made.
    train(tmp_path / "checkpoints", [second], resume=True, seed=3)
    found, wanted = second.recorder_, whole.recorder_
    np.testing.assert_array_equal(found.steps_, wanted.steps_)
    if settings.get("dtype") == "float16":
        np.testing.assert_allclose(found.snapshots_[:], wanted.snapshots_[:], atol=1e-4)
    else:
        np.testing.assert_array_equal(found.snapshots_, wanted.snapshots_)
    np.testing.assert_array_equal(found.losses_, wanted.losses_)
    assert np.isfinite(found.losses_[:-1]).all()
    np.testing.assert_allclose(found.path_lengths_, wanted.path_lengths_, rtol=1e-5)
    np.testing.assert_array_equal(found.learning_rates_, wanted.learning_rates_)
    read = open_trajectory(store, verify=True)
    np.testing.assert_array_equal(read.steps_, wanted.steps_)


def test_a_recorder_around_the_trainer_has_the_same_rows(tmp_path):
    callback = HuggingFaceCallback()
    model = new_model()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=4, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, gradient_accumulation_steps=2,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=TokenTask(), callbacks=[callback]
    )
    with TrajectoryRecorder(model) as recorder:
        trainer.train()
    np.testing.assert_array_equal(callback.recorder_.snapshots_, recorder.snapshots_)
    assert callback.recorder_.steps_.tolist() == [0, 1, 2, 3, 4]


def test_a_mean_over_several_steps_is_no_loss_of_a_row(tmp_path):
    callback = HuggingFaceCallback()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, logging_steps=3,
    )  # fmt: skip
    transformers.Trainer(
        new_model(), arguments, train_dataset=TokenTask(), callbacks=[callback]
    ).train()
    assert np.isnan(callback.recorder_.losses_).all()


def test_a_checkpoint_of_another_run_is_an_error_before_a_row_is_touched(tmp_path):
    store = tmp_path / "rows"
    train(tmp_path / "run", [HuggingFaceCallback(store=store)])
    train(tmp_path / "other", [], seed=4)
    before = open_trajectory(store).snapshots_[:].copy()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"checkpoint of step 12 is not from the run in store=.*Resume that run's"
    ):
        train(tmp_path / "other", [HuggingFaceCallback(store=store)], resume=True)
    np.testing.assert_array_equal(open_trajectory(store, verify=True).snapshots_, before)


def test_a_recorder_around_a_trainer_that_resumes_says_that_it_came_too_early(tmp_path):
    train(tmp_path / "run", [])
    model = new_model(3)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=14, per_device_train_batch_size=4,
        report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=TokenTask())
    recorder = TrajectoryRecorder(model)
    with pytest.warns(SkdmapWarning, match="before its first step.*HuggingFaceCallback"), recorder:
        trainer.train(resume_from_checkpoint=True)
