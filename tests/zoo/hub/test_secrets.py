"""What must not be published: secrets of the usual forms, wherever they stand, and files behind links."""

from __future__ import annotations

import os
import random
import shutil
import string

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import zoo
from zoo.hub.push import prepare
from zoo.hub.secrets import find_secret

NAME = "spiking_cnn_nano"
LETTERS = string.ascii_letters + string.digits


def made_up(seed):
    """One secret of each usual form, from random characters."""
    rng = random.Random(seed)

    def some(count, alphabet=LETTERS):
        return "".join(rng.choices(alphabet, k=count))

    return [
        "hf_" + some(34),
        "hf_oauth_" + some(40),
        "hf_jwt_" + some(20) + "." + some(30),
        "ghp_" + some(36),
        "gho_" + some(36),
        "ghs_" + some(36),
        "github_pat_" + some(22) + "_" + some(59),
        "glpat-" + some(20),
        "AKIA" + some(16, string.ascii_uppercase + string.digits),
        "ASIA" + some(16, string.ascii_uppercase + string.digits),
        "AIza" + some(35),
        "xoxb-" + some(12, string.digits) + "-" + some(24),
        "sk-" + some(48),
        "sk-ant-api03-" + some(40),
        "sk_live_" + some(24),
        "npm_" + some(36),
        "pypi-" + some(80),
        f"eyJ{some(20)}.eyJ{some(40)}.{some(43)}",
        f"https://me:{some(12)}@example.org/repository.git",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return zoo.save(zoo.load(NAME), tmp_path_factory.mktemp("saved") / "out")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "out")


@pytest.mark.parametrize("seed", range(3))
def test_the_usual_forms_are_found(seed):
    for secret in made_up(seed):
        for text in (secret, f"logger: {secret}\nlr: 0.1", f'{{"key": "{secret}"}}'):
            assert find_secret(text), secret


@pytest.mark.parametrize(
    "text",
    [
        "a hash " + "0123456789abcdef" * 4,
        "hf-hub:fulgurite/spiking_cnn_nano@" + "ab" * 20,
        "https://huggingface.co/timm/sk_resnet18: see arXiv:1512.03385",
        "from hf_hub_download import something_that_is_long",
        "task-specific risk-averse-and-long-names-of-networks",
        "-----BEGIN CERTIFICATE-----",
        "mail: somebody@example.org, https://example.org/path?x=1@2",
        zoo.load(NAME).__doc__ or "",
    ],
)
def test_what_is_none(text):
    assert find_secret(text) is None


def hide_in_settings(folder, secret):
    (folder / "training.yaml").write_text(f"logger: {secret}\n")


def hide_in_utf16(folder, secret):
    (folder / "training.yaml").write_text(f"logger: {secret}\n", encoding="utf-16")


def hide_in_card(folder, secret):
    (folder / "README.md").write_text((folder / "README.md").read_text() + secret)


def figure(folder, **options):
    (folder / "figures").mkdir(exist_ok=True)
    Image.new("RGB", (3, 3)).save(folder / "figures" / "curve.png", **options)


def hide_in_figure(folder, secret):
    info = PngInfo()
    info.add_text("Comment", secret)
    figure(folder, pnginfo=info)


def hide_in_packed_text(folder, secret):
    info = PngInfo()
    info.add_itxt("Software", secret, zip=True)
    figure(folder, pnginfo=info)


def hide_in_exif(folder, secret):
    exif = Image.Exif()
    exif[0x010E] = secret
    figure(folder, exif=exif)


def hide_behind_figure(folder, secret):
    figure(folder)
    with (folder / "figures" / "curve.png").open("ab") as file:
        file.write(secret.encode())


PLACES = [
    hide_in_settings,
    hide_in_utf16,
    hide_in_card,
    hide_in_figure,
    hide_in_packed_text,
    hide_in_exif,
    hide_behind_figure,
]


@pytest.mark.parametrize("hide", PLACES)
def test_secrets_are_found_everywhere(hide, folder):
    for secret in made_up(7)[::5]:
        hide(folder, secret)
        with pytest.raises(zoo.HubError, match="an access token or another secret") as caught:
            prepare(folder, "me/x")
        assert secret not in str(caught.value)


def test_the_users_own_token_of_an_unknown_form(folder):
    hide_in_settings(folder, "company-token-0815")
    assert prepare(folder, "me/x")
    with pytest.raises(zoo.HubError, match="your token"):
        prepare(folder, "me/x", token="company-token-0815")


@pytest.mark.parametrize(
    "name", ["figures/curve.png", "figures", "training.yaml", "README.md", "config.json", "model.safetensors"]
)
def test_links_are_not_followed(name, folder, tmp_path):
    figure(folder)
    hide_in_settings(folder, "none")
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(zoo.HubError, match=r"is a link to .*outside, and links are not followed"):
        prepare(folder, "me/x")
    (folder / name).unlink()
    outside.rename(folder / name)
    assert {"figures/curve.png", "training.yaml", "README.md"} <= set(prepare(folder, "me/x"))


def test_a_link_that_leads_nowhere(folder):
    (folder / "training.yaml").symlink_to("nowhere")
    with pytest.raises(zoo.HubError, match="is a link to nowhere"):
        prepare(folder, "me/x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "training.yaml")
    with pytest.raises(zoo.HubError, match="is no regular file"):
        prepare(folder, "me/x")


def test_a_figure_that_is_none(folder):
    (folder / "figures").mkdir()
    (folder / "figures" / "curve.png").write_bytes(b"-----BEGIN")
    with pytest.raises(zoo.HubError, match=r"curve\.png is no PNG image"):
        prepare(folder, "me/x")
