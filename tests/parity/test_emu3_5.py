"""Vision tokenizer and decoder of Emu3.5."""

from __future__ import annotations

import math
import re

import pytest
import torch

from tests.parity.goldens import over_files
from zoo.models.emu3_5.ibq import IBQ, IndexPropagation, smart_size
from zoo.models.emu3_5.ibq.official import arguments_of

pytestmark = pytest.mark.golden
OUTPUTS = {"rtol": 1e-5, "atol": 1e-5}
GRADIENTS = DECODED = {"rtol": 1e-4, "atol": 1e-4}


def filled(golden, model):
    """Parameters by the sidecar's rule, in its order."""
    own, names = dict(model.named_parameters()), golden.sidecar["ibq_param_names"]
    assert set(own) == set(names)
    for k, name in enumerate(names):
        p = own[name]
        values = torch.sin(
            0.7 * torch.arange(p.numel(), dtype=torch.float64) + 1.3 * k + golden.sidecar["salt"]
        )
        values = values / math.sqrt(p.numel() / p.shape[0]) if p.dim() >= 2 else 0.1 * values
        p.data.copy_((values + float(p.dim() < 2 and name.endswith("weight"))).reshape(p.shape))
    return model.eval()


@over_files("q.codebook", "q.z", "q.zq", "q.grad_codebook")
def test_quantizer(golden):
    said = golden.sidecar
    K, D = golden["q.codebook"].shape
    assert (said["n_embed"], said["embed_dim"]) == (K, D)
    layer = IndexPropagation(K, D, said["beta"], said["entropy_temperature"]).train()
    layer.embedding.weight.data.copy_(golden["q.codebook"])
    z = golden["q.z"].clone().requires_grad_()
    out = layer(z, entropy=True)
    golden.close("q.zq", out.z, **OUTPUTS)
    golden.equal("q.indices", out.codes.flatten())
    golden.close("q.quant_loss", out.loss, **OUTPUTS)
    golden.close("q.sample_entropy", out.sample_entropy, **OUTPUTS)
    golden.close("q.avg_entropy", out.mean_entropy, **OUTPUTS)
    golden.close("q.entropy_loss", out.entropy_loss, **OUTPUTS)
    ((out.z * golden["q.probe"]).sum() + out.loss + 0.1 * out.entropy_loss).backward()
    golden.close("q.grad_z", z.grad, **GRADIENTS)
    golden.close("q.grad_codebook", layer.embedding.weight.grad, **GRADIENTS)
    golden.close("q.entry", layer.entry(golden["q.indices"].reshape(out.codes.shape)), **OUTPUTS)


@over_files("ibq.x", "ibq.indices", "ibq.decode_code")
def test_tokenizer(golden):
    model = filled(golden, IBQ(**arguments_of(golden.sidecar["ibq_config"])))
    with torch.no_grad():
        golden.close("ibq.prequant", model.features(golden["ibq.x"]), **OUTPUTS)
        found = model.quantized(golden["ibq.x"])
        golden.equal("ibq.indices", found.codes.flatten())
        golden.close("ibq.quant", found.z, **OUTPUTS)
        golden.close("ibq.decoded", model.decode(found.z), **DECODED)
        golden.close("ibq.decode_code", model.decode_code(found.codes), **DECODED)


@over_files("smart_resize")
def test_sizes(golden):
    for width, height, area, *expected in golden["smart_resize"].tolist():
        assert smart_size(width, height, area) == tuple(expected)


@over_files("ids", "logits", "hidden_last", "state.model.embed_tokens.weight")
def test_decoder(golden):
    transformers = pytest.importorskip("transformers")
    said = dict(golden.sidecar["config"])
    theta = said.pop("rope_theta")
    config = transformers.Qwen3Config(
        **said, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": theta}
    )
    model = transformers.Qwen3ForCausalLM(config).eval()
    model.load_state_dict(golden.under("state."), strict=True)
    with torch.no_grad():
        out = model(input_ids=golden["ids"], labels=golden["labels"], output_hidden_states=True)
    golden.close("logits", out.logits, **OUTPUTS)
    golden.close("hidden_last", out.hidden_states[-1], **OUTPUTS)
    golden.close("loss", out.loss, **OUTPUTS)


@over_files("cfg.cond", "cfg.uncond", "cfg.out*")
def test_guidance(golden):
    pytest.importorskip("transformers")
    from zoo.models.emu3_5.decoding import guided

    scale = float(re.search(r"scale ([\d.]+)", golden.sidecar["cfg"])[1])
    key = next(name for name in golden.keys if name.startswith("cfg.out"))
    golden.close(key, guided(golden["cfg.cond"], golden["cfg.uncond"], scale), **OUTPUTS)


@over_files("cfg.cond", "filter.image", "filter.text")
def test_filters(golden):
    pytest.importorskip("transformers")
    from zoo.models.emu3_5.decoding import Choice

    said, removed = (
        golden.sidecar["filter"],
        float(re.search(r"stored as (-[\de.+]+)", golden.sidecar["filter"])[1]),
    )
    names = {"temperature": "temperature", "top-k": "top_k", "top-p": "top_p"}
    for kind in ("image", "text"):
        part = re.search(rf"{kind}: ([^;]+)", said)[1]
        found = {names[n]: v for n, v in re.findall(r"(temperature|top-k|top-p) ([\d.]+)", part)}
        choice = Choice(**{k: int(v) if k == "top_k" else float(v) for k, v in found.items()})
        scores = choice.filtered(golden["cfg.cond"])
        golden.close(f"filter.{kind}", scores.masked_fill(scores == -torch.inf, removed), **OUTPUTS)
