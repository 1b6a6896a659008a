"""What displays of results have in common: they are made from a result, and drawn."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from skdmap.plotting._checks import check_result


class ResultDisplay(ABC):
    """A display of what a function of ``skdmap.diagnostics`` returns."""

    _function: ClassVar[str]

    @staticmethod
    @abstractmethod
    def _arguments(result: Any) -> dict[str, Any]:
        """Return the arguments of the display that draws ``result``."""

    @abstractmethod
    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the display on ``ax``."""

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw a result of the function of ``skdmap.diagnostics`` under See Also.

        Parameters
        ----------
        result : object
            What the function returned.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``plot``.

        Returns
        -------
        ResultDisplay
            The display, drawn.

        Raises
        ------
        InvalidParameterError
            If ``result`` is of another type.
        """
        try:
            arguments = cls._arguments(result)
        except AttributeError as error:
            if error.obj is not result:
                raise
            check_result(result, cls._function, str(error.name))
            raise
        return cls(**arguments).plot(ax=ax, **kwargs)
