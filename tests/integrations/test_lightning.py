"""A recorded run of Lightning's Trainer that was resumed is that of an undisturbed one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import Displacement, open_trajectory
from skdmap.exceptions import SkdmapWarning
from skdmap.integrations import LightningCallback

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.usefixtures("quiet_packages")


class Net(lightning.LightningModule):
    """Small, with BatchNorm and an optimizer that has a state."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))

    def training_step(self, batch, index):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


class Stop(lightning.Callback):
    """Ends the training within an epoch."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == self.at:
            raise ZeroDivisionError


def loader():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(48, 4, generator=generator)
    data = torch.utils.data.TensorDataset(X, (X[:, 0] > 0).long())
    return torch.utils.data.DataLoader(data, batch_size=8)


def fit(folder, callbacks, *, module=None, checkpoint=None, max_epochs=3, **settings):
    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        folder, filename="{epoch}", every_n_epochs=1, save_top_k=-1
    )
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=max_epochs, callbacks=[*callbacks, saving],
        **settings,
    )  # fmt: skip
    trainer.fit(Net() if module is None else module, loader(), ckpt_path=checkpoint)
    return trainer


SETTINGS = [
    {}, {"record_every": 4}, {"record_every": 4, "sketch_dim": 32},
    {"dtype": "float16"}, {"record_every": Displacement(0.05, "path")},
    {"record_every": 5, "record": ("outputs", torch.ones(2, 4))},
]  # fmt: skip


class Whole(Net):
    """Can be called: for rows that are outputs."""

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_resumed_run_has_the_rows_of_an_undisturbed_one(tmp_path, settings, stops, accumulate):
    also = {"accumulate_grad_batches": accumulate}
    whole = LightningCallback(**settings)
    fit(tmp_path / "whole", [whole], module=Whole(), **also)
    store = tmp_path / "rows"
    first = LightningCallback(**settings, store=store)
    if stops:
        callbacks = [first, Stop(8 // accumulate)]
        with pytest.raises(ZeroDivisionError):
            fit(tmp_path / "run", callbacks, module=Whole(), **also)
        assert first.recorder_.interrupted_
    else:
        fit(tmp_path / "run", [first], module=Whole(), max_epochs=1, **also)
    second = LightningCallback(**settings, store=store)
    checkpoint = tmp_path / "run" / "epoch=0.ckpt"
    fit(tmp_path / "run", [second], module=Whole(3), checkpoint=checkpoint, **also)
    found, wanted = second.recorder_, whole.recorder_
    np.testing.assert_array_equal(found.steps_, wanted.steps_)
    if settings.get("dtype") == "float16":
        np.testing.assert_allclose(found.snapshots_[:], wanted.snapshots_[:], atol=1e-4)
    else:
        np.testing.assert_array_equal(found.snapshots_, wanted.snapshots_)
    np.testing.assert_array_equal(found.losses_, wanted.losses_)
    assert np.isfinite(found.losses_[:-1]).all()
    np.testing.assert_array_equal(found.buffers_, wanted.buffers_)
    np.testing.assert_allclose(found.path_lengths_, wanted.path_lengths_, rtol=1e-5)
    np.testing.assert_array_equal(found.learning_rates_, wanted.learning_rates_)
    np.testing.assert_array_equal(open_trajectory(store, verify=True).steps_, wanted.steps_)


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(tmp_path):
    store = tmp_path / "rows"
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", [LightningCallback(store=store), Stop(3)])
    with pytest.raises(FileExistsError, match=r"already holds .* ckpt_path='last'"):
        fit(tmp_path / "again", [LightningCallback(store=store)], max_epochs=1)
    again = LightningCallback(store=store, resume=True)
    with pytest.warns(SkdmapWarning, match="after step 0 (is|are) dropped.*ckpt_path='last'"):
        fit(tmp_path / "again", [again], max_epochs=1)
    whole = LightningCallback()
    fit(tmp_path / "whole", [whole], max_epochs=1)
    np.testing.assert_array_equal(again.recorder_.snapshots_, whole.recorder_.snapshots_)
    np.testing.assert_array_equal(again.recorder_.losses_, whole.recorder_.losses_)


def test_a_checkpoint_of_another_run_is_an_error_before_a_row_is_touched(tmp_path):
    store = tmp_path / "rows"
    fit(tmp_path / "run", [LightningCallback(store=store, sketch_dim=32)])
    fit(tmp_path / "other", [], module=Net(5), max_epochs=1)
    before = open_trajectory(store).snapshots_[:].copy()
    with pytest.raises(ValueError, match="checkpoint of step 6 is not from the run in store="):
        fit(
            tmp_path / "other", [LightningCallback(store=store, sketch_dim=32)],
            checkpoint=tmp_path / "other" / "epoch=0.ckpt",
        )  # fmt: skip
    np.testing.assert_array_equal(open_trajectory(store, verify=True).snapshots_, before)


def test_rows_in_memory_go_on_counting_from_the_checkpoint(tmp_path):
    fit(tmp_path / "run", [], max_epochs=1)
    callback = LightningCallback()
    fit(
        tmp_path / "run", [callback], module=Net(3), max_epochs=2,
        checkpoint=tmp_path / "run" / "epoch=0.ckpt",
    )  # fmt: skip
    assert callback.recorder_.steps_.tolist() == list(range(6, 13))


def test_importing_the_integrations_loads_no_trainer():
    code = (
        "import sys, skdmap.integrations\n"
        "print([n for n in ('torch', 'transformers', 'lightning') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_other_name_of_the_package_is_served(run_script):
    pytest.importorskip("pytorch_lightning")
    code = (
        "import pytorch_lightning as pl\n"
        "from skdmap.integrations import LightningCallback\n"
        "assert isinstance(LightningCallback(), pl.Callback)"
    )
    done = run_script(code)
    assert done.returncode == 0, done.stderr
