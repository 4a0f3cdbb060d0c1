"""What a model that sees is fed: images by themselves, with a text, in a chat, beside transformers' own processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast, ViTImageProcessorPil

import workbench as wb
from tests.families import family
from workbench.errors import InputError

TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}w9{% endif %}"
)


def pictures() -> list[Any]:
    numbers = np.random.default_rng(0)
    return [Image.fromarray(numbers.integers(0, 255, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    """The folder of a model that sees and no more."""
    tmp_path = tmp_path / "seeing"
    family("vit")[0].save_pretrained(tmp_path)  # type: ignore[operator]
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    """The folder of a model that sees and reads."""
    tmp_path = tmp_path / "reading"
    ids = {"?": 0, "<image>": 59} | {f"w{number}": number for number in range(1, 59)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="?", pad_token="?", additional_special_tokens=["<image>"]
    )
    eyes = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        eyes, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>", chat_template=TEMPLATE,
    )  # fmt: skip
    family("llava")[0].save_pretrained(tmp_path)  # type: ignore[operator]
    processor.save_pretrained(tmp_path)
    return tmp_path


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def logits_of(model: Any, *inputs: Any, **options: Any) -> Any:
    with model.trace(*inputs, **options):
        logits = model.output.logits.save()
    return logits.value


def test_an_image_by_itself(seeing: Path) -> None:
    model: Any = wb.LanguageModel(seeing)
    images = pictures()
    pixels = ViTImageProcessorPil.from_pretrained(seeing)(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        plain = family("vit")[0](pixel_values=pixels).logits
    forms = [images, tuple(images), [np.asarray(each) for each in images], pixels, {"pixel_values": pixels}]
    for form in forms:
        close(logits_of(model, form), plain)
    for form in (images[1], np.asarray(images[1]), pixels[1]):
        close(logits_of(model, form), plain[1:2])
    assert model.tokenizer is None
    assert model.scanned(images).shape("") == (3, 2)
    with model.trace() as tracer:
        with tracer.invoke(images[0]):
            model.layers[1].attn.heads[:, :, 2] = 0
            changed = model.output.logits.save()
        with tracer.invoke(images[1:]):
            rest = model.output.logits.save()
    close(rest.value, plain[1:])
    assert not torch.allclose(changed.value, plain[:1])


def test_images_with_a_text_and_in_a_chat(reading: Path) -> None:
    model: Any = wb.LanguageModel(reading)
    first, second, _ = pictures()
    processor: Any = LlavaProcessor.from_pretrained(reading)
    text = "w1 <image> w2 w3"
    inputs = processor(text=text, images=first, return_tensors="pt")
    with torch.no_grad():
        plain = family("llava")[0](**inputs).logits
    close(logits_of(model, text, images=first), plain)
    with model.trace([text, "<image> w5"], images=[first, second]) as tracer:
        both = model.output.logits.save()
    assert tracer.invoker.inputs[1]["input_ids"].tolist() == [[1, *[59] * 4, 2, 3], [0, 0, *[59] * 4, 5]]
    close(both[:1], plain)
    with model.trace() as tracer:
        with tracer.invoke("<image> w5", images=second):
            other = model.output.logits.save()
        with tracer.invoke(text, images=first):
            ours = model.output.logits.save()
    close(ours.value, plain)
    close(other.value, both[1:, 2:])
    parts = [{"type": "text", "text": "w1"}, {"type": "image", "image": first}, {"type": "text", "text": "w2 w3"}]
    chat = [{"role": "user", "content": parts}]
    torch.testing.assert_close(
        logits_of(model, chat, invoker_args={"add_generation_prompt": False}), plain, rtol=1e-4, atol=1e-5
    )
    with model.trace([chat, chat]) as tracer:
        pass
    assert tracer.invoker.inputs[1]["input_ids"].tolist() == [[1, *[59] * 4, 2, 3, 9]] * 2
    tokens = model.generate(text, images=first, max_new_tokens=3, trace=False, pad_token_id=0)
    beside: Any = family("llava")[0].generate(**inputs, max_new_tokens=3, pad_token_id=0, do_sample=False)  # type: ignore[operator]
    assert torch.equal(tokens, beside)


def test_what_cannot_be_seen_says_so(seeing: Path, reading: Path) -> None:
    image = pictures()[0]
    blind, seer, reader = wb.demo(), wb.LanguageModel(family("vit")[0]), wb.LanguageModel(reading)
    said = [
        (blind, (image,), {}, "there is an image here, and a GPT2LMHeadModel reads text"),
        (blind, ("a",), {"images": image}, "there is an image here, and a GPT2LMHeadModel reads text"),
        (blind, (torch.zeros(1, 2, 3),), {}, r"token ids are whole numbers of shape \(batch, position\)"),
        (seer, (image,), {}, "given without a processor, .*pass one with processor="),
        (reader, (image,), {}, r"is given an image with a text, .*model.trace\(text, images=image\)"),
        (reader, ([1, 2],), {"images": image}, "images= goes with a text or a list of texts, and this is a list"),
    ]
    for model, inputs, options, words in said:
        with pytest.raises(InputError, match=words):
            model.trace(*inputs, trace=False, **options)
    (seeing / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"has no processor for images that can be opened .*pass one with processor="):
        wb.LanguageModel(seeing).trace(image, trace=False)
    eyes = ViTImageProcessorPil(size={"height": 16, "width": 16})
    model: Any = wb.LanguageModel(family("vit")[0], processor=eyes)
    assert model.trace(image, trace=False).logits.shape == (1, 2)
