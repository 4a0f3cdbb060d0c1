"""Opening models: every way in, and what is said where there is none. The hub is a small server of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import accelerate
import pytest
import torch
import transformers
from torch import Tensor, nn

import workbench as wb
from tests.families import FAMILIES, family
from workbench.errors import InputError, MissingWeightsWarning
from workbench.models import demo as demos

TEXT = "The Eiffel Tower is in the city of"
IDS = [[5, 9, 14, 21], [7, 3, 8, 40]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real folder of a small model."""
    shutil.copytree(demos.folder("gpt2"), tmp_path / "model")
    return tmp_path / "model"


def is_meta(model: Any) -> bool:
    return any(parameter.is_meta for parameter in model.module.parameters())


def logits_of(model: Any, prompt: Any = TEXT) -> Any:
    with model.trace(prompt):
        logits = model.lm_head.output.save()
    return logits.value


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_opens_from_its_folder(name: str, tmp_path: Path) -> None:
    adapted, inputs = family(name)
    module: Any = adapted
    if name == "peft":  # the folder of an adapter names the model it is for, which gets the adapter put in
        module = module.get_base_model()
        family("llama")[0].save_pretrained(tmp_path / "base")  # type: ignore[operator]
        adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")  # type: ignore[index, union-attr]
    adapted.save_pretrained(tmp_path)  # type: ignore[operator]
    model: Any = wb.LanguageModel(tmp_path, tokenizer=wb.demo().tokenizer if name != "vit" else None)
    assert is_meta(model)
    assert type(model.module) is type(module)
    assert [path for path, _ in model.module.named_modules()] == [path for path, _ in module.named_modules()]
    args, kwargs = model._batch([model._prepare(**inputs)])
    scan = model._scan(args, kwargs)
    assert is_meta(model)
    with torch.no_grad():
        plain = module(**inputs)
    assert scan.shape("") == tuple(plain.logits.shape)
    with model.trace(**inputs):
        logits = model.output.logits.save()
    assert not is_meta(model)
    torch.testing.assert_close(logits.value, plain.logits, rtol=1e-4, atol=1e-5)


def test_ready_models_and_configurations(folder: Path) -> None:
    plain: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ready = wb.LanguageModel(plain, tokenizer=tokenizer)
    with torch.no_grad():
        expected = plain(**tokenizer(TEXT, return_tensors="pt")).logits
    assert torch.equal(logits_of(ready), expected)
    assert torch.equal(logits_of(wb.LanguageModel(folder)), expected)
    assert torch.equal(logits_of(wb.LanguageModel(str(folder), dispatch=True)), expected)
    bare: Any = wb.LanguageModel(plain.config, tokenizer=tokenizer)
    assert bare.scanned(TEXT).shape("lm_head") == tuple(expected.shape)
    with pytest.raises(InputError, match="opened from a configuration alone, so it has no weights and cannot be run"):
        logits_of(bare)


def test_weights_are_there_at_once_when_asked_for(folder: Path) -> None:
    assert is_meta(wb.LanguageModel(folder))
    assert not is_meta(wb.LanguageModel(folder, dispatch=True))


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_arguments_go_through(name: str, folder: Path) -> None:
    settings: dict[str, Any] = {name: torch.float64}
    model: Any = wb.LanguageModel(folder, attn_implementation="eager", **settings)
    assert model.scanned(TEXT).dtype("lm_head") == torch.float64
    assert logits_of(model).dtype == torch.float64
    assert model.module.config._attn_implementation == "eager"


def test_attention_chosen_before_the_weights_come_stays_chosen(folder: Path) -> None:
    model: Any = wb.LanguageModel(folder)
    assert model.module.config._attn_implementation == "sdpa"
    model.module.set_attn_implementation("eager")
    logits_of(model)
    assert not is_meta(model)
    assert model.module.config._attn_implementation == "eager"


PLACES = dict.fromkeys(("transformer.wte", "transformer.wpe", "transformer.drop", "lm_head"), "cpu")


@pytest.mark.parametrize("where", ["cpu", "offloaded", "on disk"])
def test_weights_elsewhere(where: str, folder: Path, tmp_path: Path) -> None:
    """accelerate keeps weights in memory or on disk until their module runs; sites, edits, gradients, parameters that
    are read, modules that are called by hand and lenses are as ever."""
    if where == "offloaded":  # without a GPU there is no map for it: the weights come from memory for each module's run
        net: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
        accelerate.cpu_offload(net, execution_device="cpu")  # pyright: ignore[reportArgumentType]
        model: Any = wb.LanguageModel(net.eval(), tokenizer=wb.demo().tokenizer)
    else:
        places = "cpu" if where == "cpu" else {**PLACES, "transformer.h": "disk", "transformer.ln_f": "disk"}
        model = wb.LanguageModel(folder, device_map=places, offload_folder=str(tmp_path / "off"))
    plain: Any = wb.LanguageModel(folder)
    kept = []
    for each in (model, plain):
        with each.trace(TEXT):
            each.transformer.h[1].mlp.output[:, -1] = 0
            hidden = each.transformer.h[2].output
            by_hand = each.lm_head(each.transformer.ln_f(hidden)).save()
            doubled = (each.transformer.h[1].mlp.c_proj.weight * 2).save()
            grad = hidden.grad.save()
            logits = each.lm_head.output.save()
            hidden = hidden.save()
            logits[:, -1].max().backward()
        found = [value.value for value in (hidden, logits, by_hand, doubled, grad)]
        found.append(each.generate(TEXT, max_new_tokens=2, trace=False))
        found.append(wb.direct_logit_attribution(each, TEXT).contributions)
        found.append(wb.attention_patterns(each, TEXT).patterns)
        kept.append(found)
    for ours, theirs in zip(*kept, strict=True):  # a weight that comes from a file may lie elsewhere in memory's lines
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert torch.equal(kept[0][3], plain.module.transformer.h[1].mlp.c_proj.weight * 2)
    assert is_meta(model) == (where != "cpu")  # there, they come and go with each run


class Rounded(nn.Module):
    """A projection whose weight is kept as 8-bit integers and a size for each output."""

    weight: Tensor
    size: Tensor

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = of.in_features, of.out_features
        self.register_buffer("weight", torch.zeros_like(of.weight, dtype=torch.int8))
        self.register_buffer("size", torch.ones(of.out_features, 1))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight.to(x.dtype) * self.size).T


@pytest.fixture
def rounding() -> Iterator[type]:
    """A way of quantising that a package gives to transformers, as bitsandbytes and the like do."""
    from transformers.quantizers import auto
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    @auto.register_quantization_config("rounded")
    class RoundedConfig(QuantizationConfigMixin):
        def __init__(self, leave: Any = None, **kwargs: Any) -> None:
            self.quant_method = "rounded"  # type: ignore[assignment]
            self.leave = leave

    @auto.register_quantizer("rounded")
    class RoundedQuantizer(HfQuantizer):
        def is_serializable(self) -> bool:  # type: ignore[override]
            return True

        @property
        def is_trainable(self) -> bool:  # type: ignore[override]
            return False

        def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
            for path, each in [*model.named_modules()]:
                if isinstance(each, nn.Linear) and not path.endswith(self.quantization_config.leave):  # type: ignore[union-attr]
                    new = Rounded(each)
                    size = each.weight.detach().abs().amax(1, keepdim=True) / 127
                    new.weight, new.size = (each.weight.detach() / size).round().to(torch.int8), size
                    model.set_submodule(path, new)
            return model

    yield RoundedConfig
    del auto.AUTO_QUANTIZATION_CONFIG_MAPPING["rounded"], auto.AUTO_QUANTIZER_MAPPING["rounded"]


def test_quantised_weights(rounding: Any) -> None:
    """The setting goes through to transformers; the modules that take the place of others are sites as those were."""
    where = demos.folder("llama")
    model: Any = wb.LanguageModel(where, quantization_config=rounding(leave="lm_head"))
    assert model.scanned(TEXT).shape("model.layers.1.mlp") == (1, 8, 128)
    plain: Any = transformers.AutoModelForCausalLM.from_pretrained(where, quantization_config=rounding(leave="lm_head"))
    ids = model.tokenizer(TEXT, return_tensors="pt")
    seen: list[Tensor] = []

    def silenced(module: nn.Module, args: Any) -> Any:
        inside = args[0].clone()
        seen.append(inside.clone())
        inside[..., 32:64] = 0
        return (inside,)

    plain.model.layers[1].self_attn.o_proj.register_forward_pre_hook(silenced)
    with torch.no_grad():
        expected = plain(**ids).logits
    with model.trace(TEXT):
        heads = model.layers[1].attn.heads.clone().save()
        model.layers[1].attn.heads[:, :, 1] = 0
        logits = model.lm_head.output.save()
    assert type(model.model.layers[1].self_attn.o_proj.module) is Rounded
    assert model.layers[1].attn.d_head == 32
    torch.testing.assert_close(heads.value.flatten(2), seen[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.value, expected, rtol=1e-4, atol=1e-4)
    assert wb.top_tokens(model, TEXT, k=1).tokens == [" Paris"]


def test_loading_shows_a_progress_bar_for_what_takes_time(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wb.LanguageModel(folder, dispatch=True)
    assert "Loading weights: 100%" in capfd.readouterr().err
    wb.demo()._ready()  # which is there in a blink
    assert "Loading" not in capfd.readouterr().err


def test_the_class_is_chosen(tmp_path: Path) -> None:
    family("bert")[0].save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer = wb.demo().tokenizer
    assert type(wb.LanguageModel(tmp_path, tokenizer=tokenizer).module).__name__ == "BertForMaskedLM"
    chosen = wb.LanguageModel(tmp_path, tokenizer=tokenizer, automodel="AutoModelForSequenceClassification")
    assert type(chosen.module).__name__ == "BertForSequenceClassification"
    with pytest.raises(InputError, match="transformers has no 'AutoModelForNothing'"):
        wb.LanguageModel(tmp_path, tokenizer=tokenizer, automodel="AutoModelForNothing")


def without(folder: Path, *names: str) -> Path:
    for name in names:
        for each in folder.glob(name):
            each.unlink()
    return folder


def test_folders_that_lack_something(folder: Path) -> None:
    model = wb.LanguageModel(without(folder, "*.safetensors"))
    with pytest.raises(InputError, match=r"has a config.json and no weights \(model.safetensors\)"):
        logits_of(model)
    with pytest.raises(InputError, match=r"has no tokenizer that can be opened .*pass one with tokenizer="):
        wb.LanguageModel(without(folder, "tokenizer*", "special*", "vocab*", "merges*"))
    with pytest.raises(InputError, match=r"has no config.json, so it holds no transformers model; it holds"):
        wb.LanguageModel(without(folder, "config.json"))
    with pytest.raises(InputError, match="there is no folder '/nowhere/at/all'"):
        wb.LanguageModel("/nowhere/at/all")


def test_a_broken_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"the folder .* cannot be opened: .*not a valid JSON"):
        wb.LanguageModel(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(InputError, match=r"cannot be opened: .*nothing-known"):
        wb.LanguageModel(folder)


def test_code_of_its_own_is_not_run_unasked(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="brings code of its own, which is not run unasked: read it, then pass trust"):
        wb.LanguageModel(folder)
    assert not (folder / "ran").exists()


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> tuple[Path, Any]:
    """A low-rank adapter's folder, and the model that peft makes with it."""
    import peft

    torch.manual_seed(0)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    settings = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by the old name
        adapted: Any = peft.get_peft_model(base, settings)
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted.eval()


def test_an_adapter(adapter: tuple[Path, Any]) -> None:
    """Its own modules are in the tree before the weights are, its base gives the tokenizer, its sites are sites."""
    where, adapted = adapter
    model: Any = wb.LanguageModel(where)
    assert is_meta(model)
    paths = [path for path, _ in model.module.named_modules()]
    assert "transformer.h.1.attn.c_attn.lora_A.default" in paths
    ids = model.tokenizer(TEXT, return_tensors="pt")
    kept: dict[str, Any] = {}
    inner = adapted.base_model.model.transformer.h[1].attn.c_attn
    seen = inner.lora_B["default"].register_forward_hook(lambda m, args, out: kept.update(lora=out))
    with torch.no_grad():
        plain = adapted(**ids).logits
        seen.remove()
        with adapted.disable_adapter():
            bare = adapted(**ids).logits
    with model.trace(TEXT):
        lora = model.transformer.h[1].attn.c_attn.lora_B["default"].output.save()
        logits = model.lm_head.output.save()
    assert [path for path, _ in model.module.named_modules()] == paths
    assert torch.equal(lora.value, kept["lora"])
    assert torch.equal(logits.value, plain)
    with model.trace(TEXT):
        for block in model.transformer.h:
            block.attn.c_attn.lora_B["default"].output[:] = 0
        without = model.lm_head.output.save()
    torch.testing.assert_close(without.value, bare)
    assert not torch.allclose(plain, bare)


def test_an_adapted_model_that_is_ready(adapter: tuple[Path, Any]) -> None:
    _, adapted = adapter
    model: Any = wb.LanguageModel(adapted, tokenizer=wb.demo().tokenizer)
    with torch.no_grad():
        plain = adapted(**model.tokenizer([TEXT, "The Colosseum"], padding=True, return_tensors="pt")).logits
    with model.trace() as tracer:
        with tracer.invoke(TEXT):
            first = model.output.logits.save()
        with tracer.invoke("The Colosseum"):
            model.output.logits.save()
    torch.testing.assert_close(first.value, plain[:1, -first.shape[1] :], rtol=1e-4, atol=1e-4)


def test_an_adapter_without_its_package(folder: Path) -> None:
    """In a process that does not find peft."""
    without(folder, "config.json")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "workbench/demo-gpt2"}))
    code = """
import importlib.util as util, sys
find = util.find_spec
util.find_spec = lambda name, *more: None if name == "peft" else find(name, *more)
import workbench as wb
try:
    wb.LanguageModel(sys.argv[1])
except wb.errors.InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("is an adapter, which needs the package peft: pip install peft"), done.stderr


def test_weights_that_are_not_there_are_named(folder: Path, tmp_path: Path) -> None:
    """A model saved without its head, opened as one with a head."""
    family("llama")[0].model.save_pretrained(tmp_path / "headless")  # type: ignore[operator, union-attr]
    tokenizer = wb.demo().tokenizer
    model: Any = wb.LanguageModel(tmp_path / "headless", tokenizer=tokenizer)
    with pytest.warns(MissingWeightsWarning, match=r"has no weights for lm_head.weight: a LlamaForCausalLM needs them"):
        logits_of(model, IDS)
    body: Any = wb.LanguageModel(tmp_path / "headless", tokenizer=tokenizer, automodel="AutoModel")
    with body.trace(IDS):
        last = body.output.last_hidden_state.save()
    assert last.shape == (2, 4, 32)


def test_a_configuration_that_makes_no_sense(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for change, words in (
        ({"n_embd": "x"}, "Field 'n_embd' expected int"),
        ({"activation_function": "nope"}, "KeyError: 'nope'"),
        ({"architectures": 3}, "TypeError"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=rf"the folder .* cannot be opened: .*{words}"):
            wb.LanguageModel(folder)


def test_two_names_of_one_argument(folder: Path) -> None:
    with pytest.raises(InputError, match=r"dtype=torch.float32 and torch_dtype=torch.float64 say different things"):
        wb.LanguageModel(folder, dtype=torch.float32, torch_dtype=torch.float64)


def test_out_of_memory_is_said_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    model = wb.LanguageModel(folder)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        logits_of(model)


def test_405_billion_parameters_on_a_laptop() -> None:
    """In a process of its own, to see what memory it takes."""
    code = """
import resource, time, torch, transformers, workbench as wb
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128,
                     num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
model = wb.LanguageModel(config)
seconds = time.process_time() - start
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
parameters = sum(p.numel() for p in model.module.parameters())
print(seconds, more / 1024, parameters / 1e9, model.scanned([[1] * 10]).shape("model.layers.125.mlp"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    seconds, mebibytes, billions, *shape = done.stdout.split(maxsplit=3)
    assert float(seconds) < 1  # of its own work, since the machine may be busy
    assert float(mebibytes) < 200
    assert 400 < float(billions) < 412
    assert shape == ["(1, 10, 16384)\n"]


# ---- the hub


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for a model that is gated, private or not there."""

    def do_GET(self) -> None:
        gated = "gated" in self.path
        self.send_response(403 if gated else 401)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("X-Error-Message", "Access is restricted" if gated else "Repository not found")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ASK = """
import json, sys, workbench as wb
said = []
for name in json.loads(sys.argv[1]):
    try:
        wb.LanguageModel(name)
    except wb.errors.InputError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def ask(endpoint: str, names: list[str], home: Path, offline: str = "0") -> list[str]:
    """What is said of models, where the hub is elsewhere."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, json.dumps(names)], env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_the_hub_says(tmp_path: Path) -> None:
    with hub() as endpoint:
        gated, unknown = ask(endpoint, ["owner/gated-model", "owner/no-such-model"], tmp_path)
    assert gated.startswith("'owner/gated-model' is gated: its owners let in those who asked. Ask on the model's page")
    assert unknown.startswith("there is no model 'owner/no-such-model' on the hub, nor a folder of that name; look at")


def test_no_network(tmp_path: Path) -> None:
    (said,) = ask("http://127.0.0.1:9", ["owner/model"], tmp_path, offline="1")  # else it is tried for half a minute
    assert said.startswith("the hub cannot be reached, and 'owner/model' is not on this machine: open it once")
