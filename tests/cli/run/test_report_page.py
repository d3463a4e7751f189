"""``--report``: what a person reads instead of a log."""

import re
from pathlib import Path

import pytest
import yaml

from cli.main import main
from lightning_modules.record import read_report
from lightning_modules.report_page import write_page
from tests.browser import CHROMIUM, MISSING, Browser

DATA = {
    "class_path": "SyntheticDataModule",
    "init_args": {"image_size": 8, "in_chans": 1, "num_classes": 4, "batch_size": 16, "train_samples": 64},
}
SOURCE = {"layers": [1], "planes": [8], "v_threshold": 2.0, "levels": 4}
RUN = {
    "model": {
        "class_path": "ClassificationTask",
        "init_args": {"model": "spiking_cnn_nano", "model_args": {"channels": [4, 8], "pool_size": 1}},
    },
    "data": DATA,
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
}
CONVERSION = {
    "source": {"model": "qcfs_resnet18", "model_args": SOURCE, "pretrained": False},
    "time_steps": 4,
    "data": DATA,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, config in (("run", RUN), ("convert", CONVERSION)):
            Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
        main(["fit", "--config", "run.yaml", "--test_after_fit", "true", "--report", "true", "--name", "run"])
        main(["convert", "--config", "convert.yaml", "--report", "--output", "made"])
    return {"run": folder / "runs" / "run" / "report.html", "made": folder / "made" / "report.html"}


def test_a_page_says_what_was_measured(pages):
    text, report = pages["run"].read_text(), read_report(pages["run"].parent)
    assert f"{report['metrics']['test/acc1']:.2%}" in text
    assert report["training"]["command"] in text
    assert "model: spiking_cnn_nano" in text  # the settings
    assert len(re.findall("data:image/png;base64,", text)) == len(report["figures"]) > 0
    made, comparison = pages["made"].read_text(), read_report(pages["made"].parent)["comparison"]
    assert [p["time_steps"] for p in comparison["points"]] == [1, 2, 4]
    for point in comparison["points"]:
        assert f"<td>{point['time_steps']}</td>" in made
        assert f"<td>{point['accuracy']:.2%}</td>" in made
    assert f"{comparison['ann_accuracy']:.2%}" in made


def test_what_users_typed_is_text(pages):
    folder = pages["run"].parent
    config = folder / "config.yaml"
    before = config.read_text()
    config.write_text("name: <script>document.title = 'owned'</script>\n")
    assert "<script>" not in write_page(folder).read_text()
    config.write_text(before)
    write_page(folder)


def test_nothing_measured_is_no_page(tmp_path):
    (tmp_path / "report.json").write_text('{"training": {}}')
    with pytest.raises(ValueError, match="test the run first"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.parametrize("name", ["run", "made"])
def test_it_looks_as_it_should(pages, name, tmp_path):
    with Browser(tmp_path / "profile", width=420) as page:
        page.open(pages[name].as_uri())
        page.wait("document.readyState == 'complete'")
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
        assert page.evaluate("document.images.length") > 0
        assert page.evaluate("document.body.scrollWidth <= innerWidth")  # a phone does not scroll sideways
        assert [r for r in page.requests if not r.startswith(("file:", "data:"))] == []
        assert page.complaints == []
        page.screenshot(pages[name].with_suffix(".png"))
