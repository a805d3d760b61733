"""From hidden states to logits, exactly as the model's own class does it, but for the rows that somebody reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from bakehouse.engine.errors import ModelRefused


class _Hidden(BaseModelOutputWithPast):
    """What a base model returns; fields that only some classes have are None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class _Given(nn.Module):
    """Stands where the base model stood: its answer is the input. Some classes give ids by place, which are none."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Hidden:
        return _Hidden(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> _Given:
        """What OPT's class calls instead."""
        return self


def base_name(model: Any) -> str:
    """Under which name *model* holds everything but the final projection. Raises `ModelRefused`."""
    for name in (model.base_model_prefix, "model"):
        if isinstance(getattr(model, name, None), nn.Module):
            return str(name)
    raise ModelRefused("its class holds no base model beside the final projection")


class Head:
    """The causal language model's class without its base: final projection, scaling and soft cap are its own code."""

    def __init__(self, model: Any) -> None:
        setattr(model, base_name(model), _Given())
        self._model = model

    def __call__(self, hidden: Tensor) -> Tensor:
        """``[rows, hidden]`` to ``[rows, vocabulary]``."""
        if hidden.shape[0] == 0:
            return hidden.new_zeros(0, 1)
        logits: Tensor = self._model(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return logits
