"""Two processes whose rows hold unequal weight learn what one process learns from all rows."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import DiDATask, NextTokenTask

pytest.importorskip("transformers")
SMALL = {"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8}
GRID = (2, 3)


class Noisy(DiDATask):
    """The same noise for an image, whichever process has it."""

    def corrupted(self, tokens, copies, generator=None):
        from zoo.models.emu3_5.dida import noisy_tokens

        times = torch.zeros(len(tokens), 9)
        return noisy_tokens(tokens, copies, self.roles, lambda codes, t: (codes + 1) % 9, times)


def rows(task):
    """Two rows of text and image, one of text alone, and one that is mostly padding."""
    v, g = task.vocabulary, torch.Generator().manual_seed(4)
    text = torch.randint(7, 18, (4, 14), generator=g)
    text[3, 3:] = v.pad
    for row in (0, 1):
        codes = torch.randint(v.first_visual, v.size, (2, 3), generator=g).tolist()
        body = [v.image_start, v.image_token, *codes[0], v.end_of_line, *codes[1], v.image_end]
        text[row, 2 : 2 + len(body)] = torch.tensor(body)
    documents = (text != v.pad).long()
    return {"tokens": text, "documents": documents, "positions": torch.arange(14).expand(4, -1)}


class Step(torch.nn.Module):
    def __init__(self, task):
        super().__init__()
        self.task = task
        task.log = lambda *args, **kwargs: None

    def forward(self, batch):
        return self.task.training_step(batch, 0)


def step(kind):
    torch.manual_seed(0)
    task = kind("emu3_5_tiny", model_args=SMALL, grid=GRID, visual_weight=0.3)
    return Step(task), rows(task)


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


KINDS = {"next-token": NextTokenTask, "dida": Noisy}


def process(rank, port, path):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    found = {}
    for name, kind in KINDS.items():
        module, batch = step(kind)
        wrapped = DistributedDataParallel(module)
        # one process has all images, the other text and padding: unequal weight of both kinds
        wrapped({key: value[2 * rank : 2 * rank + 2] for key, value in batch.items()}).backward()
        found[name] = gradients(module)
    if rank == 0:
        torch.save(found, path)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """Gradients by kind and parameter."""
    path = tmp_path_factory.mktemp("ddp") / "gradients.pt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # a new interpreter, since threads of earlier tests do not survive a fork
    subprocess.run([sys.executable, __file__, str(port), str(path)], check=True, timeout=300)
    return torch.load(path, weights_only=True)


@pytest.mark.ddp
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(kind, of_two_processes):
    module, batch = step(KINDS[kind])
    module(batch).backward()
    alone, found = gradients(module), of_two_processes[kind]
    assert found.keys() == alone.keys()
    for name, grad in alone.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)
    # and this is not what the mean of both losses gives
    with torch.no_grad():
        losses = [module({k: v[half] for k, v in batch.items()}) for half in (slice(0, 2), slice(2, 4))]
        assert abs(float(sum(losses) / 2 - module(batch))) > 1e-3


if __name__ == "__main__":
    port, path = sys.argv[1:]
    torch.multiprocessing.start_processes(process, (int(port), path), nprocs=2, start_method="fork")
