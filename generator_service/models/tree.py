"""Target sequences as a prefix tree, so that what they share is decoded once. Pure: no model, no device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(slots=True)
class TokenTree:
    """Decoder inputs of several targets: node 0 is the decoder start, a node's parent comes before it.

    `paths[target]` lists, token by token, the node that predicts it.
    """

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    paths: dict[int, list[int]] = field(default_factory=dict)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, number: int, target: Sequence[int]) -> None:
        """Adds a target; its last token is predicted, never fed."""
        path = [0]
        for token in target[:-1]:
            path.append(self._child(path[-1], token))
        self.paths[number] = path

    def _child(self, node: int, token: int) -> int:
        found = self._children.get((node, token))
        if found is not None:
            return found
        self.tokens.append(token)
        self.parents.append(node)
        self.depths.append(self.depths[node] + 1)
        self._children[node, token] = len(self.tokens) - 1
        return len(self.tokens) - 1

    def ancestors(self) -> npt.NDArray[np.bool_]:
        """(S, S): whether node i sees node j, that is, j is i or lies on its way to the root."""
        sees = np.eye(len(self.tokens), dtype=np.bool_)
        for node in range(1, len(self.tokens)):
            sees[node] |= sees[self.parents[node]]
        return sees


def token_trees(targets: Sequence[Sequence[int]], start: int, *, max_nodes: int) -> Iterator[TokenTree]:
    """Trees that hold every target once, similar ones together.

    Args:
        targets: Token ids, none empty.
        start: The decoder start token.
        max_nodes: A tree takes no further target once it has this many nodes.
    """
    tree = TokenTree([start])
    for number in sorted(range(len(targets)), key=lambda number: list(targets[number])):
        if len(tree.tokens) + len(targets[number]) > max_nodes and tree.paths:
            yield tree
            tree = TokenTree([start])
        tree.add(number, targets[number])
    if tree.paths:
        yield tree
