"""Which test models the end-to-end tests convert, and what they ask them."""

from pathlib import Path

import pytest

from testdata.make_testdata import MODELS
from tests.oracle import Loader, Values, open_model

BATCH_SIZES = (1, 3)


def names(*always: str) -> list[object]:
    """The models that can be converted; those of real size are slow, except where the test can afford one of them."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if model.slow and name not in always else name
        for name, model in MODELS.items()
        if not model.error
    ]


def answers(name: str, directory: Path, loader: Loader, meta_optimizer: bool) -> list[Values | object]:
    """What the model answers to its signatures and, with the v2 loader, to direct calls of its functions."""
    model = MODELS[name]
    with open_model(directory, loader, meta_optimizer) as opened:
        found: list[Values | object] = [
            opened.run(signature, model.make_inputs(signature, batch))
            for signature in model.signatures
            for batch in BATCH_SIZES
        ]
        if opened.loaded is not None:
            found += [
                opened.call(attribute, *model.make_arguments(attribute, batch))
                for attribute in model.direct
                for batch in BATCH_SIZES
            ]
    return found
