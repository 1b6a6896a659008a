"""Mutation pass over the numeric files: a small error in each, which its own tests must find.

    python tests/fuzz/mutation_pass.py              all mutants, one line each
    python tests/fuzz/mutation_pass.py diffusion    those of files whose path holds this

Each mutant is a copy of the package in which one expression is replaced; it is killed when the
tests that mirror its file fail. Tests run in forks, into which libraries are imported once. The
exit code is the number of survivors. An expression that is not found exactly once is an error: the
list has to follow the code.
"""

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 1200  # seconds
# File (under skdmap), tests that mirror it (under tests), replacements.
MUTANTS = [
    (
        "diffusion/_density_normalization.py",
        ["diffusion/test_density_normalization.py"],
        [
            ("rho**dimension", "rho ** (dimension + 1)"),
            ("density**alpha", "density ** (alpha * 0.99)"),
            ("1.0 + 0.5 * dimension", "0.5 * dimension"),
            ("(weight / g)) / g", "(weight / g))"),
        ],
    ),
    (
        "diffusion/_bandwidth.py",
        ["diffusion/test_bandwidth.py"],
        [
            ("graph.row_radii / 3.0", "graph.row_radii / 2.0"),
            ("np.triu_indices(weight.size, 1)", "np.triu_indices(weight.size, 0)"),
            ("needed[~outliers].max", "needed.max"),
            ("last**_PLATEAU_WEIGHT", "typical**_PLATEAU_WEIGHT"),
            ("longest / REACH * (1.0 + 1e-9)", "longest / REACH * 0.99"),
            ("np.clip(-lower / (upper - lower), 0.0, 1.0)", "0.0"),
            ("find_plateau(histogram).bandwidth if auto", "find_plateau(histogram).last if auto"),
        ],
    ),
    (
        "diffusion/_preimage.py",
        ["diffusion/test_preimage.py"],
        [
            ("width = 0.5 * distances", "width = 0.6 * distances"),
            ("_NEIGHBORS_PER_COORDINATE * k", "_NEIGHBORS_PER_COORDINATE * (k - 1)"),
            ("np.log(weight[nearest]) + _log_gaussian", "_log_gaussian"),
            ("np.exp(log_prior - log_prior.max(axis=1, keepdims=True))", "np.ones_like(log_prior)"),
            ("hessian += _RIDGE", "hessian += 0.0 * _RIDGE"),
            ("gradient = mean - target + _RIDGE * tilt", "gradient = mean - target"),
            ("np.einsum(\"bk,bk->b\", tilt, 0.5 * _RIDGE", "np.einsum(\"bk,bk->b\", tilt, _RIDGE"),
            ("> _OFF * spread", "> 2.0 * _OFF * spread"),
        ],
    ),
    (
        "diffusion/_kernel.py",
        ["diffusion/test_kernel.py"],
        [("-0.25 / epsilon", "-0.5 / epsilon")],
    ),
    (
        "diffusion/_eigensolvers/choice.py",
        ["diffusion/eigensolvers/test_choice.py"],
        [
            ('return [solver, "lobpcg"]', "return [solver]"),
            ("< _ORTHONORMAL else np.inf", "< np.inf else np.inf"),
            ('solver != "auto" or np.all(', "True or np.all("),
        ],
    ),
    (
        "diffusion/_eigensolvers/symmetric_eigh.py",
        ["diffusion/eigensolvers/test_symmetric_eigh.py"],
        [
            ("if values.size != k or", "if False and"),
            ("and overlap <= limit", ""),
            ('_DRIVERS = ("evr", "evd", "ev")', '_DRIVERS = ("evr", "evd")'),
        ],
    ),
    (
        "diffusion/_eigensolvers/block_lanczos.py",
        ["diffusion/eigensolvers/test_block_lanczos.py"],
        [
            ("= values[-kept:]", "= values[:kept]"),
            ("residuals[-n_pairs:] <= tol", "residuals[-1:] <= tol"),
            ("projected[first:used, :used] = inner.T", "pass"),
        ],
    ),
    (
        "diffusion/_eigensolvers/chebyshev.py",
        [
            "diffusion/eigensolvers/test_chebyshev_filter.py",
            "diffusion/eigensolvers/test_jacobi_smoother.py",
        ],
        [
            ("product -= back * before[rows]", "product -= 0.9 * back * before[rows]"),
            ("float(ritz[0] - betas[-1] * abs(parts[-1, 0]))", "float(ritz[0])"),
            ("_LEAVING, _LEAST_DIAGONAL = 0.5, 1e-5", "_LEAVING, _LEAST_DIAGONAL = 0.4, 1e-5"),
            ("np.sqrt(_LEAVING * share)", "0.0 * share"),
            ("rest *= self.root_diagonal", "rest *= 1.0"),
        ],
    ),
    (
        "diffusion/_eigensolvers/aggregation.py",
        ["diffusion/eigensolvers/test_aggregation.py"],
        [
            ("weights=self.root**2))", "weights=self.root))"),
            ("priority[rows] > others", "priority[rows] >= 0"),
        ],
    ),
    (
        "diffusion/_eigensolvers/rayleigh_ritz.py",
        ["diffusion/eigensolvers/test_rayleigh_ritz.py"],
        [
            ("product[rows, width:] -= pairs.residuals[rows] @ old", "pass"),
            ("rest = pairs.values[:, None] * old - old * found", "rest = 0.0 * old"),
        ],
    ),
    (
        "diffusion/_eigensolvers/lobpcg.py",
        ["diffusion/eigensolvers/test_choice.py"],
        [("pairs.norms[:n_pairs].max() <= limit", "pairs.norms[0] <= limit")],
    ),
    (
        "diffusion/_eigensolvers/scipy_solvers.py",
        ["diffusion/eigensolvers/test_choice.py"],
        [
            ("return with_missed_copies(problem, (values, vectors))", "return (values, vectors)"),
            ('{"rng": problem.rng} if _DRAWS_RESTARTS else {}', "{}"),
        ],
    ),
    (
        "diffusion/_neighbors/graph.py",
        ["diffusion/neighbors/test_graph.py", "diffusion/neighbors/test_neighbor_rule.py"],
        [
            ("np.maximum(matrix.data.astype(np.float64), TINY)", "matrix.data.astype(np.float64)"),
            ("return np.maximum(rows, self.column_radii[self.distances.indices])", "return rows"),
        ],
    ),
    (
        "diffusion/_neighbors/kd_tree.py",
        ["diffusion/neighbors/test_kd_tree.py", "diffusion/neighbors/test_neighbor_rule.py"],
        [
            ("more += [self._reverse(new, known, group) for group in self._groups]", "pass"),
            ("partition(np.unique(places), axis=1)", "partition(np.unique(places)[:1], axis=1)"),
        ],
    ),
    (
        "diffusion/_neighbors/metrics.py",
        ["diffusion/neighbors/test_metrics.py"],
        [
            ("_CANCELLATION = 1e-5", "_CANCELLATION = 1e-30"),
            ("0.5 * (distances + distances.T) if callable(metric)", "distances if True"),
            ("weight @ centred**2 if diagonal", "(centred**2).mean(axis=0) if diagonal"),
        ],
    ),
    (
        "diffusion/_neighbors/brute_force.py",
        ["diffusion/neighbors/test_brute_force.py", "diffusion/neighbors/test_neighbor_rule.py"],
        [
            ("distances[:, :n_kept].max(axis=1) + slack", "distances[:, :n_kept].min(axis=1)"),
            ("_CONFUSED = 1e-5", "_CONFUSED = 0.0"),
        ],
    ),
    (
        "diffusion/_neighbors/approximate.py",
        ["diffusion/neighbors/test_approximate.py"],
        [("radii[known] = self.radii[training]", "known = known[:0]")],
    ),
    (
        "diffusion/_neighbors/precomputed.py",
        ["diffusion/neighbors/test_precomputed.py"],
        [
            ("positive >= _LEAST_EQUAL", "positive >= 10**9"),
            ('"negative": data < 0', '"negative": data < -1e9'),
        ],
    ),
    (
        "diffusion/_wide/distances.py",
        ["diffusion/wide/test_distances.py", "diffusion/wide/test_wide_fit.py"],
        [
            ("squares + from_centres[pivots.labels]", "squares"),
            ("recompute_close_pairs(product, Z, X)", "pass"),
            ("block += old.between[groups][:, old.labels]", "block += 0.0"),
        ],
    ),
    (
        "diffusion/_wide/column_reader.py",
        ["diffusion/wide/test_column_reader.py"],
        [
            ("if step != 1:", "if False:"),
            ("place + row * self.stride", "place + (row + 1) * self.stride"),
        ],
    ),
    (
        "hessian/_krylov/basis.py",
        ["hessian/krylov/test_basis.py", "hessian/krylov/test_lanczos.py"],
        [
            ("outward + self._lost[:n] @ np.abs(self._rotation)", "0 * outward"),
            ("coupling[:n_kept] = rotation.T @ self.coupling[:n]", "coupling[:n_kept] = 0.0"),
            ("weights=self._rotation[0] ** 2", "weights=np.abs(self._rotation[0])"),
            ('np.sort(np.argsort(-sizes, kind="stable")[:n_left])', "np.arange(n_left)"),
        ],
    ),
    (
        "hessian/_krylov/quadrature.py",
        ["hessian/krylov/test_spectral_density.py", "hessian/krylov/test_trace.py"],
        [
            ("weights[np.abs(quadrature.nodes - value).argmin()] -= share", "pass"),
            ("trace=mass * float(diagonal[0]),", "trace=mass * float(diagonal[-1]),"),
            ("weights=rotation[0] ** 2", "weights=rotation[-1] ** 2"),
        ],
    ),
    (
        "hessian/_risk/batch_weights.py",
        ["hessian/risk/test_batch_weights.py"],
        [
            ("shares.append((batch, weight / total))", "shares.append((batch, 1.0 / total))"),
            ("(targets != criterion.ignore_index).double()", "torch.ones(len(targets)).double()"),
            ("n_pieces = -(-n_rows // size)", "n_pieces = max(1, n_rows // size)"),
        ],
    ),
    (
        "hessian/_risk/curvatures.py",
        ["hessian/risk/test_curvatures.py"],
        [
            ("scale=chunk.n_rows", "scale=1"),
            ("(at.of_loss @ v) * at.of_loss", "(at.of_loss @ v) * at.of_samples"),
            ("product -= (at.of_samples @ v) * at.of_samples", "pass"),
            ("loss + 0.5 * weight_decay", "loss + weight_decay"),
            ("return losses.sum(dim=1) / chunk.total", "return losses.mean(dim=1) / chunk.total"),
        ],
    ),
    (
        "hessian/_risk/batch_norm.py",
        ["hessian/risk/test_batch_norm.py"],
        [
            ("(rows.stop - rows.start) * state", "len(loss.X) / len(batches) * state"),
            ('vars(layer)["momentum"] = 1.0', 'vars(layer)["momentum"] = 0.9'),
        ],
    ),
    (
        "hessian/_risk/chunking.py",
        ["hessian/risk/test_chunking.py"],
        [
            ("wanted = min(wanted, left / 6)", "pass"),
            ("of_a_row = max(0, more - few) / 16", "of_a_row = max(0, more - few) / 32"),
            (" and not (smoothed and zeros)", ""),
        ],
    ),
    (
        "hessian/_operators/base.py",
        ["hessian/operators/test_hessian_operator.py", "hessian/operators/test_memory_budget.py"],
        [
            ("self._headroom = 3 * chunk_bytes + 8 * self.size", "self._headroom = 0"),
            ("theta.dtype if theta.device.type == \"mps\" else torch.float64", "theta.dtype"),
        ],
    ),
    (
        "hessian/_operators/derivative_check.py",
        ["hessian/risk/test_wrong_derivatives.py", "hessian/operators/test_hessian_operator.py"],
        [
            ("1e-2, 30.0, 0.3", "1e-1, 30.0, 0.3"),
            ("1e-2, 30.0, 0.3", "1e-2, 3000.0, 0.3"),
            ("quotient - slope - bend) >", "0.0 * quotient) >"),
            ("None in of_loss and None in of_gr", "None in of_loss or None in of_gr"),
        ],
    ),
    (
        "hessian/_operators/hessian.py",
        ["hessian/operators/test_hessian_operator.py", "hessian/risk/test_wrong_derivatives.py"],
        [
            ("if not abs(size - paired) <= rounding:", "if False:"),
            ("rounding = eps**0.25 * size", "rounding = size"),
        ],
    ),
    (
        "trajectory/_storage/sketch.py",
        ["trajectory/storage/test_sketch.py", "trajectory/storage/test_writer.py"],
        [
            ("error = float(step @ step) / exact - 1", "error = float(step @ step) / exact"),
            ("self._lacks_first = left - self._first.keys()", "self._lacks_first = set()"),
            ("length = math.sqrt(exact)", "length = exact"),
        ],
    ),
    (
        "trajectory/_storage/half_precision.py",
        ["trajectory/storage/test_half_precision.py"],
        [
            ("after = before + scaled(coded, exponent) if", "after = theta if"),
            ("_EXPONENT = 14", "_EXPONENT = 18"),
        ],
    ),
    (
        "trajectory/_storage/table.py",
        ["trajectory/storage/test_damaged_and_refused_stores.py"],
        [
            ("(place > number))[:1]", "(place > number))[:0]"),
            ("else row.path_length", "else 0.0"),
        ],
    ),
]  # fmt: skip


LIBRARIES = [
    "numpy", "pytest", "scipy.linalg", "scipy.optimize", "scipy.sparse.csgraph",
    "scipy.sparse.linalg", "scipy.spatial.distance", "scipy.special", "scipy.stats", "joblib",
    "sklearn.datasets", "sklearn.manifold", "sklearn.model_selection", "sklearn.neighbors",
]  # fmt: skip


def survives(file, tests, old, new):
    """Whether the tests pass on a copy of the package with one expression replaced."""
    source = (ROOT / "skdmap" / file).read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise SystemExit(f"{file}: {old!r} occurs {source.count(old)} times, must once.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "skdmap"
        shutil.copytree(ROOT / "skdmap", copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / file).write_text(source.replace(old, new), encoding="utf-8")
        child = multiprocessing.get_context("fork").Process(target=run, args=(folder, tests))
        child.start()
        child.join(TIMEOUT)
        if child.is_alive():  # a loop without end is a failure too
            child.kill()
            child.join()
            return False
        if child.exitcode not in (0, 1):
            output = (Path(folder) / "output").read_text(encoding="utf-8")
            raise SystemExit(f"{file}: {old!r}: pytest ended with {child.exitcode}\n{output}")
    return child.exitcode == 0


def run(folder, tests):
    """Run tests on the package in a folder, and exit with their code."""
    import pytest

    os.chdir(ROOT)
    sys.path[:] = [folder, *(path for path in sys.path if path and Path(path) != ROOT)]
    sys.dont_write_bytecode = True
    with open(Path(folder) / "output", "w", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
        code = pytest.main([*options, *(f"tests/{test}" for test in tests)])
        import skdmap

        if not skdmap.__file__.startswith(folder):
            code = 5  # these were tests of another copy
    os._exit(int(code))


def main(wanted=""):
    survivors = 0
    for library in LIBRARIES:
        importlib.import_module(library)
    for file, tests, replacements in MUTANTS:
        for old, new in replacements if wanted in file else ():
            alive = survives(file, tests, old, new)
            survivors += alive
            print("SURVIVED" if alive else "killed  ", file, repr(old), "->", repr(new), flush=True)
    print(survivors, "survivors")
    return survivors


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
