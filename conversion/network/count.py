"""Every operation of a converted network, counted step by step while its graph is interpreted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from conversion.network.annotation import flat
from conversion.network.operation import LayerOperations, Operations
from conversion.network.units import Encode, Fold, FoldedSize, RunningMean, Unfold
from spiking.measure.operations import (
    Work,
    attention_macs,
    convolution,
    linear,
    partial_products,
    sent_before,
)
from spiking.measure.operators import MOVES, TRANSPOSED, named, plain
from spiking.measure.tally import NEURONS
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from conversion.network.annotation import Annotation, Operation


def count(network: fx.GraphModule, annotation: Annotation, x: Tensor) -> Operations:
    """The operations of a converted network on the images ``x [B, C, H, W]``."""
    counter = _Counter(network, annotation)
    counter.run(x)
    return counter.result(len(x))


class _Counter(fx.Interpreter):
    """Runs the graph as the model does, and looks at what goes into each operation."""

    def __init__(self, network: fx.GraphModule, annotation: Annotation) -> None:
        super().__init__(network)
        traits = annotation.traits
        self.steps, self.means = annotation.clock.window, traits.domain == "mean"
        calls = [n for n in network.graph.nodes if n.op in ("call_function", "call_module")]
        self.known = {n: o for n, o in zip(calls, annotation.operations, strict=True) if o is not None}
        self.watched = self._watched(network)
        self.sent: dict[fx.Node, Tensor] = {}
        self.layers: dict[str, LayerOperations] = {}
        self.evaluations = torch.zeros(self.steps, dtype=torch.float64)
        self.updates = torch.zeros(self.steps, dtype=torch.float64)
        self.ann_evaluations = 0.0
        self.uncounted: Counter[str] = Counter()
        self.counted, self.own_step = traits.counted, traits.counts_own_step

    def _watched(self, network: fx.GraphModule) -> dict[fx.Node, fx.Node]:
        """Units that make running means of spikes, with the operands of products that these become."""
        found = {}
        for node, operation in self.known.items():
            if operation.kind != "matmul" or not operation.spikes or self.means:
                continue
            for operand in self._signals(node, operation):
                unit = operand.all_input_nodes[0]
                assert isinstance(network.get_submodule(str(unit.target)), RunningMean)
                found[unit] = operand
        return found

    def run_node(self, n: fx.Node) -> Any:
        """Run ``n`` and count it."""
        with torch.no_grad():
            if n in self.watched:
                self.sent[self.watched[n]] = self.env[n.all_input_nodes[0]] != 0
            output = super().run_node(n)
            operation = self.known.get(n)
            if operation is not None:
                self._count(n, operation, output)
            if operation is None or operation.kind in ("unit", "neuron"):
                self._name(n, output)
        for node in self.user_to_last_uses.get(n, ()):
            self.sent.pop(node, None)
        return output

    def result(self, samples: int) -> Operations:
        """Sums over all that has been run."""
        return Operations(
            layers=tuple(self.layers.values()),
            evaluations=self.evaluations,
            updates=self.updates,
            ann_evaluations=self.ann_evaluations,
            samples=samples,
            counted=self.counted,
            uncounted=dict(self.uncounted),
        )

    # -- one node ------------------------------------------------------------------------------

    def _count(self, node: fx.Node, operation: Operation, output: Any) -> None:
        static = operation.form == "static"
        if operation.kind == "neuron":
            site: Any = self.module.get_submodule(str(node.target))
            self.updates += float(output[0].numel())
            if site.activation.kind != "identity":
                self.ann_evaluations += float(output[0].numel())
            return
        if operation.kind == "unit":
            self._evaluate(_values(output).numel(), static)
            return
        if operation.kind == "between":
            row = self._between(node, operation, output)
            self.layers[row.name] = row
            return
        count = {"matmul": self._product, "projection": self._projection, "attention": self._attention}
        row = count.get(operation.kind, self._layer)(node, operation)
        known = self.layers.get(row.name)
        self.layers[row.name] = row if known is None else known + row

    def _name(self, node: fx.Node, output: Any) -> None:
        """Name what is neither a layer with weights nor a product."""
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            if isinstance(module, Encode | Fold | FoldedSize | Unfold):
                return
            name = NEURONS if isinstance(module, Neuron) else type(module).__name__
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            name = plain(named(node.target))
            if node.target.is_view or name in MOVES:
                return
        else:
            return
        values = _values(output)
        if isinstance(values, Tensor) and values.is_floating_point():
            self.uncounted[name] += values.numel()

    def _evaluate(self, values: int, static: bool) -> None:
        """Charge ``values`` that are given out exactly, over all steps or, static, once."""
        once = values / (1 if static else self.steps)
        self.evaluations += self._at(once, first_only=static)
        self.ann_evaluations += once

    def _sent(self, node: fx.Node, operation: Operation) -> Tensor:
        """Where the input of a layer sends something, ``[T, B, ...]``, or a static one ``[1, B, ...]``."""
        x: Tensor = self.env[self._signals(node, operation)[0]]
        values = operation.layouts[0].unfold(x, 1 if operation.form == "static" else self.steps)
        return _moved(values) if operation.form == "mean" and self.means else values != 0

    def _layer(self, node: fx.Node, operation: Operation) -> LayerOperations:
        """A layer with weights."""
        sent = self._sent(node, operation)
        weight = self._weight(node)
        if operation.kind == "linear":
            work = linear(sent, weight.shape[0])
        else:
            work = convolution(sent, weight.shape, **self._settings(node))
        return self._row(operation, sent, work)

    def _projection(self, node: fx.Node, operation: Operation) -> LayerOperations:
        """A product of a signal and a constant: a linear layer without a name."""
        sent = self._sent(node, operation)
        dense = int(self._masked(node, operation, len(sent), torch.ones_like(sent))[0])
        work = Work(
            reached=self._masked(node, operation, len(sent), sent),
            entries=sent.flatten(1).sum(1, dtype=torch.float64),
            real=dense,
            dense=dense,
            elements=sent[0].numel(),
        )
        return self._row(operation, sent, work)

    def _row(self, operation: Operation, sent: Tensor, work: Work) -> LayerOperations:
        """What a layer does with the entries ``sent [T, B, ...]``, or with a static input ``[1, B, ...]``."""
        static = operation.form == "static"
        sops, official = work.sops.cpu(), work.reached.cpu()
        if static:  # what a still image costs when it is sent: at every step in rate code, else once
            sops = self._at(float(sops), first_only=self.means)
            official = self._at(float(official), first_only=self.means)
        spikes, nothing = operation.spikes, torch.zeros(self.steps, dtype=torch.float64)
        return LayerOperations(
            name=operation.name,
            kind="conv" if operation.kind == "conv" else "linear",
            spikes=spikes,
            sops=sops if spikes else nothing,
            macs=nothing if spikes else self._at(float(work.dense), first_only=static),
            official=(official, torch.full((self.steps,), float(work.real), dtype=torch.float64)),
            spikes_in=float(sent.sum()) if spikes else 0.0,
            elements=float(sent.numel()) if spikes else 0.0,
            ann_macs=float(work.dense),
            real_macs=float(work.real),
        )

    def _attention(self, node: fx.Node, operation: Operation) -> LayerOperations:
        """Fused attention, whose operands are real-valued: two products, and a softmax between them."""
        query, key, value = (self.env[n] for n in flat(node.args[:3]))
        static = operation.form == "static"
        self._evaluate(query[..., 0].numel() * key.shape[-2], static)
        once = sum(attention_macs(query.shape, key.shape, value.shape)) / (1 if static else self.steps)
        return self._real_product(operation, once)

    def _between(self, node: fx.Node, operation: Operation, output: Tensor) -> LayerOperations:
        """A product between images, ``[T, M, K]`` by ``[T, K, ...]``."""
        first: Tensor = self.env[node.all_input_nodes[0]]
        steps = 1 if operation.form == "static" else self.steps
        return self._real_product(operation, output.numel() * first.shape[-1] / steps)

    def _real_product(self, operation: Operation, once: float) -> LayerOperations:
        """Products of real values, ``once`` multiplications a step."""
        static, nothing = operation.form == "static", torch.zeros(self.steps, dtype=torch.float64)
        return LayerOperations(
            name=operation.name,
            kind="matmul",
            spikes=False,
            sops=nothing,
            macs=self._at(once, first_only=static),
            official=(nothing, torch.full_like(nothing, once)),
            ann_macs=once,
        )

    def _product(self, node: fx.Node, operation: Operation) -> LayerOperations:
        """A product of two signals."""
        operands = self._signals(node, operation)
        steps = 1 if operation.form == "static" else self.steps
        values = [
            layout.unfold(self.env[a], steps) for a, layout in zip(operands, operation.layouts, strict=True)
        ]

        def product(a: Tensor, b: Tensor) -> Tensor:
            return self._masked(node, operation, steps, a, b)

        dense = product(torch.ones_like(values[0]), torch.ones_like(values[1]))
        ann, nothing = float(dense[0]), torch.zeros(self.steps, dtype=torch.float64)
        sops, macs, official = nothing, self._at(ann, first_only=steps == 1), nothing
        spikes_in = elements = 0.0
        if operation.spikes:
            now = [_moved(v) if self.means else self.sent[n] for n, v in zip(operands, values, strict=True)]
            before = [sent_before(m) for m in now]
            sops, macs = partial_products(product, *now, *before), nothing
            # ECMT's code takes the sums with step t, so that what is sent now meets itself three times
            official = sops
            if self.own_step:
                official = partial_products(product, *now, *(v != 0 for v in values))
            spikes_in, elements = float(sum(m.sum() for m in now)), float(sum(m.numel() for m in now))
        return LayerOperations(
            name=operation.name,
            kind="matmul",
            spikes=operation.spikes,
            sops=sops,
            macs=macs,
            official=(official, dense.expand(self.steps)),
            ann_macs=ann,
            spikes_in=spikes_in,
            elements=elements,
        )

    def _masked(self, node: fx.Node, operation: Operation, steps: int, *masks: Tensor) -> Tensor:
        """Sums at each step ``[steps]`` of the product ``node`` of masks ``[T, B, ...]``, constants all 1."""
        target: Any = node.target
        signals = dict(zip(operation.operands, masks, strict=True))
        layouts = dict(zip(operation.operands, operation.layouts, strict=True))
        like = self.env[self._signals(node, operation)[0]]
        added = [node.args[0]] if plain(named(target)).startswith(("add", "baddbmm")) else []
        laid: list[Tensor] = []
        for i, operand in enumerate(flat(node.args)):
            if operand in added:
                laid.append(torch.zeros_like(self.env[operand]))
            elif i in signals:
                laid.append(layouts[i].fold(signals[i].to(like.dtype)))
            else:
                laid.append(torch.ones_like(self.env[operand]))
        rest = iter(laid)
        out: Tensor = target(*fx.node.map_arg(node.args, lambda _: next(rest)), **node.kwargs)
        return operation.layout.unfold(out, steps).flatten(1).sum(1, dtype=torch.float64).cpu()

    # -- small things --------------------------------------------------------------------------

    def _at(self, value: float, first_only: bool) -> Tensor:
        """``[T]``, the value at every step, or at the first alone."""
        out = torch.zeros(self.steps, dtype=torch.float64)
        out[: 1 if first_only else None] = value
        return out

    def _signals(self, node: fx.Node, operation: Operation) -> list[fx.Node]:
        """The operands that are no constants, in order."""
        nodes = list(flat(node.args))
        return [nodes[i] for i in operation.operands]

    def _weight(self, node: fx.Node) -> Tensor:
        if node.op == "call_module":
            weight = self.module.get_submodule(str(node.target)).weight
        else:
            source = node.args[1]
            assert isinstance(source, fx.Node)
            weight = self.env[source]
        assert isinstance(weight, Tensor)
        return weight

    def _settings(self, node: fx.Node) -> dict[str, Any]:
        """Geometry of a convolution, as `spiking.measure.operations.convolution` takes it."""
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            names = ("stride", "padding", "dilation", "groups", "output_padding", "padding_mode")
            return {name: getattr(module, name) for name in names} | {
                "transposed": isinstance(module, TRANSPOSED)
            }
        target: Any = node.target
        names = tuple(argument.name for argument in target._schema.arguments)[3:]
        given = dict(zip(names, node.args[3:], strict=False)) | dict(node.kwargs)
        return {"transposed": "transpose" in named(target)} | given


def _values(output: Any) -> Any:
    """The result of an operation; pooling brings positions, too."""
    return output[0] if isinstance(output, tuple | list) else output


def _moved(means: Tensor) -> Tensor:
    """Where a spike moved the running means ``[T, ...]``."""
    return torch.cat([means[:1] != 0, means[1:] != means[:-1]])
