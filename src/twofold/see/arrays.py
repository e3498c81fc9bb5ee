"""One door for values: lists, NumPy arrays and tensors (any device, any float type) become NumPy arrays."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Values: TypeAlias = ArrayLike | Tensor


def array(values: Values) -> NDArray[Any]:
    """Return the values as an array. Floating tensors become float64, since NumPy has no bfloat16."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.asarray(values.double() if values.is_floating_point() else values)
    return np.asarray(values)


def whole_numbers(values: Values, who: str) -> NDArray[np.int64]:
    """Return the values as int64. Raises ValueError if one is not a whole number."""
    numbers = array(values)
    if numbers.size == 0:
        return numbers.astype(np.int64)
    if numbers.dtype.kind not in "iufb":
        raise ValueError(f"{who}: expected whole numbers, got {numbers.dtype} values such as {numbers.flat[0]!r}")
    wrong = numbers[~np.isfinite(numbers) | (numbers != np.floor(numbers))]
    if wrong.size:
        raise ValueError(f"{who}: expected whole numbers, got {wrong.flat[0]}. Give counts or class indices, not shares.")
    return numbers.astype(np.int64)
