"""What is published comes back: bit for bit, in another process, from a server that knows only HTTP."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch
from huggingface_hub import ModelCard

import zoo
from conversion import convert

SIZE = {"spiking_cnn_nano": (1, 28, 28), "spikingresformer_nano": (1, 28, 28), "converted": (3, 32, 32)}


def converted_resnet():
    """A ResNet with the stages of ResNet-20, fewer channels, converted to a spiking network."""
    torch.manual_seed(0)
    return convert(zoo.create("qcfs_resnet20", planes=(4, 8, 8)).eval(), "qcfs", 4, progress=False)


NETWORKS = {
    "spiking_cnn_nano": lambda: zoo.load("spiking_cnn_nano"),
    "spikingresformer_nano": lambda: zoo.load("spikingresformer_nano"),
    "converted": converted_resnet,
}

RELOAD = """
import sys, torch, zoo
for name, loader, label in zip(*[iter(sys.argv[1:])] * 3):
    if loader == "timm":
        import timm
        model = timm.create_model(name, pretrained=True).eval()
    else:
        model = zoo.load(name)
    images = torch.load(f"images_{label}.pt")
    with torch.no_grad():
        torch.save(model(images, steps=True), f"logits_{label}.pt")
"""  # one process for several networks, since most of its time goes into imports


def samples(name, batch=3):
    return torch.rand(batch, *SIZE[name], generator=torch.Generator().manual_seed(5))


def test_bit_for_bit_in_a_new_process(hub, client, python, tmp_path):
    expected, words = {}, []
    for name, build in NETWORKS.items():
        model, images = build(), samples(name)
        done = zoo.push(model, f"me/{name}", metrics={"test/acc1": 0.9}, dataset="MNIST-5k")
        with torch.no_grad():
            expected[name] = model(images, steps=True)
        torch.save(images, tmp_path / f"images_{name}.pt")
        words += [f"hf-hub:me/{name}@{done.commit}", "zoo", name]
    shutil.rmtree(client, ignore_errors=True)
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        hub.requests.clear()
        ran = python("-c", RELOAD, *words, **variables)
        assert ran.returncode == 0, ran.stderr
        for name, logits in expected.items():
            assert torch.equal(torch.load(tmp_path / f"logits_{name}.pt"), logits), name
            (tmp_path / f"logits_{name}.pt").unlink()
            assert hub.count("GET", rf"{name}/.*model\.safetensors") == (0 if variables else 1)
        assert not variables or not hub.requests


def test_bit_for_bit_by_timm_in_a_new_process(hub, client, python, tmp_path):
    name = "spiking_cnn_nano"
    model, images = NETWORKS[name](), samples(name)
    done = zoo.push(model, f"me/{name}")
    torch.save(images, tmp_path / "images_timm.pt")
    shutil.rmtree(client, ignore_errors=True)
    ran = python("-c", RELOAD, f"hf-hub:me/{name}@{done.commit}", "timm", "timm")
    assert ran.returncode == 0, ran.stderr
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "logits_timm.pt"), model(images, steps=True))
    assert hub.count("GET", r"model\.safetensors") == 1


def test_a_converted_network_carries_its_source(hub, client):
    import timm

    torch.manual_seed(0)
    source = timm.create_model("resnet10t", num_classes=5).eval()
    snn = convert(source, "parallel", 3, torch.rand(4, 3, 64, 64), progress=False)
    zoo.push(snn, "me/snn")
    own = json.loads(hub.files("me/snn")["config.json"])["fulgurite"]
    assert own["origin"]["name"] == "timm/resnet10t.c3_in1k"
    assert own["licence"] == own["origin"]["licence"] == "apache-2.0"
    card = hub.files("me/snn")["README.md"].decode()
    assert "converted from timm/resnet10t.c3_in1k by parallel" in card
    assert "ann-to-snn-conversion" in card
    assert own["paper"].replace(".", "_") in card
    again = zoo.load("hf-hub:me/snn")
    assert again.origin["name"].startswith("hf-hub:me/snn@")


def test_what_is_published(hub, client):
    model = zoo.load("spiking_cnn_nano")
    labels = [f"digit {k}" for k in range(10)]
    metrics = {"test/acc1": 0.988, "test/acc1_t1": 0.5, "test/acc1_t4": 0.988, "test/energy_mj": 0.0045}
    done = zoo.push(
        model,
        "me/nano",
        metrics=metrics,
        dataset={"name": "MNIST, 5,000 digits", "hub_id": "ylecun/mnist", "licence": "cc-by-sa-3.0"},
        method="STBP",
        command="fulgurite fit --config configs/stbp/mnist5k.yaml",
        seed=7,
        hardware="two CPU cores",
        limits="Grey digits only.",
        label_names=labels,
    )
    files = hub.files("me/nano")
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert hub.repositories["me/nano"].branches["main"] == done.commit
    assert len(hub.repositories["me/nano"].commits) == 2  # the one that made it, and ours
    config = json.loads(files["config.json"])
    assert config["label_names"] == labels
    assert config["pretrained_cfg"]["mean"] == [0.1307]
    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "fulgurite"
    assert card.data.license == "apache-2.0"
    assert card.data.datasets == ["ylecun/mnist"]
    assert card.data.metrics == ["accuracy"]
    assert {"spiking-neural-network", "image-classification"} <= set(card.data.tags)
    values = {(r.metric_type, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert values[("accuracy", "top-1 accuracy, T = 4")] == 0.988
    assert values[("accuracy", "top-1 accuracy after 1 of 4 steps")] == 0.5
    assert any(kind == "energy_mj" for kind, _ in values)
    for text in (
        "hf-hub:me/nano",
        "STBP",
        "| T | 1 | 4 |",
        "98.80%",
        "cc-by-sa-3.0",
        "Seed | 7",
        "two CPU cores",
        "fulgurite fit --config",
        "Grey digits only.",
        "bibtex",
    ):
        assert text in card.text, text


def test_revisions(hub, client):
    model = zoo.load("spiking_cnn_nano")
    first = zoo.push(model, "me/nano")
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    second = zoo.push(model, "me/nano")
    branch = zoo.push(zoo.load(f"hf-hub:me/nano@{first.commit}"), "me/nano", revision="other")
    assert len({first.commit, second.commit, branch.commit}) == 3
    biases = {
        at: zoo.load(f"hf-hub:me/nano{at}").classifier.bias for at in ("", f"@{first.commit}", "@other")
    }
    assert torch.equal(biases[""], model.classifier.bias)
    assert torch.equal(biases[f"@{first.commit}"] + 1.0, model.classifier.bias)
    assert torch.equal(biases["@other"], biases[f"@{first.commit}"])


def test_several_files_of_weights(hub, client):
    model = zoo.load("spiking_cnn_nano")
    zoo.push(model, "me/nano", max_shard_size=200_000)
    names = sorted(n for n in hub.files("me/nano") if n.startswith("model"))
    assert len(names) > 2
    assert names[-1] == "model.safetensors.index.json"
    again = zoo.load("hf-hub:me/nano")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    zoo.push(model, "me/nano")  # in one file: the others must go, or the next reader would mix them
    assert [n for n in hub.files("me/nano") if n.startswith("model")] == ["model.safetensors"]
    assert torch.equal(zoo.load("hf-hub:me/nano").classifier.bias, model.classifier.bias)


def test_a_folder_and_its_edited_card(hub, client, tmp_path):
    folder = zoo.save(zoo.load("spiking_cnn_nano"), tmp_path / "out")
    (folder / "training.yaml").write_text("seed_everything: 0\n")
    (folder / "notes.bin").write_bytes(b"not ours to publish")
    zoo.push(f"local-dir:{folder}", "me/nano")
    files = hub.files("me/nano")
    assert "training.yaml" in files
    assert "notes.bin" not in files
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nA sentence of the owner.\n")
    zoo.push(folder, "me/nano", licence="MIT")
    card = ModelCard(hub.files("me/nano")["README.md"].decode())
    assert "A sentence of the owner." in card.text
    assert card.data.license == "mit"
    assert json.loads(hub.files("me/nano")["config.json"])["fulgurite"]["licence"] == "MIT"


def test_a_private_repository(hub, client, monkeypatch):
    zoo.push(zoo.load("spiking_cnn_nano"), "me/hidden", private=True)
    assert hub.repositories["me/hidden"].private
    with monkeypatch.context() as without:
        without.delenv("HF_TOKEN")
        with pytest.raises(zoo.HubError, match="no token was found; log in with `hf auth login`, or set"):
            zoo.load("hf-hub:me/hidden")
    assert zoo.load("hf-hub:me/hidden").num_classes == 10


def test_unchanged_weights_are_not_sent_again(hub, client):
    model = zoo.load("spiking_cnn_nano")
    zoo.push(model, "me/nano")
    zoo.push(model, "me/copy")
    assert hub.count("PUT", "/lfs/") == 1


# -- several at once -------------------------------------------------------------------------------


def is_whole(files):
    import hashlib

    recorded = json.loads(files["config.json"])["fulgurite"]["sha256"]
    return hashlib.sha256(files["model.safetensors"]).hexdigest() == recorded


def test_somebody_publishes_in_between(hub, client, monkeypatch):
    from huggingface_hub import HfApi

    zoo.push(zoo.load("spiking_cnn_nano"), "me/nano")
    real, others = HfApi.create_commit, []

    def late(self, repo_id, *args, **kwargs):
        if not others:
            others.append(hub.put(repo_id, {**hub.files(repo_id), "theirs.txt": b"kept"}))
        return real(self, repo_id, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", late)
    model = zoo.load("spiking_cnn_nano", pretrained=False)
    zoo.push(model, "me/nano")
    assert hub.count("POST", "/commit/main") == 3
    assert hub.files("me/nano")["theirs.txt"] == b"kept"
    assert is_whole(hub.files("me/nano"))
    assert torch.equal(zoo.load("hf-hub:me/nano").classifier.bias, model.classifier.bias)


def test_two_clients_at_once(hub, client, tmp_path):
    models = [zoo.load("spiking_cnn_nano", pretrained=False) for _ in range(2)]
    failures = []

    def publish(model):
        try:
            zoo.push(model, "me/nano")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(model,)) for model in models]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures
    made = list(hub.repositories["me/nano"].commits.values())
    assert len(made) == 3
    assert all(is_whole(files) for files in made[1:])
    loaded = []
    readers = [
        threading.Thread(target=lambda: loaded.append(zoo.load("hf-hub:me/nano").classifier.bias))
        for _ in range(4)
    ]
    [t.start() for t in readers]
    [t.join() for t in readers]
    assert len(loaded) == 4
    assert any(torch.equal(loaded[0], m.classifier.bias) for m in models)
    assert all(torch.equal(b, loaded[0]) for b in loaded)
    assert not list(client.rglob("*.incomplete"))
