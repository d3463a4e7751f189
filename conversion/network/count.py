"""Every operation of a converted network, counted step by step while its graph is interpreted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from conversion.network.annotation import flat
from conversion.network.operation import (
    LayerOperations,
    Operations,
    conv_operations,
    linear_operations,
    partial_products,
    sent_before,
)
from conversion.network.units import RunningMean

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
            values = (
                output[0] if isinstance(output, tuple | list) else output
            )  # pooling brings positions, too
            once = float(values.numel()) / (1 if static else self.steps)
            self.evaluations += self._at(once, first_only=static)
            self.ann_evaluations += once
            return
        row = self._product(node, operation) if operation.kind == "matmul" else self._layer(node, operation)
        known = self.layers.get(row.name)
        self.layers[row.name] = row if known is None else known + row

    def _layer(self, node: fx.Node, operation: Operation) -> LayerOperations:
        x: Tensor = self.env[self._signals(node, operation)[0]]
        static, means = operation.form == "static", operation.form == "mean"
        values = x.unsqueeze(0) if static else self._over_time(x, operation.axes[0])
        sent = _moved(values) if means and self.means else values != 0
        if operation.kind == "linear":
            weight = self._weight(node)
            sop, mac = linear_operations(sent, weight.shape[0])
        else:
            weight = self._weight(node)
            sop, mac = conv_operations(sent.to(x.dtype), weight, **self._settings(node))
        ann = float(mac[0])
        if static:  # what a still image costs when it is sent: at every step in rate code, else once
            sop, mac = self._at(float(sop), first_only=self.means), mac.expand(self.steps)
        spikes, nothing = operation.spikes, torch.zeros(self.steps, dtype=torch.float64)
        return LayerOperations(
            name=operation.name,
            kind=operation.kind,
            spikes=spikes,
            sops=sop.cpu() if spikes else nothing,
            macs=nothing if spikes else self._at(ann, first_only=static),
            official=(sop.cpu(), mac.cpu()),
            spikes_in=float(sent.sum()) if spikes else 0.0,
            elements=float(sent.numel()) if spikes else 0.0,
            ann_macs=ann,
        )

    def _product(self, node: fx.Node, operation: Operation) -> LayerOperations:
        operands = self._signals(node, operation)
        values = [
            self._over_time(self.env[a], axis) for a, axis in zip(operands, operation.axes, strict=True)
        ]
        steps = 1 if operation.form == "static" else self.steps

        def product(a: Tensor, b: Tensor) -> Tensor:
            """Counts at each step of the product of two masks ``[T, B, ...]``."""
            masks = (m.to(values[0].dtype).flatten(0, 1) for m in (a, b))
            laid = (m.movedim(0, axis) for m, axis in zip(masks, operation.axes, strict=True))
            args = fx.node.map_arg(node.args, lambda _: next(laid))
            out: Tensor = node.target(*args, **node.kwargs)  # type: ignore[operator]
            return out.movedim(operation.axis, 0).reshape(steps, -1).sum(1, dtype=torch.float64).cpu()

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

    # -- small things --------------------------------------------------------------------------

    def _over_time(self, x: Tensor, axis: int) -> Tensor:
        """``[..., T * B, ...]`` -> ``[T, B, ...]``."""
        x = x.movedim(axis, 0)
        steps = self.steps if x.shape[0] % self.steps == 0 else 1
        return x.reshape(steps, x.shape[0] // steps, *x.shape[1:])

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
            weight = self.env[node.args[1]]  # type: ignore[index]
        assert isinstance(weight, Tensor)
        return weight

    def _settings(self, node: fx.Node) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            return {name: getattr(module, name) for name in names}
        return dict(zip(names, node.args[3:], strict=False)) | dict(node.kwargs)


def _moved(means: Tensor) -> Tensor:
    """Where a spike moved the running means ``[T, ...]``."""
    return torch.cat([means[:1] != 0, means[1:] != means[:-1]])
