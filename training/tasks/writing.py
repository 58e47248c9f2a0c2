"""What a checkpoint makes of cases: the most probable label, or a text. For measuring."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import BartForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from training.generator.warm_start import load_tokenizer
from training.tasks.cases import LABELS, Case
from training.tasks.stream import encode

_BATCH = 16


class Writer:
    """A checkpoint that was taught the tasks, in float32."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = load_tokenizer(checkpoint)
        self._model = BartForConditionalGeneration.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def choose(self, cases: Sequence[Case]) -> list[str]:
        """The label of the highest log p(label|case), its end included, for each case."""
        labels = [[*self._ids(label), self._end] for label in LABELS]
        longest = max(map(len, labels))
        targets = torch.tensor([[*ids, *[-100] * (longest - len(ids))] for ids in labels])
        chosen: dict[int, str] = {}
        for indices, inputs, mask in self._batches(cases):
            states = self._model.model.encoder(input_ids=inputs, attention_mask=mask).last_hidden_state
            wanted = targets.repeat(len(indices), 1)
            decoder_ids = torch.full_like(wanted, int(self.tokenizer.cls_token_id))
            decoder_ids[:, 1:] = wanted[:, :-1].clamp(min=0)
            logits = self._model(
                encoder_outputs=BaseModelOutput(states.repeat_interleave(len(LABELS), 0)),
                attention_mask=mask.repeat_interleave(len(LABELS), 0),
                decoder_input_ids=decoder_ids,
            ).logits
            each = logits.log_softmax(-1).gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            scores = (each * (wanted != -100)).sum(1).view(-1, len(LABELS))
            chosen.update(zip(indices, (LABELS[best] for best in scores.argmax(1).tolist()), strict=True))
        return [chosen[index] for index in range(len(cases))]

    @torch.inference_mode()
    def write(self, cases: Sequence[Case], *, max_new_tokens: int) -> list[str]:
        """The greedy text for each case."""
        written: dict[int, str] = {}
        for indices, inputs, mask in self._batches(cases):
            ids = self._model.generate(
                input_ids=inputs, attention_mask=mask, num_beams=1, do_sample=False, max_new_tokens=max_new_tokens
            )
            texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            written.update(zip(indices, texts, strict=True))
        return [written[index] for index in range(len(cases))]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @property
    def _end(self) -> int:
        return int(self.tokenizer.sep_token_id)

    def _batches(self, cases: Sequence[Case]) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """Places of the cases of a batch, input ids and mask; neighbours in length share a batch."""
        examples = encode(cases, self.tokenizer)
        order = sorted(range(len(cases)), key=lambda index: len(examples[index].input_ids))
        for start in range(0, len(order), _BATCH):
            indices = order[start : start + _BATCH]
            rows = [examples[index].input_ids for index in indices]
            longest = max(map(len, rows))
            pad = int(self.tokenizer.pad_token_id)
            inputs = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
            yield indices, inputs, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
