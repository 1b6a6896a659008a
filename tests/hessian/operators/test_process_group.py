"""Two gloo processes with shards of unequal size, against one process with all rows."""

import textwrap

import numpy as np
import pytest
import torch
from torch import distributed

from skdmap.hessian import EmpiricalRisk

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="needs gloo"
)

COMMON = """
    import sys
    from datetime import timedelta
    import numpy as np
    import torch
    from torch import distributed, nn
    torch.set_num_threads(1)
    from sklearn.datasets import load_digits
    from skdmap.hessian import EmpiricalRisk, HessianSpectrum

    def model(norm):
        torch.manual_seed(0)
        layers = [nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 10)]
        return nn.Sequential(*(layers if norm else layers[:1] + layers[2:]))

    X, y = load_digits(return_X_y=True)
    X = X / 16
    criterion = nn.CrossEntropyLoss(weight=torch.arange(1.0, 11.0), ignore_index=3)
"""

START = """
    rank, path, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )
    shard = slice(0, 1000) if rank == 0 else slice(1000, 1797)
    group = distributed.group.WORLD
"""

PRODUCTS = """
    found = {}
    for dtype in ("float32", "float64"):
        for mode in ("eval", "recalibrate"):
            risk = EmpiricalRisk(
                model(mode == "recalibrate"), criterion, X[shard], y[shard], dtype=dtype,
                batch_size=797, weight_decay=0.01, mode=mode, process_group=group,
            )
            theta = risk.snapshot()[0] + 0.05
            V = np.random.default_rng(1).standard_normal((len(theta), 2))
            key = f"{dtype}-{mode}"
            found[f"{key}-loss"], found[f"{key}-gradient"] = risk(theta), risk.gradient(theta)
            found[f"{key}-matmat"] = risk.matmat(theta, V)
            for curvature in ("hessian", "ggn", "fisher", "gradient_covariance"):
                if mode == "recalibrate" and curvature != "hessian":
                    continue
                with risk.operator_at(theta, curvature) as operator:
                    found[f"{key}-{curvature}"] = operator.matmat(V)
                    found[f"{key}-first"] = operator.first_rank(V + shard.start)
    np.savez(f"{out}-products.npz", **found)
"""

SPECTRUM = """
    found = {}
    for dtype in ("float32", "float64"):
        risk = EmpiricalRisk(
            model(False), criterion, X[shard], y[shard], dtype=dtype, process_group=group
        )
        for curvature in ("hessian", "gradient_covariance"):
            # Each rank draws another start vector and has another view of the free memory.
            fit = HessianSpectrum(
                risk, 5, curvature=curvature, random_state=rank, tol=1e-6, max_matvecs=400
            ).fit(risk.snapshot())
            found[f"{dtype}-{curvature}"] = fit.eigenvalues_
            found[f"{dtype}-{curvature}-components"] = fit.components_
            found[f"{dtype}-{curvature}-trace"] = fit.trace_
            found[f"{dtype}-{curvature}-products"] = fit.n_matvecs_
    np.savez(f"{out}-spectrum.npz", **found)
"""

FAILURE = """
    rows = X[shard].copy()
    if rank == 1:
        rows[5] = np.nan
    try:
        EmpiricalRisk(model(False), criterion, rows, y[shard], process_group=group)
    except (ValueError, RuntimeError) as error:
        np.savez(f"{out}-failure.npz", message=str(error))
"""

POINTS = """
    risk = EmpiricalRisk(model(False), criterion, X[shard], y[shard], process_group=group)
    try:
        risk(risk.snapshot()[0] + rank)
    except ValueError as error:
        np.savez(f"{out}-points.npz", message=str(error))
"""

ALONE = """
    # The other rank makes no call: with anything communicated this would wait for it.
    if rank == 0:
        risk = EmpiricalRisk(model(False), criterion, X, y)
        theta = risk.snapshot()[0]
        fit = HessianSpectrum(risk, 2).fit(risk.snapshot())
        np.savez(f"{out}-alone.npz", product=risk.hvp(theta, theta), values=fit.eigenvalues_)
    else:
        np.savez(f"{out}-alone.npz", product=0.0)
"""

PICKLED = """
    import pickle, warnings
    risk = EmpiricalRisk(model(False), criterion, X[shard], y[shard], process_group=group)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy = pickle.loads(pickle.dumps(risk))
    theta = risk.snapshot()[0]
    own = EmpiricalRisk(model(False), criterion, X[shard], y[shard])
    np.savez(f"{out}-pickled.npz", message=str(caught[0].message), loss=copy(theta), own=own(theta))
"""


# A rank of one row cannot see that rows hang together; the other can.
COUPLED = """
    class Coupled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model(False).double()

        def forward(self, x):
            x = self.inner(x)
            return x - 0.5 * x.mean(0, keepdim=True)

    rows = slice(0, 1) if rank == 0 else slice(1, 700)
    risk = EmpiricalRisk(
        Coupled(), nn.CrossEntropyLoss(), X[rows], y[rows], dtype="float64", process_group=group
    )
    fit = HessianSpectrum(risk, 3, random_state=0).fit(risk.snapshot())
    with risk.operator_at(risk.snapshot()[0]) as operator:
        products = operator.matmat(fit.components_.T)
    quotients = (fit.components_.T * products).sum(axis=0)
    np.savez(f"{out}-coupled.npz", values=fit.eigenvalues_, quotients=quotients)
"""


BODIES = [COUPLED, PRODUCTS, SPECTRUM, FAILURE, POINTS, PICKLED, ALONE]


def load(folder, rank, name):
    return dict(np.load(folder / f"{rank}-{name}.npz"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, start_script):
    """All bodies on two ranks, one after the other; each saves what it found."""
    folder = tmp_path_factory.mktemp("ranks")
    # In functions, so that nothing holds on to the group when it is destroyed.
    inner = textwrap.dedent(START) + "".join(textwrap.dedent(body) for body in BODIES)
    end = "main()\ndistributed.barrier()\ndistributed.destroy_process_group()\n"
    script = f"{textwrap.dedent(COMMON)}\ndef main():\n{textwrap.indent(inner, '    ')}\n{end}"
    ranks = [start_script(script, rank, folder / "meet", folder / str(rank)) for rank in range(2)]
    try:
        ended = [rank.wait(timeout=300) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ended] == [0, 0], [rank.stderr for rank in ended]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, run_script):
    """Products and spectrum in one process that has all rows."""
    folder = tmp_path_factory.mktemp("alone")
    head = """
    rank, out, shard = 0, sys.argv[1], slice(0, 0)
    sizes = np.split(np.arange(1797), [797, 1000])
    data = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    loader = torch.utils.data.DataLoader(data, batch_sampler=[part.tolist() for part in sizes])
    """
    # Batches as the ranks have them: the statistics of batches are averaged.
    products = PRODUCTS.replace("X[shard], y[shard]", "loader").replace("batch_size=797,", "")
    spectrum = SPECTRUM.replace("X[shard], y[shard]", "X, y")
    bodies = (products + spectrum).replace("process_group=group", "process_group=None")
    script = "".join(textwrap.dedent(part) for part in (COMMON, head, bodies))
    done = run_script(script, folder / "0")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["products", "spectrum"])
def test_both_ranks_have_the_same_bits(folder, name):
    first, second = (load(folder, rank, name) for rank in range(2))
    assert first.keys() == second.keys()
    assert len(first) >= 10
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


def test_two_shards_have_the_loss_and_the_products_of_the_whole(folder, alone):
    found = load(folder, 0, "products")
    for key, expected in load(alone, 0, "products").items():
        limit = (1e-12 if "float64" in key else 1e-4) * np.abs(expected).max()
        np.testing.assert_allclose(found[key], expected, atol=limit, err_msg=key)


def test_two_shards_have_the_spectrum_of_the_whole(folder, alone):
    found, expected = load(folder, 0, "spectrum"), load(alone, 0, "spectrum")
    for dtype, tol in (("float64", 1e-10), ("float32", 1e-6)):
        for curvature in ("hessian", "gradient_covariance"):
            key = f"{dtype}-{curvature}"
            largest = np.abs(expected[key]).max()
            np.testing.assert_allclose(found[key], expected[key], atol=tol * largest, err_msg=key)


def test_where_one_rank_fails_the_other_does_not_wait(folder):
    assert "Another rank of process_group failed" in str(load(folder, 0, "failure")["message"])
    assert "X contains NaN" in str(load(folder, 1, "failure")["message"])


def test_points_that_differ_are_named_on_both_ranks(folder):
    for rank in range(2):
        message = str(load(folder, rank, "points")["message"])
        assert "theta differs between the ranks" in message


def test_without_process_group_nothing_is_communicated(folder):
    assert np.isfinite(load(folder, 0, "alone")["product"]).all()


def test_a_pickle_is_the_risk_of_the_ranks_own_rows_and_says_so(folder):
    for rank in range(2):
        found = load(folder, rank, "pickled")
        assert "process_group is dropped" in str(found["message"])
        assert found["loss"] == found["own"]


def test_a_group_without_torch_distributed_is_named():
    with pytest.raises(ValueError, match=r"needs torch.distributed.*init_process_group"):
        EmpiricalRisk(
            torch.nn.Linear(2, 1), torch.nn.MSELoss(), np.ones((3, 2)), np.ones(3),
            process_group=object(),
        )  # fmt: skip


def test_ranks_agree_where_only_one_sees_that_rows_hang_together(folder):
    first, second = (load(folder, rank, "coupled") for rank in (0, 1))
    np.testing.assert_array_equal(first["values"], second["values"])
    np.testing.assert_allclose(first["quotients"], first["values"], rtol=1e-5)
