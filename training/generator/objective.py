"""One forward pass of training: a batch in, the three loss terms out."""

from dataclasses import dataclass

import torch
from transformers import BartForConditionalGeneration

from training.generator import attention
from training.generator.examples import Batch
from training.generator.losses import guidance_loss, language_model_loss, span_loss

_GUIDED_HEADS = 4
_TARGETS_STEP = 16
_SPAN_WEIGHT = _GUIDANCE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The terms of one batch's loss, scalars with a gradient; ``total`` is what is minimised."""

    total: torch.Tensor
    language_model: torch.Tensor
    span: torch.Tensor
    guidance: torch.Tensor


class Objective(torch.nn.Module):
    """A generator with its training-only span head; the word embeddings (and the tied output layer) are frozen."""

    def __init__(self, generator: BartForConditionalGeneration) -> None:
        super().__init__()
        attention.register()
        generator.set_attn_implementation(attention.NAME)
        generator.model.shared.weight.requires_grad_(False)
        self.generator = generator
        self.span_head = torch.nn.Linear(generator.config.d_model, 2)
        torch.nn.init.normal_(self.span_head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        torch.nn.init.zeros_(self.span_head.bias)
        self._weights: torch.Tensor | None = None
        generator.model.decoder.layers[-1].encoder_attn.register_forward_hook(self._keep_weights)

    def forward(self, batch: Batch) -> LossTerms:
        """Loss terms of ``batch``; the output layer runs on real target positions only."""
        outputs = self.generator.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=batch.decoder_ids,
            use_cache=False,
        )
        places, wanted = _real_targets(batch.target_ids)
        logits = self.generator.lm_head(outputs.last_hidden_state.flatten(0, 1)[places])
        language_model = language_model_loss(logits, wanted)
        scores = self.span_head(outputs.encoder_last_hidden_state)
        span = span_loss(scores, batch.attention_mask, batch.spans)
        assert self._weights is not None
        guidance = guidance_loss(self._weights[:, :_GUIDED_HEADS], batch.gold_positions)
        self._weights = None
        total = language_model + _SPAN_WEIGHT * span + _GUIDANCE_WEIGHT * guidance
        return LossTerms(total, language_model, span, guidance)

    def _keep_weights(
        self, module: torch.nn.Module, inputs: tuple[object, ...], outputs: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        self._weights = outputs[1]


def _real_targets(target_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places and ids of the real targets in the flattened batch, filled up with -100 to a multiple of 16."""
    flat = target_ids.flatten()
    places = (flat != -100).nonzero().squeeze(-1)
    padding = -len(places) % _TARGETS_STEP
    wanted = torch.nn.functional.pad(flat[places], (0, padding), value=-100)
    return torch.nn.functional.pad(places, (0, padding)), wanted
