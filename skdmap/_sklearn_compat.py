"""The only module that imports or overrides scikit-learn's private names."""

from sklearn.utils._param_validation import HasMethods as HasMethods
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import InvalidParameterError as InvalidParameterError
from sklearn.utils._param_validation import Options as Options
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils._param_validation import (
    validate_parameter_constraints as validate_parameter_constraints,
)
from sklearn.utils.validation import validate_data as validate_data


class DocLinkMixin:
    """The HTML representation of an estimator links to its page of this documentation."""

    _doc_link_module = "skdmap"
    _doc_link_template = (
        "https://skdmap.readthedocs.io/en/stable/generated/skdmap.{estimator_name}.html"
    )
