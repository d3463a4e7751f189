"""Batch norms folded into the layers before them: fewer layers, the same outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from conversion.graph.program import place

if TYPE_CHECKING:
    from conversion.graph.program import Program


def fold_batch_norms(program: Program) -> None:
    """Fold each norm whose input is a convolution or linear layer that feeds it alone.

    ``w' = w g / sqrt(var + eps)``, ``b' = (b - mean) g / sqrt(var + eps) + beta``. Layers and norms that are
    called more than once stay as they are.
    """
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_module"]
    for node in list(program.graph.nodes):
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        norm = program.root.get_submodule(str(node.target))
        layer = program.root.get_submodule(str(source.target))
        once = calls.count(str(source.target)) == calls.count(str(node.target)) == 1 == len(source.users)
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or not once:
            continue
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            folded: nn.Module = fuse_conv_bn_eval(layer, norm)
        elif isinstance(layer, nn.Linear):
            folded = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        place(program.root, str(source.target), folded)
        node.replace_all_uses_with(source)
        program.graph.erase_node(node)
