"""One text of a passage and its neighbours, for the generator to read. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A passage's text, with the range of its source's characters that it stands in, where that is known."""

    id: str
    text: str
    start: int | None = None
    end: int = 0


def join(parts: Iterable[Part]) -> str:
    """The texts in source order (by where they start, else by id); what two of them share stands there once."""
    ordered = sorted(parts, key=lambda part: (part.start or 0, part.id))
    text, end = ordered[0].text, ordered[0].end
    for part in ordered[1:]:
        num_shared = max(0, end - part.start) if part.start is not None else 0
        if num_shared and text[-num_shared:].startswith(part.text[:num_shared]):
            text += part.text[num_shared:]
        else:
            text += f" {part.text}"
        end = max(end, part.end)
    return text
