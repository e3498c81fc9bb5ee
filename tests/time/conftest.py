"""What the tests of time share: modules with one mistake in them."""

import inspect
from types import ModuleType

import pytest


@pytest.fixture
def mutated():
    """mutated(module, right, wrong): a copy of the module, in which the one place that reads `right` reads `wrong`."""

    def build(module, right, wrong):
        source = inspect.getsource(module)
        assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {module.__name__}"
        copy = ModuleType(f"{module.__name__}_mutated")
        exec(compile(source.replace(right, wrong), module.__file__, "exec"), copy.__dict__)  # noqa: S102 (our own source)
        return copy

    return build
