"""The recorder in the loops of other libraries, each with its own package."""

import sys
import warnings

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectoryRecorder


def new_module(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def new_data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(32, 4, generator=generator)
    return X, (X[:, 0] > 0).long()


def theta(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


def by_hand(module, n_steps, *, lr=0.1, batch=8):
    """Rows and losses of plain gradient steps on batches in order."""
    X, y = new_data()
    rows, losses = [theta(module)], []
    for step in range(n_steps):
        part = slice(batch * step % len(X), batch * step % len(X) + batch)
        loss = F.cross_entropy(module(X[part]), y[part])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        rows.append(theta(module))
        losses.append(loss.item())
    return np.stack(rows), np.array([*losses, np.nan])


@pytest.fixture
def quiet_packages():
    """Other packages warn of their own old ways; ours still count as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="skdmap")
        yield


def loader(dataset, batch_size=8):
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size)


@pytest.fixture
def lightning_fit(quiet_packages, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = new_module()

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    def fit(*, part=False, **settings):
        module = Net()
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
            **settings,
        )  # fmt: skip
        hooks = set(vars(module))
        with TrajectoryRecorder(module.net if part else module) as recorder:
            trainer.fit(module, loader(torch.utils.data.TensorDataset(*new_data())))
        assert "training_step" not in set(vars(module)) - hooks
        return recorder

    return fit


def test_lightning(lightning_fit):
    recorder = lightning_fit(max_epochs=2)
    rows, losses = by_hand(new_module(), 8)
    np.testing.assert_allclose(recorder.snapshots_, rows, rtol=0, atol=1e-6)
    np.testing.assert_allclose(recorder.losses_, losses, rtol=1e-6)
    assert recorder.steps_.tolist() == list(range(9))
    np.testing.assert_array_equal(theta(recorder.module_at(3)), recorder.snapshots_[3])


def test_lightning_with_accumulated_gradients(lightning_fit):
    recorder = lightning_fit(max_epochs=2, accumulate_grad_batches=2)
    rows, losses = by_hand(new_module(), 4, batch=16)
    np.testing.assert_allclose(recorder.snapshots_, rows, rtol=0, atol=1e-6)
    np.testing.assert_allclose(recorder.losses_, losses, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_where_a_part_of_its_module_is_recorded(lightning_fit, accumulate):
    recorder = lightning_fit(part=True, max_epochs=2, accumulate_grad_batches=accumulate)
    rows, losses = by_hand(new_module(), 8 // accumulate, batch=8 * accumulate)
    np.testing.assert_allclose(recorder.snapshots_, rows, rtol=0, atol=1e-6)
    if accumulate == 2:  # the first part was over before the optimizer was seen
        losses[0] = np.nan
    np.testing.assert_allclose(recorder.losses_, losses, rtol=1e-5)


class TokenTask(torch.utils.data.Dataset):
    """Sequences of tokens, and whether the first is an even one."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        tokens = torch.randint(0, 20, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens[0] % 2}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_hugging_face_trainer(quiet_packages, tmp_path, accumulate):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    configuration = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(configuration)
        before = theta(model)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulate, report_to=[], save_strategy="no",
            disable_tqdm=True, use_cpu=True, learning_rate=1e-2, logging_strategy="no",
        )  # fmt: skip
        trainer = transformers.Trainer(model, arguments, train_dataset=TokenTask())
        with TrajectoryRecorder(model, store=tmp_path / "run") as recorder:
            trainer.train()
    assert recorder.steps_.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(recorder.snapshots_[0], before)
    np.testing.assert_array_equal(recorder.snapshots_[-1], theta(model))
    # The default schedule falls linearly to 0 after the last step.
    np.testing.assert_allclose(
        recorder.learning_rates_, 1e-2 * np.array([1, 1, 0.75, 0.5, 0.25]), rtol=1e-12
    )
    moved = np.linalg.norm(np.diff(recorder.snapshots_, axis=0), axis=1)
    assert (moved > 0).all()


def test_skorch(quiet_packages):
    skorch = pytest.importorskip("skorch")
    X, y = (part.numpy() for part in new_data())
    net = skorch.NeuralNetClassifier(
        new_module, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.1,
        max_epochs=2, batch_size=8, train_split=None, verbose=0,
    ).initialize()  # fmt: skip
    with TrajectoryRecorder(net.module_) as recorder:
        net.partial_fit(X, y)
    rows, losses = by_hand(new_module(), 8)
    np.testing.assert_allclose(recorder.snapshots_, rows, rtol=0, atol=1e-6)
    np.testing.assert_allclose(recorder.losses_, losses, rtol=1e-6)


def test_accelerate(quiet_packages):
    accelerate = pytest.importorskip("accelerate")
    X, y = new_data()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    module = new_module()
    raw = torch.optim.SGD(module.parameters(), lr=0.1)
    prepared, optimizer = accelerator.prepare(module, raw)
    with TrajectoryRecorder(prepared, optimizer) as recorder:
        for part in range(0, 32, 8):
            with accelerator.accumulate(prepared):
                rows = slice(part, part + 8)
                accelerator.backward(F.cross_entropy(prepared(X[rows]), y[rows]))
                optimizer.step()
                optimizer.zero_grad()
    wanted, _ = by_hand(new_module(), 2, batch=16)
    np.testing.assert_allclose(recorder.snapshots_, wanted, rtol=0, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="torch.compile needs a compiler")
def test_a_compiled_module_has_the_names_of_the_plain_one():
    module = new_module()
    compiled = torch.compile(module, backend="eager")
    with TrajectoryRecorder(compiled) as recorder:
        F.cross_entropy(compiled(new_data()[0]), new_data()[1]).backward()
        torch.optim.SGD(compiled.parameters(), lr=0.1).step()
    assert recorder.parameter_layout_.names[0] == "0.weight"
    np.testing.assert_array_equal(recorder.snapshots_[-1], theta(module))


def replicate(rank, folder):
    """One of two processes that train one module together."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    try:
        shard(rank, folder)
        X, y = new_data()
        module = nn.parallel.DistributedDataParallel(new_module())
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        recorder = TrajectoryRecorder(
            module, store=f"{folder}/run", record=("outputs", X[:2]), record_every=2
        )
        with recorder, TrajectoryRecorder(module) as whole:
            for step in range(4):
                rows = slice(16 * (step % 2) + 8 * rank, 16 * (step % 2) + 8 * rank + 8)
                loss = F.cross_entropy(module(X[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        np.save(f"{folder}/rows{rank}.npy", whole.snapshots_)
        np.save(f"{folder}/outputs{rank}.npy", np.array(recorder.snapshots_))
        np.save(f"{folder}/end{rank}.npy", theta(module))
        np.save(f"{folder}/names{rank}.npy", np.array(whole.parameter_layout_.names))
    finally:
        dist.destroy_process_group()


def shard(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    module = new_module()
    module[0].weight = nn.Parameter(distribute_tensor(module[0].weight.data, mesh, [Shard(0)]))
    try:
        TrajectoryRecorder(module)
    except ValueError as error:
        np.save(f"{folder}/error{rank}.npy", np.array(str(error)))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    # A fresh interpreter for each rank: forked ones would share the hooks and threads of this one.
    mp.spawn(replicate, args=(str(folder),), nprocs=2, join=True)
    return folder


def test_distributed_data_parallel_writes_from_rank_0_only(two_processes):
    from skdmap.trajectory._stored_trajectory import open_trajectory

    tmp_path = two_processes
    rows, other = (np.load(tmp_path / f"rows{rank}.npy") for rank in (0, 1))
    wanted, _ = by_hand(new_module(), 4, batch=16)
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-6)
    assert other.shape == (0, rows.shape[1])
    for rank in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / f"end{rank}.npy"), rows[-1])
        assert np.load(tmp_path / f"names{rank}.npy")[0] == "0.weight"
    outputs = np.load(tmp_path / "outputs0.npy")
    assert outputs.shape == (3, 4)
    assert np.load(tmp_path / "outputs1.npy").shape == (0, 4)
    read = open_trajectory(tmp_path / "run", verify=True)
    assert read.steps_.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(read.snapshots_, outputs)


def test_sharded_parameters_are_refused_in_every_process(two_processes):
    for rank in (0, 1):
        message = str(np.load(two_processes / f"error{rank}.npy"))
        assert "sharded parameters (0.weight: " in message
        assert "Record under DDP" in message
