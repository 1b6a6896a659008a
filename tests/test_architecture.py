"""The rules of docs/architecture.md, one test each.

Each rule is a function from a parsed file to a list of violations, so that a second test can show
that it finds one in a file that breaks it.
"""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skdmap

ROOT = Path(__file__).parent.parent
PACKAGE = Path(skdmap.__file__).parent
LEGS = ("trajectory", "hessian", "diffusion")
HEAVY = ("torch", "pynndescent", "numba", "matplotlib")
ESTIMATORS = {
    "DiffusionMap": PACKAGE / "diffusion" / "_diffusion_map.py",
    "HessianSpectrum": PACKAGE / "hessian" / "_hessian_spectrum.py",
    "TrajectorySampler": PACKAGE / "trajectory" / "_trajectory_sampler.py",
}
# Not results but the state of a training run, which goes on from where it stopped.
MUTABLE_STATE = {"Pass", "Run"}
# Array functions that compute. Shapes, types and counting are no mathematics.
# fmt: off
MATHEMATICS = {
    "abs", "argsort", "clip", "cos", "cumsum", "diff", "dot", "eigh",
    "eigvalsh", "einsum", "exp", "linalg", "log", "matmul", "max", "mean", "median",
    "min", "norm", "outer", "percentile", "power", "prod", "qr", "quantile", "sin",
    "sort", "sqrt", "square", "std", "sum", "svd", "tensordot", "var",
}
# fmt: on


def files(*folders):
    return sorted(file for folder in folders for file in (PACKAGE / folder).glob("*.py"))


def parse(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.package = ".".join(("skdmap", *file.relative_to(PACKAGE).parts[:-1]))
    return tree


def stage_files():
    found = files(*LEGS, "diagnostics", "datasets")
    return [f for f in found if f.name != "__init__.py" and f not in ESTIMATORS.values()]


def imports(tree):
    """Return the dotted names that a file imports anywhere, with the names it takes from them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = importlib.util.resolve_name("." * node.level + module, tree.package)
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def imports_of(tree, *prefixes):
    return [name for name in imports(tree) if any(f"{name}.".startswith(f"{p}.") for p in prefixes)]


def private_sklearn_names(tree):
    return [
        name for name in imports_of(tree, "sklearn") if any(p[0] == "_" for p in name.split("."))
    ]


def mathematics(tree):
    """Return the operators and numpy or torch calls in an estimator's file that compute."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.MatMult, ast.Pow)):
            if isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant):
                continue  # a number written as a power
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Attribute) and node.attr in MATHEMATICS:
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in ("np", "numpy", "torch", "scipy"):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    # To know a sparse matrix when one comes in is no mathematics.
    kinds = ("scipy.sparse", "scipy.sparse.issparse")
    return found + [name for name in imports_of(tree, "scipy", "numpy.linalg") if name not in kinds]


def statements_of_fit(tree):
    """Return the number of statements in ``fit``, docstring left out, nested ones counted."""
    (fit,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "fit"
    )
    count = sum(isinstance(node, ast.stmt) for node in ast.walk(fit)) - 1
    return count - (ast.get_docstring(fit) is not None)


def impurities(tree):
    """Return what makes a stage other than plain functions and frozen records."""
    found = [
        f"line {node.lineno}: global state"
        for node in ast.walk(tree)
        if isinstance(node, (ast.Global, ast.Nonlocal))
    ]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                frozen = "frozen=True" in text or node.name in MUTABLE_STATE
                if "dataclass" in text and not frozen:
                    found.append(f"line {node.lineno}: record {node.name} is not frozen")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [a.arg for a in node.args.posonlyargs + node.args.args]
            if "self" in arguments:
                found.append(f"line {node.lineno}: {node.name} takes self")
    return found


def test_there_are_two_levels_of_folders_never_three():
    nested = [folder for folder in PACKAGE.glob("*/*/") if folder.name != "__pycache__"]
    assert nested == []


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_holds_no_mathematics(name):
    assert mathematics(parse(ESTIMATORS[name])) == []


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fit_reads_as_the_map(name):
    assert statements_of_fit(parse(ESTIMATORS[name])) <= 25


@pytest.mark.parametrize("file", stage_files(), ids=lambda f: f"{f.parent.name}/{f.name}")
def test_a_stage_is_plain_functions_and_imports_no_estimator(file):
    tree = parse(file)
    estimators = [f"skdmap.{f.parent.name}.{f.stem}" for f in ESTIMATORS.values()]
    packages = [f"skdmap.{f.parent.name}.{name}" for name, f in ESTIMATORS.items()]
    tops = [f"skdmap.{name}" for name in ESTIMATORS]
    assert imports_of(tree, *estimators, *packages, *tops) == []
    assert impurities(tree) == []


@pytest.mark.parametrize("folder", ["diffusion", "plotting", "diagnostics", "datasets"])
def test_no_torch_outside_the_legs_that_need_it(folder):
    for file in files(folder):
        assert imports_of(parse(file), "torch", "skdmap._parameters") == [], file


@pytest.mark.parametrize(
    ("folder", "others"),
    [
        ("trajectory", ("hessian", "diffusion", "diagnostics", "plotting")),
        ("hessian", ("trajectory", "diffusion", "diagnostics", "plotting")),
        ("diffusion", ("trajectory", "hessian", "diagnostics", "plotting")),
        ("diagnostics", (*LEGS, "plotting")),
        ("plotting", (*LEGS, "diagnostics")),
        ("datasets", (*LEGS, "diagnostics", "plotting")),
    ],
)
def test_legs_do_not_import_each_other(folder, others):
    for file in files(folder):
        assert imports_of(parse(file), *(f"skdmap.{other}" for other in others)) == [], file


def test_private_sklearn_names_have_one_door():
    found = {
        str(file.relative_to(PACKAGE)): names
        for file in PACKAGE.rglob("*.py")
        if (names := private_sklearn_names(parse(file)))
    }
    assert set(found) <= {"_sklearn_compat.py"}
    assert found, "the door leads somewhere, or this test sees nothing"


def loaded_after(statement, modules=HEAVY):
    code = f"import sys\n{statement}\nprint([m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout)


def test_import_skdmap_is_cheap():
    assert loaded_after("import skdmap") == []


@pytest.mark.parametrize(
    "statement",
    [
        "from skdmap import DiffusionMap",
        "import skdmap.diagnostics, skdmap.datasets, skdmap.exceptions",
        "import skdmap.plotting",
    ],
)
def test_what_needs_no_torch_loads_none(statement):
    assert loaded_after(statement, ("torch", "matplotlib")) == []


def type_checking_names(tree):
    found = []
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                origin = statement.module
                found += [(origin, alias.asname or alias.name) for alias in statement.names]
    return found


def test_lazy_exports_agree_with_all_and_with_the_imports_for_type_checkers():
    lazy = [(module, name) for name, module in skdmap._EXPORTS.items()]
    lazy += [("skdmap", name) for name in skdmap._SUBMODULES]
    assert [name for _, name in lazy] == skdmap.__all__
    assert sorted(lazy) == sorted(type_checking_names(parse(PACKAGE / "__init__.py")))
    for module, name in lazy:
        if module == "skdmap":
            assert getattr(skdmap, name) is importlib.import_module(f"skdmap.{name}")
        else:
            assert getattr(skdmap, name) is getattr(importlib.import_module(module), name)
    assert set(skdmap.__all__) <= set(dir(skdmap))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'DifusionMap'"):
        skdmap.DifusionMap  # noqa: B018 - the access is the test


def test_each_public_name_has_one_path():
    places = {}
    for folder in ("diagnostics", "plotting", "datasets", "exceptions"):
        for name in importlib.import_module(f"skdmap.{folder}").__all__:
            places.setdefault(name, []).append(folder)
    for name in skdmap._EXPORTS:
        places.setdefault(name, []).append("skdmap")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (mathematics, "import numpy as np\ny = np.linalg.eigh(x)"),
        (mathematics, "y = a @ b"),
        (mathematics, "from scipy.linalg import eigh"),
        (impurities, "@dataclass\nclass Record:\n    x: int"),
        (impurities, "def f():\n    global cache\n    cache = 1"),
        (impurities, "def embed(self, x):\n    return x"),
        (private_sklearn_names, "from sklearn.utils._param_validation import Interval"),
        (private_sklearn_names, "from sklearn.utils.validation import _check_sample_weight"),
        (private_sklearn_names, "def f():\n    import sklearn.neighbors._base"),
        (lambda tree: imports_of(tree, "torch"), "def f():\n    from torch import nn"),
    ],
)
def test_the_rules_find_what_breaks_them(rule, source):
    assert rule(ast.parse(source)) != []


def test_the_rules_let_pass_what_keeps_them():
    source = (
        "import numpy as np\nfrom sklearn.base import BaseEstimator\n"
        "@dataclass(frozen=True)\nclass Record:\n    x: int\n"
        "def stage(x, *, k=2):\n    return np.asarray(x)\n"
    )
    tree = ast.parse(source)
    assert mathematics(tree) + impurities(tree) + private_sklearn_names(tree) == []
    assert imports_of(tree, "torch", "nump") == []


@pytest.mark.parametrize("marker", ["main-command", "test-command", "cpu-torch-command"])
def test_the_readme_gives_each_command_once_and_ci_reads_it_there(marker):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"<!-- {marker} -->\n```bash\n(.+)\n```\n", readme)
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"readme_command {marker}" in ci
    # A copy in the script could drift from the README.
    assert command not in ci
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
