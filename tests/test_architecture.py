"""The rules of docs/architecture.md, one test each.

Each rule is a function from a parsed file (or the paths of all files) to a list of violations, so
that a second test can show that it finds one in a file that breaks it.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import skdmap

ROOT = Path(__file__).parent.parent
PACKAGE = Path(skdmap.__file__).parent
LEGS = ("trajectory", "hessian", "diffusion")
HEAVY = ("torch", "pynndescent", "numba", "matplotlib", "dask", "plotly", "jinja2")
ESTIMATORS = {
    "DiffusionMap": PACKAGE / "diffusion" / "_diffusion_map.py",
    "HessianSpectrum": PACKAGE / "hessian" / "_hessian_spectrum.py",
    "TrajectorySampler": PACKAGE / "trajectory" / "_trajectory_sampler.py",
}
# The functions that DiffusionMap.fit calls, in this order: the map in docs/architecture.md.
STEPS_OF_FIT = (
    "neighbor_graph",
    "resolve_bandwidth",
    "gaussian_kernel",
    "markov_operator",
    "leading_eigenpairs",
    "eigenfunctions",
    "diffusion_spectrum",
    "nystrom_extension",
    "for_all_samples",
)
MAX_FILES, MAX_LEVELS = 16, 3
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PRIVATE_DOCSTRING = 700, 60, 3
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
# Words that nobody outside the project would look for, in code and texts.
PRIVATE_WORDS = (
    "hang by a thread",
    "hastened",
    "everybody",
    "scout",
    "keeper",
    "in company",
    "on trial",
    "seldom left",
    "wider ritz block",
    "squared pace",
)  # fmt: skip
DIALECT_OF_FILES = {"everybody", "doubt", "scout", "keeper", "together", "misfits"}
# Too vague to be the whole name of a file.
VAGUE_NAMES = {"room", "modes", "profile", "stages", "claims", "hidden faults", "way"}


def files(*folders):
    """Return the Python files of folders of the package, those of their sub-packages included."""
    return sorted(file for folder in folders for file in (PACKAGE / folder).rglob("*.py"))


def files_of_tests():
    return sorted((ROOT / "tests").rglob("*.py"))


def label(file):
    return file.relative_to(ROOT).as_posix()


def parse(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def is_private(file):
    """Whether a module, or a sub-package that it stands in, has a leading underscore."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return any(part.startswith("_") and part != "__init__" for part in parts)


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
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def imports_of(tree, *prefixes):
    return [name for name in imports(tree) if any(f"{name}.".startswith(f"{p}.") for p in prefixes)]


def relative_imports(tree):
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return [f"line {node.lineno}: {ast.unparse(node)}" for node in found]


def misplaced(paths):
    """Return what breaks the tree: a level too many, a full folder, underscores in wrong places.

    ``paths`` are relative to the package. A leg's private sub-package has a leading underscore;
    the files inside have none, because the folder says it already.
    """
    found = [
        f"{path}: more than {MAX_LEVELS} levels" for path in paths if len(path.parts) > MAX_LEVELS
    ]
    modules = [path for path in paths if path.name != "__init__.py"]
    counts = Counter(path.parent for path in modules)
    found += [f"{folder}: {n} files" for folder, n in counts.items() if n > MAX_FILES]
    for path in paths:
        if len(path.parts) == MAX_LEVELS and not path.parts[1].startswith("_"):
            found.append(f"{path}: a sub-package without underscore")
    for path in modules:
        if len(path.parts) == MAX_LEVELS and path.name.startswith("_"):
            found.append(f"{path}: an underscore twice")
    return found


def dialect_in_name(path):
    """Return what nobody would look up in a file's name, and numbers of issues."""
    words = path.stem.lower().removeprefix("test_").strip("_").split("_")
    found = [w for w in words if w in DIALECT_OF_FILES or re.fullmatch(r"[a-z]\d+", w)]
    return found + [name for name in [" ".join(words)] if name in VAGUE_NAMES]


def docstring_lines(node):
    """Return the number of lines from the opening to the closing quotes, 0 without docstring."""
    if ast.get_docstring(node, clean=False) is None:
        return 0
    return node.body[0].end_lineno - node.body[0].lineno + 1


def definitions(tree, public=frozenset()):
    """Yield (qualified name, node, whether it is public) of each function and class of a file.

    Public are the names in ``public`` and the methods of public classes without underscore.
    """

    def below(node, prefix, inside_public):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}{child.name}"
                if prefix:
                    shown = not child.name.startswith("_") or child.name == "__call__"
                    is_public = inside_public and shown
                else:
                    is_public = child.name in public
                yield name, child, is_public
                is_class = isinstance(child, ast.ClassDef)
                yield from below(child, f"{name}.", is_public and is_class)
            else:
                yield from below(child, prefix, inside_public)

    yield from below(tree, "", False)


def lines_without_docstrings(node):
    inner = sum(docstring_lines(child) for _, child, _ in definitions(node))
    return node.end_lineno - node.lineno + 1 - docstring_lines(node) - inner


def long_functions(tree):
    return [
        f"line {node.lineno}: {name} has {n} lines"
        for name, node, _ in definitions(tree)
        if not isinstance(node, ast.ClassDef)
        and (n := lines_without_docstrings(node)) > MAX_FUNCTION_LINES
    ]


def too_long(source):
    """Return a violation where a file has too many lines, its docstrings not counted."""
    tree = ast.parse(source)
    n = len(source.splitlines()) - docstring_lines(tree)
    n -= sum(docstring_lines(node) for _, node, _ in definitions(tree))
    return [f"{n} lines"] if n > MAX_FILE_LINES else []


def long_private_docstrings(tree, public=frozenset()):
    return [
        f"line {node.lineno}: docstring of {name} has {n} lines"
        for name, node, is_public in definitions(tree, public)
        if not is_public and (n := docstring_lines(node)) > MAX_PRIVATE_DOCSTRING
    ]


def exports(tree):
    return [
        f"line {node.lineno}: __all__"
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign))
        and "__all__" in ast.unparse(node).split("=")[0]
    ]


def private_words(source):
    """Return the words of the project's own dialect in code, comments and texts.

    Line breaks, comment signs and underscores count as spaces. "is none" is looked for in lower
    case only: Python readers take it for None.
    """
    plain = re.sub(r"[\s_#]+", " ", source)
    found = [word for word in PRIVATE_WORDS if re.search(rf"\b{word}", plain, re.IGNORECASE)]
    return found + re.findall(r"\bis none\b", plain)


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


def function_named(tree, name):
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    return found


def missing_steps(tree, steps):
    """Return the steps that ``fit`` does not call by name, or calls before an earlier step."""
    calls = [node for node in ast.walk(function_named(tree, "fit")) if isinstance(node, ast.Call)]
    names = [
        node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func).split(".")[-1]
        for node in sorted(calls, key=lambda node: (node.lineno, node.col_offset))
    ]
    missing, start = [], 0
    for step in steps:
        if step in names[start:]:
            start = names.index(step, start) + 1
        else:
            missing.append(step)
    return missing


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


def test_files_stand_on_three_levels_at_most_and_few_in_a_folder():
    assert misplaced([file.relative_to(PACKAGE) for file in files(".")]) == []


@pytest.mark.parametrize("file", [*files("."), *files_of_tests()], ids=label)
def test_a_file_has_a_name_that_can_be_looked_up(file):
    assert dialect_in_name(file) == []


@pytest.mark.parametrize("file", files("."), ids=label)
def test_files_are_short_and_name_what_they_import_in_full(file):
    assert too_long(file.read_text(encoding="utf-8")) == []
    assert relative_imports(parse(file)) == []


@pytest.mark.parametrize("file", files_of_tests(), ids=label)
def test_test_files_do_not_import_each_other(file):
    tree = parse(file)
    assert relative_imports(tree) + imports_of(tree, "tests", "conftest") == []


@pytest.mark.parametrize("file", files("."), ids=label)
def test_functions_are_short(file):
    assert long_functions(parse(file)) == []


def public_names():
    modules = [skdmap, *(importlib.import_module(f"skdmap.{n}") for n in skdmap._SUBMODULES)]
    modules += [importlib.import_module(f"skdmap.{leg}") for leg in LEGS]
    # What open_trajectory returns; what displays inherit from_result of.
    inherited = {"StoredTrajectory", "ResultDisplay"}
    return {name for module in modules for name in module.__all__} | inherited


@pytest.mark.parametrize("file", files("."), ids=label)
def test_what_is_private_has_a_docstring_of_three_lines_at_most(file):
    assert long_private_docstrings(parse(file), public_names()) == []


@pytest.mark.parametrize("file", [f for f in files(".") if is_private(f)], ids=label)
def test_private_modules_have_no_all(file):
    assert exports(parse(file)) == []


@pytest.mark.parametrize("file", files("."), ids=label)
def test_words_are_those_of_the_field(file):
    assert private_words(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_holds_no_mathematics(name):
    assert mathematics(parse(ESTIMATORS[name])) == []


def test_fit_names_the_steps_of_the_map():
    assert missing_steps(parse(ESTIMATORS["DiffusionMap"]), STEPS_OF_FIT) == []


@pytest.mark.parametrize("file", stage_files(), ids=label)
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
        ("trajectory", ("hessian", "diffusion", "diagnostics", "plotting", "integrations")),
        ("hessian", ("trajectory", "diffusion", "diagnostics", "plotting", "integrations")),
        ("diffusion", ("trajectory", "hessian", "diagnostics", "plotting", "integrations")),
        ("diagnostics", (*LEGS, "plotting", "integrations")),
        ("plotting", (*LEGS, "diagnostics", "integrations")),
        ("datasets", (*LEGS, "diagnostics", "plotting", "integrations")),
        ("integrations", ("hessian", "diffusion", "diagnostics", "plotting")),
    ],
)
def test_legs_do_not_import_each_other(folder, others):
    for file in files(folder):
        assert imports_of(parse(file), *(f"skdmap.{other}" for other in others)) == [], file


@pytest.mark.parametrize("file", files("hessian/_krylov"), ids=label)
def test_krylov_methods_know_an_operator_and_no_model_loss_or_data(file):
    tree = parse(file)
    assert imports_of(tree, "torch.nn", "torch.utils", "torch.func", "skdmap._parameters") == []
    own = imports_of(tree, "skdmap.hessian._krylov")
    assert [name for name in imports_of(tree, "skdmap.hessian") if name not in own] == []


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
    for folder in skdmap._SUBMODULES:
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
        (lambda tree: imports_of(tree, "skdmap.hessian"), "from skdmap import hessian"),
        (relative_imports, "from . import _kernel"),
        (relative_imports, "def f():\n    from .._random import numpy_generator"),
        (long_functions, "def f(x):\n" + 60 * "    x += 1\n"),
        (long_functions, "class A:\n    def f(self, x):\n" + 60 * "        x += 1\n"),
        (long_private_docstrings, 'def f(x):\n    """One.\n\n    Two.\n    """'),
        (long_private_docstrings, 'class A:\n    def f(x):\n        """One.\n\n\n        """'),
        (exports, '__all__ = ["kernel"]'),
        (exports, '__all__: list[str] = ["kernel"]'),
        (lambda tree: missing_steps(tree, ["graph"]), "def fit(self):\n    return self"),
        (
            lambda tree: missing_steps(tree, ["graph", "kernel"]),
            "def fit(self):\n    kernel(1)\n    graph(2)",
        ),
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
    assert relative_imports(tree) + exports(tree) == []


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (misplaced, [Path("diffusion/_wide/_deep/a.py")], [Path("diffusion/_wide/pivots.py")]),
        (misplaced, [Path("diffusion/wide/a.py")], [Path("diffusion/_wide/__init__.py")]),
        (misplaced, [Path("diffusion/_wide/_a.py")], [Path("diffusion/_kernel.py")]),
        (
            misplaced,
            [Path(f"diffusion/_{i}.py") for i in range(17)],
            [Path("diffusion/__init__.py"), *(Path(f"diffusion/_{i}.py") for i in range(16))],
        ),
        (dialect_in_name, Path("diffusion/_keeper.py"), Path("diffusion/_kernel.py")),
        (dialect_in_name, Path("tests/test_r8.py"), Path("tests/test_kd_tree.py")),
        (dialect_in_name, Path("tests/test_claims.py"), Path("tests/test_published_claims.py")),
        (too_long, 701 * "x = 1\n", 700 * "x = 1\n"),
        (too_long, 701 * "# x\n", '"""\n' + 700 * "text\n" + '"""\n'),
        (private_words, "# rows that hang\n# by a Thread", "x is None  # the thread hangs"),
        (private_words, "class RowKeeper_: pass; keeper = 1", "everything, every body"),
        (private_words, "_n_on_trial = 1", "trial = 1"),
        (private_words, '"a name that is\n    none"', '"value" if x is None else y'),
    ],
)
def test_the_rules_of_the_tree_and_of_texts_tell_bad_from_good(rule, bad, good):
    assert rule(bad) != []
    assert rule(good) == []


def test_the_rules_of_length_count_no_docstrings_and_spare_public_names():
    long = 'class Public:\n    """One.\n' + 70 * "\n" + '    """\n'
    method = (
        '    def fit(self, x):\n        """One.\n' + 70 * "\n" + '        """\n        return x\n'
    )
    tree = ast.parse(long + method)
    assert long_functions(tree) == []
    assert long_private_docstrings(tree, {"Public"}) == []
    assert len(long_private_docstrings(tree)) == 2
    assert long_private_docstrings(ast.parse('def f():\n    """One\n    two\n    """')) == []


def test_fit_names_its_steps_in_order_and_may_do_more():
    source = "def fit(self):\n    x = check(graph(1))\n    return self.kernel(scale(x))"
    assert missing_steps(ast.parse(source), ["graph", "kernel"]) == []


ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ROOT_PAGES)])


def missing_paths(text, root=ROOT):
    """Return the files of the repository that a page names in backticks and that do not exist."""
    named = re.findall(r"`((?:skdmap|tests|docs|examples|benchmarks)/[\w./]+\.\w+)", text)
    return [path for path in named if not (root / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_files_that_a_page_names_exist(page):
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_each_part_and_file_of_the_package_stands_on_the_page_on_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = [file.relative_to(PACKAGE) for file in files(".") if file.name != "__init__.py"]
    legs = (*LEGS, "diagnostics", "plotting", "datasets", "integrations")
    own = {p.name for p in paths if len(p.parts) == 1 or (p.parts[0] in LEGS and len(p.parts) == 2)}
    parts = {f"{p.parts[1]}/" for p in paths if len(p.parts) == 3 and p.parts[0] in LEGS}
    named = own | parts | {f"{leg}/" for leg in legs}
    assert {name for name in named if f"`{name}`" not in text} == set()


def misplaced_formulas(text):
    """Return the functions of the table of formulas that are not in the file of their row."""
    table = text.split("## Where each formula is computed")[1].split("## References")[0]
    wrong = []
    for line in table.splitlines():
        names, places = (
            re.findall(r"`(\w+(?:\.py)?)`", cell) for cell in line.split("|")[2:4] or 2 * [""]
        )
        sources = [PACKAGE / "diffusion" / place for place in places if place.endswith(".py")]
        if sources:
            defined = {name for f in sources for name, _, _ in definitions(parse(f))}
            wrong += [name for name in names if name not in defined]
    return wrong


def test_each_formula_is_computed_where_the_page_on_theory_says():
    text = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    assert misplaced_formulas(text) == []
    assert misplaced_formulas(text.replace("`preimage`", "`inverse`")) == ["inverse"]


def test_a_page_that_names_a_missing_file_is_found():
    assert missing_paths("see `skdmap/_missing.py`") == ["skdmap/_missing.py"]
    assert missing_paths("see `skdmap/__init__.py` and `numpy/missing.py`") == []


@pytest.mark.parametrize("marker", ["main-command", "test-command", "cpu-torch-command"])
def test_the_readme_gives_each_command_once_and_ci_reads_it_there(marker):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"<!-- {marker} -->\n```bash\n(.+)\n```\n", readme)
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"readme_command {marker}" in ci
    # A copy in the script could drift from the README.
    assert command not in ci
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
