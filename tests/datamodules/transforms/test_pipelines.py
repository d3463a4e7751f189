"""Transforms against torchvision, timm and their own definitions."""

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules import Augmentation, ImagePipeline, TensorPipeline
from datamodules.loading.random import sample_keys
from datamodules.transforms.batched import cut_out, shifted_crops
from datamodules.transforms.policies import build_policy

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def images(count=16, chans=3, side=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, chans, side, side), generator=generator).to(torch.uint8)


def keys(count=16, epoch=0):
    return sample_keys(1, epoch, np.arange(count))


def pipeline(chans=3, **augmentation):
    return TensorPipeline(mean=MEAN[:chans], std=STD[:chans], augmentation=Augmentation(**augmentation))


def test_evaluation_equals_torchvision():
    x = images()
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    ours = TensorPipeline(mean=MEAN, std=STD)(x)
    assert ours.dtype == torch.float32
    # one fused multiply-add against two roundings: a few units in the last place of values below 3
    torch.testing.assert_close(ours, reference(x), rtol=0, atol=1e-6)


def test_resizing_equals_torchvision_and_nearly_pil():
    x = images(2, side=32)
    ours = TensorPipeline(size=(48, 48), mean=(0, 0, 0), std=(1, 1, 1))(x) * 255
    expected = v2.functional.resize(x, [48, 48], v2.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=1e-3)
    pil = Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BICUBIC)
    difference = (ours[0].permute(1, 2, 0) - torch.from_numpy(np.array(pil)).float()).abs()
    assert difference.max() <= 1.01  # both round the same filter to whole grey values


def test_every_crop_is_a_window_of_the_padded_image_and_all_windows_occur():
    x = images(400, 1, 4)[:, :, :, :]
    out = shifted_crops(x, keys(400), padding=1, flip=0.5)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    seen = set()
    for i in range(400):
        windows = {
            (top, left, mirror): w.flip(-1) if mirror else w
            for top in range(3)
            for left in range(3)
            for mirror in (False, True)
            for w in [padded[i, :, top : top + 4, left : left + 4]]
        }
        matches = [place for place, w in windows.items() if torch.equal(w, out[i])]
        assert matches
        seen.update(matches)
    assert len(seen) == 18


def test_flip_rate_and_identity():
    x = images(2000, 1, 3)
    flipped = shifted_crops(x, keys(2000), padding=0, flip=0.3)
    changed = (flipped != x).flatten(1).any(1)
    assert torch.equal(flipped[changed], x[changed].flip(-1))
    assert abs(changed.float().mean() - 0.3) < 5 * math.sqrt(0.21 / 2000)  # five standard errors
    assert torch.equal(shifted_crops(x, keys(2000), 0, 0.0), x)
    assert torch.equal(shifted_crops(x, keys(2000), 0, 1.0), x.flip(-1))


def test_cutout_cuts_one_clipped_square():
    out = cut_out(torch.ones(500, 2, 12, 10), keys(500), side=4)
    holes = out == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    areas = holes[:, 0].flatten(1).sum(1)
    # a centre on the border leaves half of the side; whole squares are the most common
    assert areas.min() >= 4
    assert areas.max() == 16
    assert areas.mode().values == 16
    for hole in holes[:50, 0]:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert hole.sum() == len(rows) * len(columns)
        assert len(rows) == rows[-1] - rows[0] + 1


def test_random_erasing_hits_the_given_share():
    x = images(600, 3, 12)
    plain = TensorPipeline(mean=MEAN, std=STD)(x)
    erased = pipeline(random_erasing=0.25, erasing_mode="const")(x, keys(600))
    changed = (erased != plain).flatten(1).any(1)
    assert abs(changed.float().mean() - 0.25) < 5 * math.sqrt(0.1875 / 600)
    assert ((erased == plain) | (erased == 0)).all()


@pytest.mark.parametrize(
    "name", ["cifar10", "imagenet", "svhn", "trivial", "rand-m7-n1-mstd0.5-inc1", "3a", "augmix-m5"]
)
@pytest.mark.parametrize("chans", [1, 3])
def test_policies_change_images_reproducibly(name, chans):
    x = images(12, chans)
    transform = pipeline(chans, auto_augment=name)
    first = transform(x, keys(12))
    assert first.shape == x.shape
    assert torch.isfinite(first).all()
    assert torch.equal(first, transform(x, keys(12)))
    assert torch.equal(first, pickle.loads(pickle.dumps(transform))(x, keys(12)))
    plain = TensorPipeline(mean=MEAN[:chans], std=STD[:chans])(x)
    changed = (first != plain).flatten(1).any(1).sum()
    assert changed >= 4
    assert not torch.equal(first, transform(x, keys(12, epoch=1)))


def test_randaugment_string_is_what_timm_builds():
    policy = build_policy("rand-m9-n3-mstd0.5-inc1", 224, MEAN, "bicubic")
    assert policy.num_layers == 3
    assert len(policy.ops) == 15  # the "increasing" set
    assert all(op.magnitude == 9 and op.magnitude_std == 0.5 for op in policy.ops)
    assert policy.ops[0].kwargs["fillcolor"] == (125, 123, 114)


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_autoaugment_fills_with_grey(name):
    """The CIFAR recipes share one file of policies; it fills what a shift uncovers with 128."""
    assert build_policy(name, 32, MEAN).fill == [128, 128, 128]


def test_switching_one_augmentation_on_leaves_the_others_alone():
    x = images(8)
    cropped = pipeline(crop_padding=2, flip=0.5)(x, keys(8))
    both = pipeline(crop_padding=2, flip=0.5, cutout=4)(x, keys(8))
    assert ((both == cropped) | (both == 0)).all()
    assert not torch.equal(both, cropped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto_augment": "cifar"}, "unknown auto_augment 'cifar'; known: cifar10"),
        ({"flip": 1.5}, "flip is a probability"),
        ({"cutout": -1}, "cutout must be 0 or more"),
        ({"crop_padding": -4}, "crop_padding must be 0 or more"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


def test_wrong_input_names_expected_and_got():
    with pytest.raises(ValueError, match=r"images \[N, C=3, H, W\], got torch.float32 \[2, 1, 4, 4\]"):
        TensorPipeline(mean=MEAN, std=STD)(torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match="expected floats of 0 to 1, got -1 to 2"):
        TensorPipeline(mean=MEAN, std=STD)(torch.tensor([-1.0, 2.0, 0.0]).reshape(1, 3, 1, 1))
    with pytest.raises(ValueError, match=r"got torch.uint8 \[2, 1, 12, 12\]"):
        TensorPipeline(mean=MEAN, std=STD)(images(2, 1))


def test_single_images_and_missing_keys():
    x = images(1)[0]
    assert TensorPipeline(mean=MEAN, std=STD)(x).shape == (3, 12, 12)
    torch.manual_seed(0)
    first = pipeline(crop_padding=4)(x)
    second = pipeline(crop_padding=4)(x)
    assert not torch.equal(first, second)  # called by hand it draws from torch's generator


def test_steps_are_visible():
    text = repr(pipeline(crop_padding=4, flip=0.5, auto_augment="cifar10", cutout=16))
    assert text == (
        "random crop, padding 4 -> horizontal flip, p=0.5 -> auto augment cifar10 ->"
        " normalise mean (0.4914, 0.4822, 0.4465) std (0.2023, 0.1994, 0.201) -> cutout 16"
    )


def big_image(mode="RGB"):
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)).convert(mode)


def test_image_evaluation_is_resize_and_centre_crop():
    transform = ImagePipeline(size=(32, 32), mean=MEAN, std=STD, crop_pct=0.95)
    image = big_image()
    short = math.floor(32 / 0.95)
    resized = v2.functional.resize(image, short, v2.InterpolationMode.BICUBIC)
    cropped = v2.functional.center_crop(resized, [32, 32])
    expected = v2.functional.normalize(v2.functional.to_dtype(
        v2.functional.to_image(cropped), torch.float32, scale=True), MEAN, STD)  # fmt: skip
    torch.testing.assert_close(transform(image), expected.as_subclass(torch.Tensor))


@pytest.mark.parametrize("chans", [1, 3])
def test_image_training_is_seeded_and_leaves_the_generators_alone(chans):
    transform = ImagePipeline(
        size=(24, 24),
        mean=MEAN[:chans],
        std=STD[:chans],
        augmentation=Augmentation(
            flip=0.5, auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5, cutout=6
        ),
    )
    image = big_image("L" if chans == 1 else "RGB")
    state = torch.get_rng_state()
    first = transform(image, 11)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (chans, 24, 24)
    assert torch.equal(first, transform(image, 11))
    assert not torch.equal(first, transform(image, 12))
    words = repr(transform)
    assert " -> auto augment rand-m9-mstd0.5-inc1 -> " in words
    assert "RandomResizedCrop" in words
    assert words.endswith("cutout 6")


def test_colour_jitter_only_without_a_policy():
    common = {"size": (24, 24), "mean": MEAN, "std": STD, "color_jitter": 0.4}
    assert "ColorJitter" in repr(ImagePipeline(augmentation=Augmentation(), **common))
    policy = Augmentation(auto_augment="rand-m7")
    assert "ColorJitter" not in repr(ImagePipeline(augmentation=policy, **common))
    common["color_jitter"] = 0.0
    assert "ColorJitter" not in repr(ImagePipeline(augmentation=Augmentation(), **common))


def test_padding_has_no_meaning_for_large_images():
    with pytest.raises(ValueError, match="crop_padding is for small images"):
        ImagePipeline(size=(24, 24), mean=MEAN, std=STD, augmentation=Augmentation(crop_padding=4))
