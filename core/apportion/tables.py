"""Tables need pandas, which is optional."""

from __future__ import annotations

from types import ModuleType

from apportion.errors import ApportionError

__all__ = ["pandas"]


def pandas() -> ModuleType:
    """The pandas module.

    Raises:
        ApportionError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ApportionError(
            'to_dataframe needs pandas, which is not installed: pip install "apportion[pandas]".'
        ) from error
    return pandas
