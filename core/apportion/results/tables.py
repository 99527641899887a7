"""Tables, which need the optional dependency pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apportion.errors import ApportionError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["dataframe"]


def dataframe(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Make a pandas ``DataFrame``.

    Raises:
        ApportionError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ApportionError(
            'to_dataframe needs pandas, which is not installed: pip install "apportion[pandas]".'
        ) from error
    return pd.DataFrame(columns)
