"""Modules under the short names that users know, and nothing hidden in the graph."""

import importlib
import pickle

import pytest

import conversion
from conversion import convert

MODULES = ["cos", "dcgs", "ecmt", "energy", "lmht", "parallel", "qcfs", "srp", "thresholds"]


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_short_names(name):
    module = importlib.import_module(f"conversion.{name}")
    assert module is getattr(conversion, name)
    assert name in conversion.__all__
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


@pytest.mark.parametrize("method", ["qcfs", "dcgs"])
def test_what_is_known_of_a_network_is_in_its_records(relu_net, images, method):
    snn = convert(relu_net, method, 3, images(), progress=False)
    own = {"role", "operation", "fulgurite"}
    assert not own & set(snn.meta)
    assert not any(own & set(node.meta) for node in snn.graph.nodes)
    twin = pickle.loads(pickle.dumps(snn))
    assert type(twin).__mro__[1] is type(snn).__mro__[1] is conversion.ConvertedModel
    assert twin.annotation.operations == snn.annotation.operations
    assert twin.annotation.traits == snn.annotation.traits == snn.method.traits
    assert twin.conversion.recipe == snn.conversion.recipe
    assert all(m.clock is twin.clock for m in twin.modules() if hasattr(m, "clock"))
