"""Detectors of torchvision: what they find, and that nothing but backbone and head is converted."""

import copy
import io
import pickle
import re
from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS, RetinaNet, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import spiking
from conversion import CalibrationError, ConversionError, bypassed
from conversion.detection.detector import convert_detector
from conversion.detection.images import CalibrationImages, PaddedBatches, network_size
from conversion.network.site import sites

WIDTH, CLASSES = 64, 3
SIZE = (64, 96)


def backbone(extra=None):
    """Two stages in the pyramid, frozen norms that do something."""
    norm = FrozenBatchNorm2d

    def stage(inputs, outputs):
        skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), norm(outputs))
        return BasicBlock(inputs, outputs, 2, skip, norm_layer=norm)

    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), norm(16), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    body = nn.Sequential(
        OrderedDict(stem=nn.Sequential(*stem), layer1=stage(16, 32), layer2=stage(32, WIDTH))
    )
    for module in body.modules():
        if isinstance(module, norm):
            module.weight.uniform_(0.8, 1.4)
            module.bias.uniform_(-0.1, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return BackboneWithFPN(body, {"layer1": "0", "layer2": "1"}, [32, WIDTH], WIDTH, extra)


def anchors(levels, ratios):
    return AnchorGenerator(tuple((16 * 2**i,) for i in range(levels)), (ratios,) * levels)


def lively(detector):
    """Scores and boxes that differ: fresh heads give nearly the same everywhere."""
    for name in ("cls_logits", "bbox_reg", "bbox_ctrness"):
        for path, module in detector.head.named_modules():
            if path.endswith(name):
                nn.init.normal_(module.weight, std=0.15)
                nn.init.normal_(module.bias, std=0.3)
    return detector.eval()


def fcos():
    torch.manual_seed(0)
    head = FCOSHead(WIDTH, 1, CLASSES, num_convs=1)
    return lively(
        FCOS(
            backbone(LastLevelP6P7(WIDTH, WIDTH)),
            CLASSES,
            min_size=64,
            max_size=96,
            anchor_generator=anchors(4, (1.0,)),
            head=head,
            score_thresh=0.4,
        )
    )


def retinanet(norm_layer=None):
    torch.manual_seed(1)
    head = RetinaNetHead(WIDTH, 2, CLASSES, norm_layer)
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[:2]
    return lively(
        RetinaNet(
            backbone(),
            CLASSES,
            min_size=64,
            max_size=96,
            anchor_generator=anchors(3, (0.5, 1.0)),
            head=head,
            score_thresh=0.5,
        )
    )


PUBLISHED = {"policy": "official-cnn", "threshold": "99.9%", "level": "channel", "levels": 8}  # of DCGS
SOURCES = {"fcos": fcos, "retinanet": retinanet, "retinanet_v2": lambda: retinanet(partial(nn.GroupNorm, 32))}


def samples(sizes=(SIZE, (60, 90)), seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


@pytest.fixture(scope="module")
def converted():
    """Each detector converted once: (source, spiking detector)."""
    made = {}

    def get(source, method="dcgs"):
        if (source, method) not in made:
            ann, settings = SOURCES[source](), PUBLISHED if source == "retinanet_v2" else {}
            snn = convert_detector(ann, method, 4, samples(), progress=False, **settings)
            made[source, method] = ann, snn
        return made[source, method]

    return get


def raw(ann, batch):
    return ann.head(list(ann.backbone(batch.tensors).values()))


@torch.no_grad()
@pytest.mark.parametrize(
    ("source", "method"),
    [("fcos", "dcgs"), ("fcos", "ecmt"), ("retinanet", "ecmt"), ("retinanet_v2", "dcgs")],
)
def test_exact_neurons_find_what_the_source_finds(converted, source, method):
    ann, snn = converted(source, method)
    images = samples(seed=3)
    expected = ann(images)
    with bypassed(snn):
        found, at_steps = snn(images), snn(images, steps=True)
    assert len(at_steps) == 4
    for detections in (found, *at_steps):
        assert len(detections) == len(expected) == 2
        for ours, theirs in zip(detections, expected, strict=True):
            assert ours.keys() == theirs.keys() == {"boxes", "scores", "labels"}
            assert len(theirs["scores"]) > 5
            assert len(theirs["labels"].unique()) > 1
            assert torch.equal(ours["labels"], theirs["labels"])
            torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("source", "method"), [("fcos", "dcgs"), ("fcos", "ecmt"), ("retinanet_v2", "dcgs")])
def test_head_outputs_approach_the_source(converted, source, method):
    ann, snn = converted(source, method)
    images = samples(seed=4)
    expected = raw(ann, snn.batch(images))
    snn.time_steps = 64
    outputs = snn.head_outputs(images, steps=True)
    snn.time_steps = 4
    assert outputs.keys() == expected.keys()
    for name, means in outputs.items():
        assert means.shape == (64, *expected[name].shape)
        errors = [float((m - expected[name]).pow(2).mean().sqrt() / expected[name].std()) for m in means]
        assert errors[63] < errors[7] < 0.7 * errors[0]
        assert errors[63] < (0.02 if method == "dcgs" else 0.3)


@torch.no_grad()
def test_what_is_found_after_many_steps(converted):
    ann, snn = converted("fcos")
    images = samples(seed=4)
    snn.time_steps = 32
    found = snn(images)
    snn.time_steps = 4
    for ours, theirs in zip(found, ann(images), strict=True):
        assert torch.equal(ours["labels"][:3], theirs["labels"][:3])
        torch.testing.assert_close(ours["boxes"][:3], theirs["boxes"][:3], rtol=0, atol=1.0)
        assert abs(len(ours["scores"]) - len(theirs["scores"])) <= 2


@torch.no_grad()
def test_one_pass_tells_what_fewer_steps_find(converted):
    _, snn = converted("retinanet_v2")
    images = samples(seed=5)
    at_steps = snn(images, steps=True)
    snn.time_steps = 2
    short = snn(images)
    snn.time_steps = 4
    for detections, expected in ((at_steps[1], short), (at_steps[3], snn(images))):
        for a, b in zip(detections, expected, strict=True):
            assert torch.equal(a["labels"], b["labels"])
            torch.testing.assert_close(a["boxes"], b["boxes"], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_smaller_batches_are_padded(converted):
    ann, snn = converted("fcos")
    small = samples([(64, 64)])
    batch = snn.batch(small)
    assert batch.tensors.shape == (1, 3, *SIZE)
    assert batch.image_sizes == [(64, 64)]
    assert torch.equal(batch.tensors[..., :64], ann.transform(small)[0].tensors)
    assert not batch.tensors[..., 64:].any()
    with bypassed(snn):
        found = snn(small)[0]
        logits = snn.head_outputs(small)["cls_logits"]
    assert len(found["boxes"])
    assert float(found["boxes"].max()) <= 64
    torch.testing.assert_close(logits, raw(ann, batch)["cls_logits"], rtol=1e-4, atol=1e-5)


def test_heads_share_weights_but_no_neurons(converted):
    _, snn = converted("fcos")
    names = [n for n in sites(snn) if "classification_head.conv.2" in n]
    assert len(names) == 4
    shapes = {sites(snn)[n].shape for n in names}
    assert len(shapes) == 4
    weights = dict(snn.network.named_parameters())
    assert [n for n in weights if "classification_head.conv.0" in n] == [
        "head.classification_head.conv.0.weight",
        "head.classification_head.conv.0.bias",
    ]


def test_published_settings_have_a_neuron_for_each_relu(converted):
    _, snn = converted("retinanet_v2")
    found = sites(snn)
    assert {s.activation.kind for s in found.values()} == {"relu"}
    assert {s.v_threshold.numel() for n, s in found.items() if n.startswith("network.head")} == {WIDTH}
    assert "group_norm" in snn.report.analog.values()


def test_ecmt_leaves_all_last_layers_without_neurons(converted):
    _, snn = converted("fcos", "ecmt")
    assert not [n for n in sites(snn) if re.search("cls_logits|bbox", n)]


@torch.no_grad()
def test_operations(converted):
    _, snn = converted("retinanet_v2")
    images = samples()
    found = snn.count_operations(images)
    assert found.samples == 2
    assert found.full_ratio.shape == (4,)
    assert 0 < float(found.full_ratio[0]) < float(found.full_ratio[-1])
    report = spiking.profile_energy(snn, images)
    assert report.samples == 2
    assert report.ann_macs == pytest.approx(found.ann_macs / 2)
    assert report.sops == pytest.approx(found.sops / 2)


@torch.no_grad()
def test_copies_and_states(converted):
    ann, snn = converted("fcos")
    images = samples(seed=6)
    expected = snn(images)[0]
    source_state = {k: v.clone() for k, v in ann.state_dict().items()}
    file = io.BytesIO()
    torch.save(snn.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(snn)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    for twin in (other, pickle.loads(pickle.dumps(snn))):
        twin.detector.score_thresh = 0.45
        found = twin(images)[0]
        keep = expected["scores"] > 0.45
        assert torch.equal(found["scores"], expected["scores"][keep])
        assert torch.equal(found["boxes"], expected["boxes"][keep])
    assert snn.detector.score_thresh == 0.4
    assert {id(p) for p in ann.parameters()}.isdisjoint(id(p) for p in snn.parameters())
    assert all(torch.equal(v, source_state[k]) for k, v in ann.state_dict().items())


def test_calibration_comes_in_every_form(converted):
    ann, _ = converted("fcos")
    images = samples([SIZE, (60, 90), SIZE, SIZE, SIZE])
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    forms = {
        "list": (images, [4, 1]),
        "tensor": (torch.stack([images[0]] * 5), [4, 1]),
        "batches": ([images[:3], images[3:]], [3, 2]),
        "batches with targets": ([(tuple(images[:2]), (target, target))], [2]),
        "images with targets": ([(image, target) for image in images], [1] * 5),
        "once": (iter([images[:2], images[2:]]), [2, 3]),
    }
    for form, (source, lengths) in forms.items():
        given = CalibrationImages(source)
        batches = PaddedBatches(given, ann, network_size(ann, given, None))
        for _ in range(2):
            assert [len(b) for b in batches] == lengths, form
        assert len(batches) == len(lengths)
        assert next(iter(batches)).shape[1:] == (3, *SIZE)


def test_what_is_no_detector_or_not_ready(converted):
    with pytest.raises(TypeError, match=r"expected FCOS or RetinaNet .* got Linear; conversion\.convert"):
        convert_detector(nn.Linear(2, 2), "dcgs", 4, samples(), progress=False)
    rcnn = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).eval()
    with pytest.raises(TypeError, match="got FasterRCNN"):
        convert_detector(rcnn, "dcgs", 4, samples(), progress=False)
    ann = copy.deepcopy(converted("fcos")[0]).train()
    with pytest.raises(ConversionError, match=r"training mode .*; call model\.eval\(\)"):
        convert_detector(ann, "dcgs", 4, samples(), progress=False)


def test_wrong_settings_and_sizes(converted):
    ann, _ = converted("fcos")
    make = partial(convert_detector, ann, progress=False)
    with pytest.raises(ValueError, match="unknown conversion method 'dgcs'"):
        make("dgcs", 4, samples())
    with pytest.raises(TypeError, match="dcgs has no setting 'level_count'"):
        make("dcgs", 4, samples(), level_count=3)
    with pytest.raises(ValueError, match=r"multiples of 32, got \(64, 100\)"):
        make("dcgs", 4, samples(), image_size=(64, 100))
    with pytest.raises(ValueError, match=r"give calibration=IMAGES or image_size=\(H, W\)"):
        make("dcgs", 4)
    with pytest.raises(ValueError, match="time_steps must be an integer of at least 1, got 0"):
        make("dcgs", 0, samples())


def test_wrong_calibration(converted):
    ann, _ = converted("fcos")
    make = partial(convert_detector, ann, "dcgs", 4, progress=False)
    with pytest.raises(CalibrationError, match="no calibration image"):
        make([])
    with pytest.raises(CalibrationError, match=r"got torch\.uint8"):
        make([torch.zeros(3, 64, 96, dtype=torch.uint8)])
    with pytest.raises(CalibrationError, match="divide by 255"):
        make([p * 255 for p in samples()])
    with pytest.raises(CalibrationError, match=r"got a tensor \(3, 64, 96\)"):
        make(samples()[0])
    with pytest.raises(CalibrationError, match="got int"):
        make(3)


def test_wrong_images(converted):
    _, snn = converted("fcos")
    with pytest.raises(ValueError, match="no images: expected a list"):
        snn([])
    with pytest.raises(ValueError, match=r"got one \(3, 64, 96\); put it in a list"):
        snn(samples()[0])
    with pytest.raises(TypeError, match=r"got torch\.uint8 .*scale=True"):
        snn([torch.zeros(3, 64, 96, dtype=torch.uint8)])
    with pytest.raises(ValueError, match=r"got one of shape \(64, 96\)"):
        snn([torch.zeros(64, 96)])
    with pytest.raises(ValueError, match=r"\(96, 64\) .*takes up to \(64, 96\): .*image_size=\(96, 64\)"):
        snn(samples([(96, 64)]))
    with pytest.raises(RuntimeError, match=r"only detects: call eval\(\)"):
        copy.deepcopy(snn).train()(samples())
