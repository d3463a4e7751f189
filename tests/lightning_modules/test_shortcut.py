"""Shortcut back-propagation: its equations as properties (2401.04486)."""

import pytest
import torch

from lightning_modules import ClassificationTask, ShortcutTask

X = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3])


def test_the_balance_falls_from_lambda0_to_zero(tiny_task):
    task = tiny_task(ShortcutTask, lambda0=0.25)
    assert task.balance_at(0, 10) == 0.25
    assert task.balance_at(5, 10) == 0.125
    assert task.balance_at(10, 10) == 0.0
    assert tiny_task(ShortcutTask, evolve=False).balance() == 1.0


@pytest.mark.parametrize("balance", [0.25, 1.0, 0.0])
def test_branches_get_the_main_gradient_times_the_balance(balance, tiny_task):
    task = tiny_task(ShortcutTask)
    main, side = task.all_logits(X)
    main.retain_grad()
    for logits in side:
        logits.retain_grad()
    task.combined_loss(main, side, balance, Y, 0.0).backward()
    for logits in side:
        assert torch.equal(logits.grad, balance * main.grad)
    assert len(side) == len(task.model.feature_info) - 1


def test_one_cross_entropy_on_the_sum(tiny_task):
    task = tiny_task(ShortcutTask)
    main, side = task.all_logits(X)
    naive = torch.nn.functional.cross_entropy(main.mean(0) + 0.2 * sum(s.mean(0) for s in side), Y)
    torch.testing.assert_close(task.combined_loss(main, side, 0.2, Y, 0.0), naive)


def test_losses_may_be_combined_instead(tiny_task):
    task = tiny_task(ShortcutTask, combine="losses")
    main, side = task.all_logits(X)
    ce = torch.nn.functional.cross_entropy
    naive = ce(main.mean(0), Y) + 0.2 * sum(ce(s.mean(0), Y) for s in side)
    torch.testing.assert_close(task.combined_loss(main, side, 0.2, Y, 0.0), naive)


def test_inference_is_the_plain_network(tiny_task):
    torch.manual_seed(0)
    task = tiny_task(ShortcutTask)
    torch.manual_seed(0)
    plain = tiny_task(ClassificationTask)
    stripped = task.strip()
    assert list(stripped.state_dict()) == list(plain.model.state_dict())
    stripped.load_state_dict(plain.model.state_dict())
    task.eval()
    plain.eval()
    with torch.no_grad():
        assert torch.equal(task(X), plain(X))
        assert torch.equal(task.all_logits(X)[0], plain(X))
    counted = sum(p.numel() for p in stripped.parameters())
    assert counted == sum(p.numel() for p in plain.model.parameters())


BACKBONES = {
    "spiking_vgg16": {"plan": [[4], [8], [8]], "hidden": 0},
    "spiking_resnet18": {"layers": [1, 1], "planes": [4, 8]},
    "spiking_resnet19": {"layers": [1, 1], "planes": [4, 8], "stem_width": 4, "hidden": 16},
    "sew_resnet18": {"layers": [1, 1], "planes": [4, 8], "stem": "3x3"},
    "spikformer_nano": {"dim": 32, "depth": 2},
    "lmht_vgg13": {"plan": [[4], [8], [8]], "hidden": 16},
    "lmht_vgg16": {"plan": [[4], [8], [8]], "hidden": 0},
    "lmht_resnet18": {"layers": [1, 1], "planes": [4, 8]},
    "lmht_resnet19": {"layers": [1, 1], "planes": [4, 8], "stem_width": 4, "hidden": 16},
    "lmht_resnet20": {"layers": [1, 1], "planes": [4, 8]},
    "lmht_resnet34": {"layers": [1, 1], "planes": [4, 8]},
    "lmht_ms_resnet18": {"layers": [1, 1], "planes": [4, 8]},
    "lmht_spikformer_4_384_cifar": {"dim": 48, "depth": 2},
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_shortcuts(name, tiny_task):
    torch.manual_seed(0)
    task = tiny_task(ShortcutTask, model=name, model_args={**BACKBONES[name], "time_steps": 2})
    main, side = task.all_logits(X)
    assert [logits.shape for logits in (main, *side)] == [main.shape] * len(task.model.feature_info)
    task.combined_loss(main, side, 0.25, Y, 0.0).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    assert all(head.weight.grad.any() for head in task.branches.heads)
    assert next(task.model.parameters()).grad.any(), "the stem"
    assert not any("branches" in key for key in task.strip().state_dict())
    task.eval()
    with torch.no_grad():
        assert torch.equal(task.all_logits(X)[0], task.strip()(X, steps=True))


@pytest.mark.parametrize("options", [{}, {"update": "epoch"}, {"evolve": False}, {"mixup": 0.5}])
def test_a_run_trains_the_branches(options, tiny_task, tiny_data, trainer):
    task = tiny_task(ShortcutTask, **options)
    before = [p.detach().clone() for p in task.branches.parameters()]
    run = trainer(max_epochs=2)
    run.fit(task, tiny_data())
    assert any(not torch.equal(a, b) for a, b in zip(before, task.branches.parameters(), strict=True))
    last = float(run.callback_metrics["train/balance"])
    expected = {"evolve": 1.0, "update": 0.125}.get(next(iter(options), ""), 0.25 * (1 - 7 / 8))
    assert last == pytest.approx(expected)


def test_gradients_of_the_first_layer_grow(tiny_task):
    torch.manual_seed(0)
    task = tiny_task(ShortcutTask, model_args={"time_steps": 2, "channels": [4, 8, 8, 8]})
    norms = []
    for balance in (0.0, 1.0):
        task.zero_grad()
        main, side = task.all_logits(X)
        task.combined_loss(main, side, balance, Y, 0.0).backward()
        norms.append(task.model.stem[0].weight.grad.abs().mean())
    assert norms[1] > norms[0]


@pytest.mark.parametrize(
    "options", [{"lambda0": -0.1}, {"update": "never"}, {"combine": "both"}], ids=lambda o: next(iter(o))
)
def test_impossible_options_name_themselves(options, tiny_task):
    with pytest.raises(ValueError, match=next(iter(options))):
        tiny_task(ShortcutTask, **options)
