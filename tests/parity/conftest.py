"""The files of numbers as fixtures, and the source networks that some of them describe."""

from __future__ import annotations

import pytest

import zoo
from tests.parity.goldens import Golden
from tests.parity.sources import described
from zoo.files.strict import load_strict
from zoo.models import qcfs_resnet, qcfs_vgg


@pytest.fixture
def golden(request):
    """A file that the test is parametrised over, read afresh."""
    return Golden(request.param)


@pytest.fixture
def case(request):
    """One case of a file, read afresh."""
    return Golden(*request.param)


@pytest.fixture
def qcfs_source(golden):
    """The source network whose state ``golden`` holds."""
    state = golden.under("params.")
    name, kwargs = described(state)
    model = zoo.create(name, levels=golden.sidecar["L"], **kwargs).eval()
    module = qcfs_vgg if "vgg" in name else qcfs_resnet
    load_strict(model, module.checkpoint_filter_fn(state, model), source=golden.name)
    return model
