"""Teacher forcing: log p of given tokens under given encoder rows, over a prefix tree of targets.

Shape letters: N encoder rows, S tree nodes, P (node, next token) pairs, H heads, d head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generator_service.models.cache import CrossKeysValues
from generator_service.models.transformer import Transformer
from generator_service.models.tree import TokenTree
from serving.attention import full_attention


def tree_states(net: Transformer, rows: Sequence[tuple[CrossKeysValues, int]], tree: TokenTree) -> Tensor:
    """Decoder states (N, S, D) of every node under every encoder row.

    Args:
        net: The model.
        rows: N encoder rows, each as keys and values and its number among them.
        tree: The targets.
    """
    num_rows, num_nodes = len(rows), len(tree.tokens)
    depths = torch.tensor(tree.depths, device=net.device)
    mask = _tree_mask(net, tree, depths)
    scale = net.decoder.scale

    def attend_self(_: int, qkv: Tensor) -> Tensor:
        q, keys, values = torch.unflatten(qkv, 0, (num_rows, num_nodes)).permute(2, 0, 3, 1, 4)
        return full_attention(q, keys, values, mask, scale).transpose(1, 2).flatten(2).flatten(0, 1)

    def attend_cross(layer: int, q: Tensor) -> Tensor:
        queries = torch.unflatten(q, 0, (num_rows, num_nodes)).transpose(1, 2)
        outputs = [
            full_attention(queries[number : number + 1], *cross.of_row(layer, row), None, scale)
            for number, (cross, row) in enumerate(rows)
        ]
        return torch.cat(outputs).transpose(1, 2).flatten(2).flatten(0, 1)

    ids = torch.tensor(tree.tokens, device=net.device).repeat(num_rows)
    states = net.decode(ids, depths.repeat(num_rows), attend_self, attend_cross)
    return states.view(num_rows, num_nodes, -1)


def _tree_mask(net: Transformer, tree: TokenTree, depths: Tensor) -> Tensor:
    """(1 or H, S, S): which nodes see each other, together with the stack's bias for their distance."""
    sees = torch.from_numpy(tree.ancestors()).to(net.device)[None]
    if net.decoder.bias is None:
        return sees
    return net.decoder.bias.at(depths[None] - depths[:, None]).masked_fill(~sees, float("-inf"))


def log_probs(net: Transformer, states: Tensor, nodes: Sequence[int], tokens: Sequence[int], *, block: int) -> Tensor:
    """The log p(tokens[i] | node nodes[i]) of P pairs, normalised in float32.

    Args:
        net: The model.
        states: (N, S, D) of `tree_states`.
        nodes: P node numbers.
        tokens: P tokens, each following its node.
        block: How many rows of V logits may exist at once.

    Returns:
        (N, P) float32.
    """
    num_rows, num_nodes, _ = states.shape
    flat = states.flatten(0, 1)
    token_of = torch.tensor(tokens, device=net.device).expand(num_rows, -1)
    place = torch.arange(num_rows, device=net.device)[:, None] * num_nodes + torch.tensor(nodes, device=net.device)
    result = torch.empty(num_rows, len(nodes), device=net.device)
    for first in range(0, len(flat), block):
        log_probs = net.logits(flat[first : first + block]).float().log_softmax(-1)  # Half the time of logsumexp.
        here = (place >= first) & (place < first + block)
        result[here] = log_probs[place[here] - first, token_of[here]]
    return result
