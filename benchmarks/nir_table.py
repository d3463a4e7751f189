"""Which library computes the same from a NIR file: ours in SpikingJelly, snnTorch and Norse, theirs here.

    python benchmarks/nir_table.py            # prints the table and writes nir_table.csv beside this file

Needs the extra ``interop``; of a library that is not installed, rows stay as they are in the file. A row is a
network with random weights that was run over the same random input, 8 steps of 3 samples, or of 1 where a
library takes no more; outputs are compared one by one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import tempfile
import warnings
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import spiking
import zoo
from spiking.layers import FoldTime

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = Path(__file__).with_name("nir_table.csv")
OURS = "Fulgurite"
STEPS = 8
SAMPLES = 3
SHAPE = (2, 8, 8)
THRESHOLD = 0.125  # low, so that the last neurons fire, too
PACKAGES = {  # what has to be there, and whose version counts
    "SpikingJelly": ("spikingjelly.activation_based.nir_exchange.from_nir", "spikingjelly"),
    "snnTorch": ("snntorch.import_nir", "snntorch"),
    "Norse": ("norse.torch", "norse"),
}


@dataclass(frozen=True)
class Row:
    """One network on its way from a library to another.

    Attributes:
        writer: whose file.
        reader: who runs it.
        library: the other library, with its version.
        network: what it is.
        equal: share of equal outputs; empty where there are none to compare.
        outcome: the same in words, or the reason.
    """

    writer: str
    reader: str
    library: str
    network: str
    equal: str
    outcome: str


# -- our networks ----------------------------------------------------------------------------------


def small(neuron: Callable[[], nn.Module], pool: bool = True) -> nn.Module:
    """Convolution, neuron, pooling, linear layer, neuron."""
    torch.manual_seed(0)
    maps = [FoldTime(nn.AvgPool2d(2))] if pool else []
    network: Any = nn.Sequential(
        FoldTime(nn.Conv2d(2, 4, 3, padding=1)),
        neuron(),
        *maps,
        FoldTime(nn.Flatten()),
        nn.Linear(64 if pool else 256, 10),
        neuron(),
    )
    network.pretrained_cfg = {"input_size": SHAPE}
    return network.eval()


def residual() -> nn.Module:
    """SEW blocks: two edges into one node."""
    torch.manual_seed(0)
    network: Any = zoo.create(
        "sew_resnet18", layers=(1, 1), planes=(8, 8), stem="3x3", in_chans=2, num_classes=5, neuron="lif"
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.05)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": SHAPE}
    return network.eval()


WRITTEN_HERE: dict[str, Callable[[], nn.Module]] = {
    "LIF, input divided by tau (r = 1)": lambda: small(lambda: spiking.LIF(tau=2.0, v_threshold=THRESHOLD)),
    "the same without pooling": lambda: small(
        lambda: spiking.LIF(tau=2.0, v_threshold=THRESHOLD), pool=False
    ),
    "LIF, input not divided (r = tau)": lambda: small(
        lambda: spiking.LIF(tau=2.0, decay_input=False, v_threshold=THRESHOLD)
    ),
    "IF": lambda: small(lambda: spiking.IF(v_threshold=THRESHOLD)),
    "SEW-ResNet of LIF": residual,
}

# -- what others make of our files -----------------------------------------------------------------


def in_spikingjelly(graph: Any) -> Any:
    """SpikingJelly's network of a graph."""
    from spikingjelly.activation_based.nir_exchange.from_nir import import_from_nir

    return import_from_nir(graph, dt=1e-4)


def in_snntorch(graph: Any) -> Any:
    """SnnTorch's."""
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def in_norse(graph: Any) -> Any:
    """Norse's."""
    import norse.torch

    return norse.torch.from_nir(graph, dt=1e-4)


READERS = {"SpikingJelly": in_spikingjelly, "snnTorch": in_snntorch, "Norse": in_norse}


def stepped(network: Any, x: Tensor) -> Tensor:
    """Step after step, handing on the state where the network gives one."""
    state, outputs = None, []
    for now in x:
        y = network(now) if state is None else network(now, state)
        y, state = (y[0], y[1]) if isinstance(y, tuple) and len(y) == 2 else (y, None)
        outputs.append(y[0] if isinstance(y, tuple) else y)
    return torch.stack(outputs)


# -- what they write -------------------------------------------------------------------------------


def from_spikingjelly(neuron: str, x: Tensor, **options: Any) -> tuple[Any, Tensor]:
    """A graph that SpikingJelly wrote, and its own outputs."""
    from spikingjelly.activation_based import functional, layer
    from spikingjelly.activation_based import neuron as neurons
    from spikingjelly.activation_based.nir_exchange.to_nir import export_to_nir

    torch.manual_seed(0)
    network = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1),
        getattr(neurons, neuron)(v_threshold=THRESHOLD, **options),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(64, 10),
        getattr(neurons, neuron)(v_threshold=THRESHOLD, **options),
    )
    graph = export_to_nir(network, x[0])
    functional.reset_net(network)
    functional.set_step_mode(network, "m")
    return graph, network(x)


def from_snntorch(x: Tensor, each: bool = True, **options: Any) -> tuple[Any, Tensor]:
    """A graph that snnTorch wrote, and its own outputs.

    Args:
        x: inputs.
        each: whether every neuron has a decay and a threshold, or all have one.
        **options: of the neurons.
    """
    import snntorch
    from snntorch.export_nir import export_to_nir

    def leaky(*size: int) -> Any:
        shape = size if each else ()
        numbers = {"beta": torch.full(shape, 0.5), "threshold": torch.ones(shape)}
        return snntorch.Leaky(init_hidden=True, **numbers, **options)

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        leaky(4, 8, 8),
        nn.AvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Linear(64, 10),
        leaky(10),
    )
    graph = export_to_nir(network, x[0], ignore_dims=[0])  # the batch
    for module in network:
        if isinstance(module, snntorch.Leaky):
            module.reset_mem()
    return graph, torch.stack([network(now) for now in x])


def from_norse(x: Tensor, size: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
    """A graph that Norse wrote, and its own outputs; its exporter knows no pooling and no flattening.

    It multiplies time constants by the dt that it is told, so 1 is the right one.
    """
    import norse.torch as norse

    torch.manual_seed(0)
    full = lambda value: torch.full(size, value)  # noqa: E731
    parameters = norse.LIFBoxParameters(  # tau = 2 steps of 1e-4 s
        tau_mem_inv=full(5000.0), v_th=full(THRESHOLD), v_leak=full(0.0), v_reset=full(0.0)
    )
    network = norse.SequentialState(
        nn.Linear(16, 12),
        norse.LIFBoxCell(parameters, dt=1e-4),
        nn.Linear(12, 12),
        norse.LIFBoxCell(parameters, dt=1e-4),
    )
    return norse.to_nir(network, x[0, 0], dt=1.0), stepped(network, x)


WRITTEN_THERE: dict[str, tuple[str, Callable[[Tensor], tuple[Any, Tensor]], tuple[int, ...]]] = {
    "LIFNode": ("SpikingJelly", lambda x: from_spikingjelly("LIFNode", x, tau=2.0), SHAPE),
    "LIFNode, decay_input=False": (
        "SpikingJelly",
        lambda x: from_spikingjelly("LIFNode", x, tau=2.0, decay_input=False),
        SHAPE,
    ),
    "ParametricLIFNode": (
        "SpikingJelly",
        lambda x: from_spikingjelly("ParametricLIFNode", x, init_tau=3.0),
        SHAPE,
    ),
    "IFNode": ("SpikingJelly", lambda x: from_spikingjelly("IFNode", x), SHAPE),
    "Leaky, reset to zero, one decay for all": (
        "snnTorch",
        lambda x: from_snntorch(x, each=False, reset_mechanism="zero"),
        SHAPE,
    ),
    "Leaky, reset to zero, a decay for each": (
        "snnTorch",
        lambda x: from_snntorch(x, reset_mechanism="zero"),
        SHAPE,
    ),
    "Leaky, reset by subtraction (its default)": ("snnTorch", from_snntorch, SHAPE),
    "LIFBoxCell, one parameter for all": ("Norse", from_norse, (16,)),
    "LIFBoxCell, parameters for each": ("Norse", lambda x: from_norse(x, (12,)), (16,)),
}

WITHOUT_POOLING = "leaves out the average pooling, which it does not have"
WHY = {  # what stands behind an error, whose own words tell little
    **{(OURS, "Norse", network): WITHOUT_POOLING for network in WRITTEN_HERE},
    (OURS, "snnTorch", "IF"): "refuses an IF unless its r is 1",
    ("snnTorch", OURS, "Leaky, reset to zero, one decay for all"): "writes no file: one decay has no shape",
    ("Norse", OURS, "LIFBoxCell, one parameter for all"): "writes no file of single numbers",
}

# -- the comparison --------------------------------------------------------------------------------


def currents(samples: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """``[T, B, ...]``, strong enough that neurons fire."""
    return torch.randn(STEPS, samples, *shape, generator=torch.Generator().manual_seed(1)) * 10


@cache
def written(network: str) -> tuple[nn.Module, bytes]:
    """A network of ours, and its file."""
    made = WRITTEN_HERE[network]()
    with tempfile.TemporaryDirectory() as folder:
        zoo.export(made, Path(folder) / "net.nir")
        return made, (Path(folder) / "net.nir").read_bytes()


def exported(network: str, reader: str, samples: int) -> tuple[Tensor, Tensor]:
    """Our outputs, and those of a library that read our file."""
    import nir

    x = currents(samples)
    made, content = written(network)
    expected = made(x, steps=True) if isinstance(made, zoo.ZooModel) else made(x)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.nir").write_bytes(content)
        graph = nir.read(Path(folder) / "net.nir")
    return expected, stepped(READERS[reader](graph), x)


def imported(make: Callable[[Tensor], tuple[Any, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
    """A library's outputs, and those of ours that read its file."""
    import nir

    graph, expected = make(x)
    with tempfile.TemporaryDirectory() as folder:
        nir.write(Path(folder) / "net.nir", graph)
        network: Any = zoo.load(str(Path(folder) / "net.nir"))
    return expected, network(x, steps=True)


def missing(library: str) -> str:
    """Why a library cannot be asked; empty if it can."""
    try:
        importlib.import_module(PACKAGES[library][0])
    except Exception as error:  # whatever an installation lacks
        return f"{type(error).__name__}: {error}"
    return ""


def names() -> list[tuple[str, str, str]]:
    """Writer, reader and network of each row."""
    ours = [(OURS, reader, network) for network in WRITTEN_HERE for reader in READERS]
    return ours + [(writer, OURS, network) for network, (writer, _, _) in WRITTEN_THERE.items()]


def row(writer: str, reader: str, network: str) -> Row:
    """A row, made by running both sides."""
    library = reader if writer == OURS else writer

    def run(samples: int) -> tuple[Tensor, Tensor]:
        if writer == OURS:
            return exported(network, reader, samples)
        _, make, shape = WRITTEN_THERE[network]
        return imported(make, currents(samples, shape))

    equal, outcome = compared(run, SAMPLES)
    if equal is None:  # some flatten the batch with the rest, and so take one sample
        alone, words = compared(run, 1)
        if alone is not None:
            equal, outcome = alone, f"{words}; one sample at a time"
    if equal is None:
        outcome = WHY.get((writer, reader, network), outcome)
    return Row(
        writer=writer,
        reader=reader,
        library=f"{library} {version(PACKAGES[library][1])}",
        network=network,
        equal="" if equal is None else f"{equal:.4f}",
        outcome=outcome,
    )


def compared(run: Callable[[int], tuple[Tensor, Tensor]], samples: int) -> tuple[float | None, str]:
    """Which share of the outputs is equal, and that in words; or None and why there is none."""
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),  # snnTorch prints what it does
        ):
            warnings.simplefilter("ignore")
            expected, got = run(samples)
    except Exception as error:  # the reasons are what the table is for
        first = (str(error).strip().splitlines() or [""])[0]
        return None, f"{type(error).__name__}: {first[:160]}"
    if got.numel() != expected.numel():
        return None, f"outputs of shape {list(got.shape)}, expected {list(expected.shape)}"
    if samples > 1 and got.shape != expected.shape:
        return None, f"outputs of shape {list(got.shape)}, expected {list(expected.shape)}"
    same = torch.isclose(got.reshape(expected.shape), expected.to(got.dtype), rtol=1e-5, atol=1e-6)
    if not float(expected.std()) > 0:
        return None, "silent, which proves nothing"
    share = same.double().mean().item()
    return share, "equal" if share == 1.0 else f"{share:.1%} of the outputs equal"


def main() -> None:
    """Make the rows of all libraries that are installed, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    there: dict[tuple[str, str, str], Row] = {}
    if TABLE.exists():
        with TABLE.open(newline="", encoding="utf-8") as file:
            there = {(r["writer"], r["reader"], r["network"]): Row(**r) for r in csv.DictReader(file)}
    absent = {library: missing(library) for library in PACKAGES}
    for library, why in absent.items():
        if why:
            print(f"{library} is left out: {why}")
    found = []
    for name in names():
        library = name[1] if name[0] == OURS else name[0]
        if not absent[library]:
            found.append(row(*name))
        elif name in there:
            found.append(there[name])
        if found:
            print(*asdict(found[-1]).values(), sep=" | ", flush=True)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, found))


if __name__ == "__main__":
    main()
