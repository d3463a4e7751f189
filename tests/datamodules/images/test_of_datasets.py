"""Data sets of others as data of classes: their labels and names, their splits, and what a batch is."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from datamodules import DataError, DatasetDataModule, HuggingFaceDataModule, TrainSampler


class Greys(Dataset):
    """Images of one grey value, their number; labels k % 3."""

    def __init__(self, count=60, kind="pil", size=(6, 4)):
        self.count, self.kind, self.size = count, kind, size

    def __len__(self):
        return self.count

    def __getitem__(self, k):
        array = np.full(self.size[::-1], k, dtype=np.uint8)
        image = {"pil": Image.fromarray(array), "array": array, "tensor": torch.from_numpy(array)[None] / 255}
        return image[self.kind], k % 3


@pytest.mark.parametrize("kind", ["pil", "array", "tensor"])
def test_every_kind_of_image_is_the_same_batch(kind):
    data = DatasetDataModule(Greys(kind=kind), in_chans=1, mean=[0.0], std=[1.0], eval_batch_size=5)
    data.setup()
    assert (data.num_classes, data.input_size) == (3, (1, 4, 6))
    x, y = next(iter(data.test_dataloader()))
    assert x.shape == (5, 1, 4, 6)
    values = (x * 255).round().long()
    assert torch.equal(values[:, 0, 0, 0] % 3, y)
    assert (values == values[:, :, :1, :1]).all()


def test_the_splits_share_no_sample_and_leave_none_out():
    data = DatasetDataModule(Greys(), in_chans=1)
    data.setup()
    rows = [set(part.rows.tolist()) for part in (data.train_set, data.val_set, data.test_set)]
    assert sum(map(len, rows)) == len(set().union(*rows)) == 60
    assert len(rows[2]) == 12
    assert torch.bincount(data.test_set.targets).tolist() == [4, 4, 4]


def test_a_test_set_of_its_own():
    data = DatasetDataModule(Greys(), test=Greys(9), in_chans=1, val="test")
    data.setup()
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [60, 9, 9]
    assert data.splits()["val"].name == "test"


def test_attributes_are_believed_before_items_are_read():
    class Told(Greys):
        targets, classes = [k % 2 for k in range(60)], ["even", "odd"]

    data = DatasetDataModule(Told(), in_chans=1)
    assert data.class_names == ("even", "odd")
    assert data.num_classes == 2


def test_rectangles():
    data = DatasetDataModule(Greys(), in_chans=1, image_size=[10, 20])
    data.setup()
    assert data.input_size == (1, 10, 20)
    assert next(iter(data.train_dataloader()))[0].shape[1:] == (1, 10, 20)
    with pytest.raises(ValueError, match=r"\[height, width\]"):
        DatasetDataModule(Greys(), in_chans=1, image_size=[10, 20, 3])


def test_balanced_draws_show_every_class_equally_often():
    class Rare(Greys):
        targets = [int(k % 20 == 0) for k in range(400)]  # noqa: RUF012

    data = DatasetDataModule(Rare(400), in_chans=1, balanced=True, batch_size=32)
    data.setup()
    share = data.train_set.targets[[i for _, i in _keys(data)]].double().mean()
    assert 0.38 < share < 0.62  # 0.05 without; 5 standard deviations of 288 draws are 0.15
    assert list(_keys(data)) == list(_keys(data))


def _keys(data):
    return iter(TrainSampler(len(data.train_set), 0, weights=data.sample_weights(data.train_set)))


def test_draws_keep_to_the_weights():
    sampler = TrainSampler(1000, 3, weights=torch.tensor([1.0] + [0.0] * 998 + [3.0]))
    drawn = [index for _, index in sampler]
    assert set(drawn) == {0, 999}
    assert 0.68 < drawn.count(999) / 1000 < 0.82


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: DatasetDataModule(_Stream(), in_chans=1), "must have a length"),
        (lambda: DatasetDataModule(Greys(), in_chans=1, num_classes=2), "labels go up to 2"),
        (lambda: DatasetDataModule(TensorDataset(torch.rand(4, 1, 2, 2), torch.rand(4))), "one class number"),
        (
            lambda: DatasetDataModule(_Named(), in_chans=1),
            r"item 0 of _Named must be .* a dict of image, label",
        ),
    ],
)
def test_what_is_no_data_of_classes_is_refused(make, expected):
    with pytest.raises(DataError, match=expected):
        make()


class _Named(Greys):
    def __getitem__(self, k):
        image, label = super().__getitem__(k)
        return {"image": image, "label": label}


class _Stream(IterableDataset):
    def __iter__(self):
        return iter([])


def test_sizes_that_differ_need_one():
    class Several(Greys):
        def __getitem__(self, k):
            return Image.new("L", (4 + k % 2, 4)), k % 3

    data = DatasetDataModule(Several(), in_chans=1, num_workers=0)
    data.setup()
    with pytest.raises(DataError, match="set image_size"):
        next(iter(data.train_dataloader()))


def test_hugging_face_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'fulgurite\[hf\]'"):
        HuggingFaceDataModule("owner/name")


def test_a_folder_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    rows = {"img": [Image.new("L", (5, 3), 9 * k) for k in range(20)], "kind": [k % 2 for k in range(20)]}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    data = HuggingFaceDataModule(
        str(tmp_path / "saved"), image="img", label="kind", test=None, in_chans=1, mean=[0.0], std=[1.0]
    )
    data.setup()
    assert (data.class_names, data.input_size) == (("a", "b"), (1, 3, 5))
    x, y = next(iter(data.test_dataloader()))
    assert torch.equal((x[:, 0, 0, 0] * 255 / 9).round().long() % 2, y)
    with pytest.raises(DataError, match="no column 'image'; there are img, kind"):
        HuggingFaceDataModule(str(tmp_path / "saved"), test=None)
    with pytest.raises(DataError, match="has no split 'test'"):
        HuggingFaceDataModule(str(tmp_path / "saved"), image="img", label="kind")
