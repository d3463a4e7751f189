"""NIR files, whoever wrote them: what they compute here, and what is refused."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import CheckpointError

nir = pytest.importorskip("nir", reason="the extra 'nir' is not installed")
h5py = pytest.importorskip("h5py", reason="the extra 'nir' is not installed")
from zoo.interchange.from_nir import network_of  # noqa: E402


def lif(n=3, *, tau=2e-4, r=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0):
    full = lambda value: np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)).copy()  # noqa: E731
    return nir.LIF(
        tau=full(tau), r=full(r), v_leak=full(v_leak), v_threshold=full(v_threshold), v_reset=full(v_reset)
    )


def graph_with(*nodes, n=3):
    names = ["input", *(f"node{i}" for i in range(len(nodes))), "output"]
    made = [nir.Input(np.array([n])), *nodes, nir.Output(np.array([n]))]
    return nir.NIRGraph(
        dict(zip(names, made, strict=True)), list(itertools.pairwise(names)), type_check=False
    )


INPUT = nir.Input(np.array([3]))
UNEVEN = np.array([1.0, 2.0, 2.0])
WEIGHT = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)


def spikes(node, currents, **options):
    """Of three equal neurons, the first one's, over these currents."""
    network = network_of(graph_with(node), **options)
    x = torch.tensor(currents)[:, None, None].expand(-1, 1, 3)
    return network(x, steps=True)[:, 0, 0].tolist()


def test_by_hand():
    """v + (x - v) / 2 of x = 1.5: 0.75, 1.125 fires; v / 2 + x fires at once; IF of 0.5 at every other."""
    assert spikes(lif(), [1.5] * 4) == [0, 1, 0, 1]
    assert spikes(lif(r=2.0), [1.5] * 3) == [1, 1, 1]
    assert spikes(lif(r=2.0), [0.6] * 4) == [0, 0, 1, 0]  # 0.6, 0.9, 1.05
    integrate = nir.IF(r=np.full(3, 1e4), v_threshold=np.ones(3), v_reset=np.zeros(3))
    assert spikes(integrate, [0.5] * 4) == [0, 1, 0, 1]


def test_conventions_of_r_and_dt():
    assert spikes(lif(r=0.5), [3.0] * 4) == spikes(lif(), [1.5] * 4)
    assert spikes(lif(tau=2e-3), [1.5] * 4, dt=1e-3) == [0, 1, 0, 1]
    assert spikes(lif(tau=2.0), [1.5] * 4, dt=1.0) == [0, 1, 0, 1]
    counted = nir.IF(r=np.ones(3), v_threshold=np.ones(3))
    assert spikes(counted, [0.5] * 4, dt=1.0) == [0, 1, 0, 1]
    with pytest.raises(CheckpointError, match=r"give dt=1\.0"):
        network_of(graph_with(counted))
    with pytest.raises(CheckpointError, match=r"0\.2 steps of dt = 0\.001 s"):
        network_of(graph_with(lif()), dt=1e-3)
    with pytest.raises(ValueError, match="positive number of seconds"):
        network_of(graph_with(lif()), dt=0)


def test_thresholds_may_differ_between_neurons():
    network = network_of(graph_with(lif(v_threshold=np.array([0.5, 1.0, 4.0]))))
    y = network(torch.full((4, 1, 3), 1.5), steps=True)[:, 0]
    assert y.T.tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]]


def test_numbers_for_all_neurons_as_snntorch_writes_them():
    one = nir.LIF(
        tau=np.array(2e-4, np.float32), r=np.array(2.0, np.float32), v_leak=np.array(0.0, np.float32),
        v_threshold=np.array(1.0, np.float32), v_reset=np.array(0.0, np.float32),
    )  # fmt: skip
    assert spikes(one, [0.6] * 4) == [0, 0, 1, 0]


def test_edges_add_and_graphs_nest():
    inner = graph_with(nir.Linear(np.eye(3, dtype=np.float32) * 2))
    nodes = {
        "input": nir.Input(np.array([3])),
        "inner": inner,
        "lif": lif(r=2.0),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "inner"), ("input", "lif"), ("inner", "lif"), ("lif", "output")]
    network = network_of(nir.NIRGraph(nodes, edges, type_check=False))
    assert network(torch.full((3, 1, 3), 0.2), steps=True)[:, 0, 0].tolist() == [0, 0, 1]  # 0.6, 0.9, 1.05


def test_a_still_sample_runs_its_steps_and_needs_to_know_how_many():
    network = network_of(graph_with(lif(r=2.0)))
    with pytest.raises(ValueError, match="T is not known"):
        network(torch.ones(2, 3))
    network.time_steps = 3
    assert network(torch.full((2, 3), 0.6)).tolist() == [[pytest.approx(1 / 3)] * 3] * 2
    with pytest.raises(ValueError, match=r"expected \[B, 3\]"):
        network(torch.ones(2, 4))
    for wrong in (0, 1.5, True):
        with pytest.raises((ValueError, CheckpointError), match="time_steps"):
            network_of(graph_with(lif()), time_steps=wrong)


def test_it_is_a_model_as_any_other(tmp_path):
    nir.write(tmp_path / "net.nir", graph_with(nir.Linear(WEIGHT), lif(r=0.7)))
    network = zoo.load(str(tmp_path / "net.nir"), time_steps=4)
    assert network.origin["name"] == "net.nir"
    zoo.save(network, tmp_path / "folder")
    again = zoo.load(f"local-dir:{tmp_path / 'folder'}")
    x = torch.randn(6, 3) * 3
    assert torch.equal(network(x, steps=True), again(x, steps=True))
    assert network(x).any()


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (lambda: graph_with(lif(tau=np.array([2e-4, 2e-4, 3e-4]))), "tau differs"),
        (lambda: graph_with(lif(v_leak=0.5)), "leaks to 0.5 and resets to 0"),
        (lambda: graph_with(lif(v_threshold=UNEVEN, v_leak=0.1, v_reset=0.1)), "thresholds differ"),
        (lambda: graph_with(lif(v_threshold=0.0)), "threshold is not above 0"),
        (lambda: graph_with(lif(tau=np.nan)), "no finite number"),
        (lambda: graph_with(nir.CubaLIF(*[np.ones(3)] * 5)), "CubaLIF.*synaptic current"),
        (lambda: graph_with(nir.LI(np.ones(3), np.ones(3), np.ones(3))), "LI.*leaky integrator"),
        (lambda: graph_with(nir.Delay(np.ones(3))), "Delay.*no delays"),
        (lambda: graph_with(nir.Linear(np.ones((4, 5)))), "on inputs of shape"),
        (lambda: graph_with(nir.Affine(np.ones((3, 3)), np.ones(4))), "misshapen|shape"),
        (lambda: graph_with(nir.Linear(np.full((3, 3), np.inf))), "no finite numbers"),
        (lambda: graph_with(lif(4)), "shape"),
        (lambda: nir.NIRGraph({"input": INPUT, "lif": lif()}, [("input", "lif")], type_check=False),
         "0 outputs"),
        (lambda: nir.NIRGraph({"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))},
                              [("input", "other"), ("input", "output")], type_check=False), "no such node"),
    ],
)  # fmt: skip
def test_what_there_is_none_of_here_is_named(graph, why):
    with pytest.raises(CheckpointError, match=why):
        network_of(graph())


def test_a_recurrent_graph_names_its_circle(tmp_path):
    nodes = {
        "input": nir.Input(np.array([3])),
        "lif": lif(),
        "w": nir.Linear(np.eye(3)),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, edges, type_check=False))
    with pytest.raises(CheckpointError, match=r"recurrent \(.*lif.*w"):
        zoo.load(str(tmp_path / "net.nir"))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.nir"
    path.write_bytes(b"weights")
    with pytest.raises(CheckpointError, match="no whole HDF5 file"):
        zoo.load(str(path))
    nir.write(path, graph_with(lif()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"no whole HDF5 file|cannot be read"):
        zoo.load(str(path))
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(CheckpointError, match="no NIR graph"):
        zoo.load(str(path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        zoo.load(str(tmp_path / "none.nir"))


def test_files_that_mean_harm(tmp_path):
    path = tmp_path / "net.nir"
    nir.write(path, graph_with(lif()))
    with h5py.File(path, "a") as file:
        node = file["node/nodes/node0"]
        del node["type"]
        node["type"] = "Trapdoor"
    with pytest.raises(CheckpointError, match="unknown kind 'Trapdoor'"):
        zoo.load(str(path))
    nir.write(path, graph_with(lif()))
    with h5py.File(path, "a") as file:
        del file["node/nodes/node0/tau"]
        file["node/nodes/node0/tau"] = h5py.ExternalLink("/etc/passwd", "/tau")
    with pytest.raises(CheckpointError, match="is a link"):
        zoo.load(str(path))
    nir.write(path, graph_with(lif()))
    with h5py.File(path, "a") as file:
        del file["node/nodes/node0/tau"]
        file["node/nodes/node0"].create_dataset("tau", (1 << 40,), "f8", chunks=(1 << 16,))  # claims 8 TiB
    with pytest.raises(CheckpointError, match="claims 8,796,093,022,208 bytes"):
        zoo.load(str(path))
    nir.write(path, graph_with(lif()))
    with h5py.File(path, "a") as file:
        file["node/nodes/node0/again"] = file["node"]  # a circle of hard links
    with pytest.raises(CheckpointError, match="nested too deeply"):
        zoo.load(str(path))


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "net.nir"
    nir.write(path, graph_with(lif()))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "nir" else real(name, *a)
    )
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[nir\]'"):
        zoo.load(str(path))


def test_arguments_that_a_file_does_not_take(tmp_path):
    path = tmp_path / "net.nir"
    nir.write(path, graph_with(lif()))
    with pytest.raises(ValueError, match="holds the network and its weights"):
        zoo.load(str(path), pretrained=False)
