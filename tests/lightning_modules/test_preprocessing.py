"""Images are prepared as trained weights want them, or a warning names both values."""

import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
from PIL import Image

import zoo
from datamodules import ImageFolderDataModule, ImageNetDataModule, MNIST5kDataModule, SyntheticDataModule
from lightning_modules import ClassificationTask
from lightning_modules.conversion import ConversionTask
from lightning_modules.conversion.run import ConversionRun
from lightning_modules.preprocessing import match, recorded_in, wanted_by
from lightning_modules.source import Calibration, Source
from zoo.files.description import noted_preprocessing

VIT = timm.get_pretrained_cfg("vit_base_patch16_224.augreg2_in21k_ft_in1k").to_dict()
NANO = "spiking_cnn_nano"


@pytest.fixture
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def folder(tmp_path):
    """Real digits as files twice as large as the shipped networks' input, and how many there are."""
    data = MNIST5kDataModule()
    data.setup()
    rows = data.test_set.rows[::25]
    for split in ("train", "val"):
        for row in rows:
            place = tmp_path / split / str(int(data.test_set.labels[row]))
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.repeat(np.repeat(data.test_set.images[row, 0], 2, 0), 2, 1))
            image.save(place / f"{row}.png")
    return tmp_path


def some_classes(root):
    for split in ("train", "val"):
        (root / split / "a").mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(root / split / "a" / "x.png")
    return str(root)


def test_a_vision_transformer_decides_about_mean_crop_and_resizing(tmp_path, silent):
    """The values of timm's card: mean and standard deviation 0.5, crop 0.9, bicubic."""
    root = some_classes(tmp_path)
    data = ImageNetDataModule(root)
    mended, left = match(data, VIT, "vit")
    assert [words.split(" ")[0] for words in mended] == ["mean", "std", "crop_pct"]
    assert not left
    assert (data.mean, data.std, data.crop_pct) == ((0.5,) * 3, (0.5,) * 3, 0.9)
    assert "mean=tensor([0.5000, 0.5000, 0.5000])" in repr(data.eval_transform)
    assert "size=248" in repr(data.eval_transform)  # floor(224 / 0.9)
    resnet = {
        **timm.get_pretrained_cfg("resnet34.tv_in1k").to_dict(),
        "input_size": (3, 96, 96),
        "crop_pct": 1.0,
    }
    free = ImageFolderDataModule(root)
    match(free, resnet, "resnet")
    assert (free.interpolation, free.input_size) == ("bilinear", (3, 96, 96))


def test_what_the_user_chose_stays_and_one_warning_names_both_values(tmp_path):
    data = ImageNetDataModule(some_classes(tmp_path), mean=[0.4] * 3, crop_pct=0.95, image_size=160)
    with pytest.warns(UserWarning, match="was trained with") as told:
        match(data, VIT, "vit")
    assert len(told) == 1
    for words in (
        "mean (0.5, 0.5, 0.5) (the data module: (0.4, 0.4, 0.4))",
        "std (0.5, 0.5, 0.5) (the data module: (0.229, 0.224, 0.225))",
        "crop_pct 0.9 (the data module: 0.95)",
        "input_size (3, 224, 224) (the data module: (3, 160, 160))",
    ):
        assert words in str(told[0].message)
    assert (data.mean, data.crop_pct, data.image_size) == ((0.4,) * 3, 0.95, (160, 160))


def test_equal_statistics_and_data_of_other_kinds_are_left_alone(silent):
    data = MNIST5kDataModule(mean=[0.13066], std=[0.3081])
    assert match(data, {"mean": (0.1307,), "std": (0.3081,), "input_size": (1, 28, 28)}, "it") == ([], [])
    assert match(object(), VIT, "vit") == ([], [])
    assert match(None, VIT, "vit") == ([], [])


@pytest.mark.parametrize("door", ["predict", "test"])
def test_a_shipped_network_reads_digits_from_a_folder(door, folder, silent):
    """40 real digits of the network's own test set, of another size, with no settings at all."""
    task = ClassificationTask(NANO, {"pretrained": True}, in_chans=1)
    data = ImageFolderDataModule(
        str(folder), in_chans=1, num_workers=0, batch_size=40, predict_dir=str(folder / "val")
    )
    task.match_preprocessing(data, None, training=False)
    assert (data.mean, data.std, data.input_size) == ((0.1307,), (0.3081,), (1, 28, 28))
    if door == "test":
        data.setup()
    x, y = next(iter(data.predict_dataloader() if door == "predict" else data.test_dataloader()))
    labels = y if door == "test" else torch.tensor([int(path.split("/")[-2]) for path in y])
    with torch.no_grad():
        right = task.eval()(x).mean(0).argmax(1) == labels
    assert len(labels) == 40
    assert right.float().mean() >= 0.95  # 97.5 % on the whole test set; 0.3 without


def test_training_leaves_the_data_as_they_are(folder, silent):
    task = ClassificationTask(NANO, {"pretrained": True}, in_chans=1)
    data = ImageFolderDataModule(str(folder), in_chans=1)
    task.match_preprocessing(data, None, training=True)
    assert data.mean == (0.449,)


def test_checkpoints_record_how_their_images_were_prepared(tmp_path):
    data = SyntheticDataModule(mean=[0.1, 0.2, 0.3], num_workers=0, batch_size=8)
    task = ClassificationTask(NANO, num_classes=data.num_classes)
    trainer = pl.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        limit_val_batches=0, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, data)
    path = tmp_path / "x.ckpt"
    trainer.save_checkpoint(path)
    assert recorded_in(path)["mean"] == (0.1, 0.2, 0.3)
    other = SyntheticDataModule()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.match_preprocessing(other, path, training=False)
        task.match_preprocessing(data, path, training=False)
        started = ClassificationTask(NANO, {"weights": str(path)}, num_classes=data.num_classes)
        started.match_preprocessing(third := SyntheticDataModule(), None, training=False)
    assert other.mean == third.mean == (0.1, 0.2, 0.3)
    assert Source(model=NANO, weights=str(path)).preprocessing(task.model)["mean"] == (0.1, 0.2, 0.3)
    assert zoo.load(str(path)).pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    again = zoo.load(NANO, weights=path, num_classes=data.num_classes, in_chans=3)
    assert again.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("place", ["", "model.safetensors"])
def test_weights_of_a_folder_bring_its_record(place, tmp_path):
    zoo.save(zoo.create(NANO, num_classes=3), tmp_path / "m", pretrained_cfg={"mean": (0.9,), "std": (0.8,)})
    path = tmp_path / "m" / place
    for model in (zoo.load(NANO, weights=path, num_classes=3), zoo.load(f"local-dir:{path}")):
        assert tuple(model.pretrained_cfg["mean"]) == (0.9,)
    assert recorded_in(path)["std"] == [0.8]


def test_a_note_that_is_no_preprocessing_is_not_taken():
    note = {
        "mean": ["a"],
        "std": [0.1],
        "crop_pct": True,
        "interpolation": 3,
        "input_size": [3, 8.5, 8],
        "x": 1,
    }
    assert noted_preprocessing(note) == {"std": (0.1,)}
    assert noted_preprocessing([1]) == noted_preprocessing(None) == {}


@pytest.fixture
def source(tmp_path):
    ann = zoo.create("qcfs_resnet20", num_classes=4, layers=(1,), planes=(8,))
    told = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 16, 16)}
    zoo.save(ann.eval(), tmp_path / "ann", pretrained_cfg=told)
    return f"local-dir:{tmp_path / 'ann'}"


def test_conversions_calibrate_and_measure_as_the_source_was_trained(source):
    data = SyntheticDataModule(num_classes=4, image_size=16, num_workers=0, batch_size=4)
    run = ConversionRun(
        data=data, source=Source(model=source), time_steps=2, calibration=Calibration(samples=8)
    )
    _, snn = run.convert(progress=False)
    assert (data.mean, data.std, data.input_size) == ((0.5,) * 3, (0.25,) * 3, (3, 16, 16))
    assert tuple(snn.recipe["input_size"]) == (3, 16, 16)
    images, _ = next(iter(data.calibration_dataloader(8)))
    assert images.min() >= -2
    assert images.max() <= 2


@pytest.mark.parametrize("training", [False, True])
def test_conversion_tasks_do_so_whether_they_train_or_not(source, training):
    data = SyntheticDataModule(num_classes=4, image_size=16)
    task = ConversionTask({"model": source}, num_classes=4, input_size=[3, 16, 16])
    task.match_preprocessing(data, None, training=training)
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)
    exported = SyntheticDataModule(num_classes=4)
    with pytest.warns(UserWarning, match=r"input_size \(3, 16, 16\) \(the data module: "):
        task.match_preprocessing(exported, None, training=training)


def test_random_weights_want_nothing():
    ann = zoo.load("timm/test_resnet", pretrained=False)
    assert wanted_by(ann)["mean"]
    assert Source(model="timm/test_resnet", pretrained=False).preprocessing(ann) == {}
    assert recorded_in("no/such/place") == recorded_in("no/such/file.ckpt") == {}
