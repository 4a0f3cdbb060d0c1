"""Images: what a model that sees is given, made ready by the processor that lies beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from workbench.errors import InputError

IMAGES = "images"
"""The option that gives images with a text."""


def is_image(value: Any) -> bool:
    """Whether this is an image, or several: a PIL image, an array `(height, width, channel)`, a tensor of pixels."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(is_image, value))
    if isinstance(value, Tensor):
        return value.ndim >= 3 and (value.is_floating_point() or value.dtype.itemsize == 1)
    kind = type(value)
    return any(each.__module__.startswith("PIL.") for each in kind.__mro__) or (
        kind.__module__ == "numpy" and getattr(value, "ndim", 0) >= 3
    )


class Sight:
    """How a model sees, if it does.

    Args:
        kind: the model's class, for messages.
        takes: the names of its forward's arguments.
        processor: what makes its input of images; `find` opens the one that lies beside it, when it is needed.
    """

    def __init__(self, kind: str, takes: Collection[str], processor: Any, find: Callable[[], Any] | None) -> None:
        self._kind = kind
        self._sees = "pixel_values" in takes
        self._reads = "input_ids" in takes
        self._processor = processor
        self._find = find

    @property
    def processor(self) -> Any:
        """The processor; None where there is none."""
        try:
            return self._needed()
        except InputError:
            return None

    def encode(self, prompt: Any, images: Any, left: bool, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """A prompt that has images as the model's keyword arguments; None for one that has none.

        Args:
            prompt: images, or the text that they go with, or a chat that they are in.
            images: the images of a text.
            left: where padding goes in a list of prompts.
            options: for the processor.
        """
        chats = prompt if isinstance(prompt, (list, tuple)) and prompt and not _is_message(prompt[0]) else [prompt]
        if images is None and not is_image(prompt) and not any(map(_has_images, chats)):
            return None
        if not self._sees:
            if isinstance(prompt, Tensor) and images is None:
                return None  # what is wrong with it as token ids is said where they are read
            raise InputError(f"there is an image here, and a {self._kind} reads text")
        if images is not None:
            return self._with_text(prompt, images, left, options)
        if not is_image(prompt):
            settings = {"add_generation_prompt": True, **_padding(chats, left), **options}
            apply = self._needed().apply_chat_template
            return dict(apply(list(chats), tokenize=True, return_dict=True, return_tensors="pt", **settings))
        if self._reads:
            raise InputError(
                f"a {self._kind} is given an image with a text, in which its image token says where the image is: "
                "model.trace(text, images=image), or chat messages"
            )
        if isinstance(prompt, Tensor) and prompt.is_floating_point():  # pixels as the model takes them
            return {"pixel_values": prompt if prompt.ndim == 4 else prompt[None]}
        return dict(self._needed()(images=prompt, return_tensors="pt", **options))

    def _with_text(self, text: Any, images: Any, left: bool, options: Mapping[str, Any]) -> dict[str, Any]:
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(each, str) for each in texts):
            raise InputError(f"images= goes with a text or a list of texts, and this is a {type(text).__name__}")
        settings = {**_padding(texts, left), **options}
        return dict(self._needed()(text=list(texts), images=images, return_tensors="pt", **settings))

    def _needed(self) -> Any:
        if self._processor is None:
            if self._find is None:
                raise InputError(
                    "this model was given without a processor, which makes its input of an image; pass one with "
                    "processor=AutoProcessor.from_pretrained(...), or give tensors by name: pixel_values="
                )
            self._processor = self._find()
        return self._processor


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping)


def _has_images(chat: Any) -> bool:
    """Whether there is an image in chat messages, `{"role": …, "content": [{"type": "image", …}, …]}`."""
    messages = chat if isinstance(chat, (list, tuple)) else ()
    contents = [each.get("content") for each in messages if _is_message(each)]
    parts = [part for content in contents if isinstance(content, (list, tuple)) for part in content]
    return any(_is_message(part) and part.get("type") == "image" for part in parts)


def _padding(rows: Sequence[Any], left: bool) -> dict[str, Any]:
    return {"padding": True, "padding_side": "left" if left else "right"} if len(rows) > 1 else {}
