"""Docstrings of every public name: numpydoc's rules, and agreement with the signature."""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import skdmap

# Rules of numpydoc that are not kept, each with its reason. All others must hold.
NOT_KEPT = {
    "ES01",  # a summary that says all needs no second paragraph
    "EX01",  # examples are asked for below, of classes and functions but not of methods
    "GL01",  # the summary stands on the first line, as ruff's rule D212 wants
    "RT02",  # what is returned may have a name, as in scikit-learn (X_new)
    "SA01",  # "See Also" only where there is something to see
    "SA04",  # a name in "See Also" may stand alone
}
ESTIMATORS = ("TrajectorySampler", "HessianSpectrum", "DiffusionMap")
# Inherited from packages that document them.
FOREIGN = ("sklearn.", "torch.", "numpy.", "builtins", "transformers.", "lightning.")


def public_objects():
    """Yield (dotted path, object) of all public names, in the order of their ``__all__``."""
    for name, module in skdmap._EXPORTS.items():
        yield f"{module}.{name}", getattr(skdmap, name)
    for folder in skdmap._SUBMODULES:
        module = importlib.import_module(f"skdmap.{folder}")
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


def public_methods(path, cls):
    """Yield (dotted path, function) of the documented methods that skdmap defines."""
    for name, member in inspect.getmembers(cls):
        function = inspect.unwrap(getattr(member, "__func__", member))
        if name.startswith("_") and name != "__call__":
            continue
        if not inspect.isfunction(function) or function.__module__.startswith(FOREIGN):
            continue
        yield f"{path}.{name}", function


PUBLIC = dict(public_objects())
METHODS = {
    path: method
    for owner, cls in PUBLIC.items()
    if inspect.isclass(cls)
    for path, method in public_methods(owner, cls)
}
RECORDS = {
    path
    for path, obj in PUBLIC.items()
    if inspect.isclass(obj) and hasattr(obj, "__dataclass_fields__")
}
WARNINGS = {p for p, o in PUBLIC.items() if inspect.isclass(o) and issubclass(o, Exception)}
CALLABLE = [path for path in PUBLIC if path not in RECORDS | WARNINGS]


def numpydoc_errors(path):
    found = validate(path)["errors"]
    # A record is made by its function: its fields are attributes, not parameters.
    skip = NOT_KEPT | ({"PR01"} if path in RECORDS else set())
    return [f"{code}: {message}" for code, message in found if code not in skip]


def documented_parameters(function):
    doc = sections(function)
    return {
        name.strip().lstrip("*"): parameter.type
        for section in ("Parameters", "Other Parameters")
        for parameter in doc[section]
        for name in parameter.name.split(",")
    }


def signature_of(obj):
    parameters = list(inspect.signature(obj).parameters.values())
    return {p.name: p for p in parameters if p.name not in ("self", "cls")}


def disagreements(obj):
    """Return where documented names, their order or their defaults differ from the signature."""
    documented, real = documented_parameters(obj), signature_of(obj)
    found = []
    if list(documented) != list(real):
        found.append(f"documented {list(documented)}, signature {list(real)}")
    for name in documented.keys() & real.keys():
        stated = re.search(r"default[ =:]+(.+)$", documented[name])
        default = real[name].default
        if default is inspect.Parameter.empty:
            if stated:
                found.append(f"{name}: states a default and has none")
        elif documented[name] == "Ignored" and default is None:
            continue  # scikit-learn's way to document y
        elif not stated:
            found.append(f"{name}: has the default {default!r} and does not state it")
        elif not _is_value(stated[1], default):
            found.append(f"{name}: states default={stated[1]} and has {default!r}")
    return found


def _is_value(text, value):
    try:
        stated = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text == repr(value)
    return stated == value and type(stated) is type(value)


def raises(function):
    """Say whether a function's own body makes an error, so that its docstring must say when."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(
        isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) for node in ast.walk(tree)
    )


def sections(obj):
    return NumpyDocString(inspect.cleandoc(obj.__doc__ or ""))


@pytest.mark.parametrize("path", [*PUBLIC, *METHODS])
def test_numpydoc_rules_hold(path):
    assert numpydoc_errors(path) == []


@pytest.mark.parametrize("path", [*CALLABLE, *METHODS])
def test_parameters_and_defaults_are_those_of_the_signature(path):
    obj = PUBLIC.get(path) or METHODS[path]
    assert disagreements(obj) == []


@pytest.mark.parametrize("path", [path for path in PUBLIC if path not in WARNINGS])
def test_classes_and_functions_have_an_example_that_runs(path):
    assert any(line.startswith(">>>") for line in sections(PUBLIC[path])["Examples"])


@pytest.mark.parametrize("path", [p for p in [*PUBLIC, *METHODS] if p not in WARNINGS])
def test_what_raises_says_when(path):
    obj = PUBLIC.get(path) or METHODS[path]
    if inspect.isfunction(obj) and raises(obj):
        assert sections(obj)["Raises"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_name_their_sources(name):
    references = "\n".join(sections(getattr(skdmap, name))["References"])
    assert re.search(r"(doi\.org/|:doi:`)10\.\d{4,}|arXiv:\d{4}\.\d{4,5}", references)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_document_their_fitted_attributes(name):
    cls = getattr(skdmap, name)
    documented = {attribute.name for attribute in sections(cls)["Attributes"]}
    assert documented
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr.endswith("_")
        and not node.attr.startswith("_")
    }
    missing = {name for name in stored - documented if not _mentioned(name, documented)}
    assert missing == set()


def _mentioned(name, documented):
    return any(name in re.split(r",\s*", entry) for entry in documented)


@pytest.mark.parametrize("path", sorted(RECORDS))
def test_records_document_their_fields(path):
    cls = PUBLIC[path]
    documented = {attribute.name for attribute in sections(cls)["Attributes"]}
    assert {f for f in cls.__dataclass_fields__ if not f.startswith("_")} <= documented


@pytest.mark.parametrize("name", sorted(WARNINGS))
def test_warnings_name_the_remedy(name):
    if PUBLIC[name] is not skdmap.exceptions.SkdmapWarning:
        assert "Remedy:" in PUBLIC[name].__doc__


def listed_in(page):
    """Return the dotted paths that the autosummary tables of a page list, in order."""
    module, inside, found = "", False, []
    for line in page.splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif line.startswith(".. autosummary::"):
            inside = True
        elif inside and line.startswith("   ") and not line.strip().startswith(":"):
            found.append(f"{module}.{line.strip()}")
        elif line and not line.startswith(" "):
            inside = False
    return found


def test_the_interface_page_lists_each_public_name_once():
    page = Path(__file__).parent.parent / "docs" / "api.md"
    public = [f"skdmap.{name}" for name in skdmap._EXPORTS]
    for folder in skdmap._SUBMODULES:
        names = importlib.import_module(f"skdmap.{folder}").__all__
        public += [f"skdmap.{folder}.{name}" for name in names]
    assert sorted(listed_in(page.read_text(encoding="utf-8"))) == sorted(public)


def wrong_default(a, *, b=2):
    """Add.

    Parameters
    ----------
    a : int
        One.
    b : int, default=3
        The other.
    """


def wrong_name(a):
    """Keep.

    Parameters
    ----------
    c : int
        None of the signature's.
    """


def unstated_default(a=1.0):
    """Keep.

    Parameters
    ----------
    a : int
        A number.
    """


def invented_default(a):
    """Keep.

    Parameters
    ----------
    a : int, default=1
        A number.
    """


@pytest.mark.parametrize("broken", [wrong_default, wrong_name, unstated_default, invented_default])
def test_a_docstring_that_lies_is_found(broken):
    assert disagreements(broken) != []


def test_a_docstring_that_breaks_numpydoc_is_found(monkeypatch):
    from skdmap.diagnostics import subspace_overlap

    monkeypatch.setattr(subspace_overlap, "__doc__", "overlap of things")
    codes = {
        error.split(":")[0] for error in numpydoc_errors("skdmap.diagnostics.subspace_overlap")
    }
    assert {"PR01", "RT01", "SS02", "SS03"} <= codes
