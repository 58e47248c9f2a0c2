"""The weights that ship: a question and passage encoder, a generator, a fast generator, packed by `training.pack`.

Data alone. `serving.packed_checkpoint` restores them, by their names: "encoder", "generator", "fast".
"""

from pathlib import Path

PACK = Path(__file__).parent
