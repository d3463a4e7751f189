"""What the page of ``fulgurite demo`` shows, as HTML; no text of a repository gets in as markup."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_modules import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from cli.demo.explain import Explanation

SHOWN, DRAWN = 5, 3  # classes with a bar, with a line
DOTS_PER_INCH = 130

STYLE = """
.fg { --fg-blue: #2b6cb0; font-size: 15px; color: var(--body-text-color); }
.fg-head { display: flex; align-items: baseline; gap: 14px; margin-bottom: 10px; }
.fg-answer { font-size: 30px; font-weight: 700; line-height: 1.15; }
.fg-share { font-size: 22px; color: var(--fg-blue); font-variant-numeric: tabular-nums; }
.fg-step { margin-left: auto; white-space: nowrap; }
.fg-step i { display: inline-block; width: 9px; height: 9px; margin-left: 4px; border-radius: 50%;
  background: var(--border-color-primary); }
.fg-step i.on { background: var(--fg-blue); }
.fg-columns { display: flex; flex-wrap: wrap; gap: 22px; align-items: center; }
.fg-bars { flex: 1 1 240px; display: grid; grid-template-columns: fit-content(13em) 1fr max-content;
  gap: 14px; align-items: center; }
.fg-bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right;
  font-variant-numeric: tabular-nums; }
.fg-bars span:nth-child(3n+1) { text-align: left; }
.fg-bar { height: 14px; border-radius: 3px; background: var(--border-color-primary); overflow: hidden; }
.fg-bar b { display: block; height: 100%; background: var(--fg-blue); transition: width 0.2s; }
.fg-bar b.ann { background: #a0aec0; }
.fg-figure { background: #fff; border-radius: 6px; max-width: 100%; }
.fg-columns .fg-figure { flex: 1 1 280px; width: 280px; max-width: 400px; }
.fg h2 { font-size: 26px; font-weight: 700; margin: 0 0 2px; }
.fg h3 { font-size: 17px; margin: 0 0 6px; }
.fg small { display: block; opacity: 0.75; margin-top: 10px; line-height: 1.45; font-size: 13px; }
.fg-hint { opacity: 0.75; padding: 60px 20px; text-align: center; }
.fg-drop img { min-height: 190px; object-fit: contain; }
.fg-top { align-items: flex-start; margin-bottom: 22px; }
.fg-way { flex: 1 1 260px; }
.fg-text { margin: 0 0 8px; white-space: pre-wrap; overflow-wrap: anywhere; }
.fg-drawn { display: block; margin: 0 0 8px; width: 256px; max-width: 100%; image-rendering: pixelated; }
.fg-trouble { border-left: 4px solid #c53030; padding: 10px 14px; }
"""


def heading(name: str, text: str) -> str:
    """Name of the network, and what to do."""
    return f'<div class="fg"><h2>{escape(name)}</h2>{escape(text)}</div>'


def hint(text: str) -> str:
    """A line that says what to do."""
    return f'<div class="fg fg-hint">{escape(text)}</div>'


def trouble(text: str) -> str:
    """What is wrong with an image."""
    return f'<div class="fg fg-trouble" role="alert">{escape(text)}</div>'


def prediction(told: Explanation, step: int) -> str:
    """Answer, bars of the most probable classes, and how they came about, after ``step`` steps."""
    total = len(told.probabilities)
    ((best, share),) = told.best(step, 1).items()
    answer = escape(told.labels[best])
    classes = list(told.best(total, SHOWN))  # the same ones at every step, so that bars keep their place
    now = told.probabilities[step - 1, classes].tolist()
    bars = "".join(
        bar(escape(told.labels[k]), value, f"{value:.0%}") for k, value in zip(classes, now, strict=True)
    )
    lines = {told.labels[k]: told.probabilities[:step, k].tolist() for k in classes[:DRAWN]}
    dots = "".join(f'<i class="{"on" if t < step else ""}"></i>' for t in range(total)) if total <= 16 else ""
    curve = _image(figures.over_time(lines, total), "probability after every step") if total > 1 else ""
    return (
        f'<div class="fg fg-prediction" data-step="{step}" data-of="{total}"><div class="fg-head">'
        f'<span class="fg-answer">{answer}</span><span class="fg-share">{share:.0%}</span>'
        f'<span class="fg-step">after step {step} of {total} {dots}</span></div>'
        f'<div class="fg-columns"><div class="fg-bars">{bars}</div>{curve}</div></div>'
    )


def spikes(told: Explanation, step: int) -> str:
    """The image as the network sees it, and which neurons fired in the first ``step`` steps."""
    so_far = {}
    for name, train in told.spikes.items():
        so_far[name] = train.clone()
        so_far[name][step + len(train) - len(told.probabilities) :] = 0  # rehearsals come first
    drawn = _image(figures.raster(so_far, told.image), "which neurons fired at which step")
    if not told.spikes:
        caption = "This network has no spiking neurons."
    else:
        caption = (
            f"A dash is a spike: which of up to {figures.MOST_NEURONS} neurons of a layer fired at which"
            f" step. Over all layers {told.firing_rate:.1%} of the neurons fire at a step."
        )
    return f'<div class="fg fg-spikes"><h3>Spikes</h3>{drawn}<small>{caption}</small></div>'


def energy(told: Explanation) -> str:
    """What the image costs, beside the same network as an ANN."""
    report = told.energy
    own, ann = report.energy_mj * 1e3, report.ann_energy_mj * 1e3
    most = max(own, ann) or 1.0
    rows = bar("this network", own / most, f"{own:,.3f} µJ")
    if told.spikes:
        rows += bar("the same as an ANN", ann / most, f"{ann:,.3f} µJ", "ann")
    return (
        f'<div class="fg fg-energy"><h3>Energy for this image</h3><div class="fg-bars">{rows}</div>'
        f"<small>{escape(told.energy_text)}</small></div>"
    )


def bar(label: str, share: float, value: str, kind: str = "") -> str:
    """A row of a table: label, a bar of ``share`` of the width, and the value; markup, not text."""
    return (
        f'<span title="{label}">{label}</span><div class="fg-bar"><b class="{kind}"'
        f' style="width: {share:.1%}"></b></div><span>{value}</span>'
    )


def inline(image: Image.Image, says: str, kind: str = "fg-drawn") -> str:
    """A picture as part of the page."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return _tag(file.getvalue(), says, kind)


def _image(figure: Figure, says: str) -> str:
    file = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    FigureCanvasAgg(figure).print_png(file)
    return _tag(file.getvalue(), says, "fg-figure")


def _tag(png: bytes, says: str, kind: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img class="{kind}" alt="{escape(says)}" src="data:image/png;base64,{data}">'
