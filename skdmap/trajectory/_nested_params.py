"""Names such as ``optimizer__lr`` that reach into the estimator's dicts."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Self

from sklearn.base import BaseEstimator

from skdmap._sklearn_compat import InvalidParameterError

__all__ = ["NestedParamsEstimator", "did_you_mean"]


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the option nearest to ``name``, else the list of options."""
    options = list(options)
    close = get_close_matches(str(name), options, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(options)}."


class NestedParamsEstimator(BaseEstimator):
    """Lets ``prefix__key`` stand for ``prefix_params[key]`` in get_params and set_params.

    The class lists its prefixes in ``_nested_prefixes``; for each it has a parameter
    ``<prefix>_params`` that holds a dict or None.
    """

    _nested_prefixes: tuple[str, ...] = ()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Add one name ``prefix__key`` for each key of each dict.

        Returns
        -------
        dict
            Parameter names and values.
        """
        # Shallow, because a module given by the user may have a get_params of its own.
        params = super().get_params(deep=False)
        if deep:
            for prefix in self._nested_prefixes:
                nested = params[f"{prefix}_params"]
                if isinstance(nested, Mapping):
                    params |= {f"{prefix}__{key}": value for key, value in nested.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, among them keys of the dicts, as in ``optimizer__lr=0.1``.

        A nested name puts a new dict in place: a dict that was passed in is never changed.

        Parameters
        ----------
        **params : dict
            Parameter names, plain or nested, and values.

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        InvalidParameterError
            If a name or a prefix is unknown; nothing is set then. Keys behind the prefix are
            checked in ``fit``, when it is known what takes them.
        """
        known = self.get_params(deep=False)
        plain: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in params.items():
            prefix, delimiter, key = name.partition("__")
            if delimiter and prefix in self._nested_prefixes:
                nested.setdefault(f"{prefix}_params", {})[key] = value
            elif name in known:
                plain[name] = value
            else:
                meant = [f"{p}__{key}" for p in self._nested_prefixes] if delimiter else known
                raise InvalidParameterError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}. "
                    f"{did_you_mean(name, meant)}"
                )
        for name, extra in nested.items():
            value = plain.get(name, known[name])
            if value is not None and not isinstance(value, Mapping):
                raise InvalidParameterError(
                    f"{name}={value!r} must be a dict or None before a key of it can be set."
                )
            plain[name] = {**(value or {}), **extra}
        for name, value in plain.items():
            setattr(self, name, value)
        return self
