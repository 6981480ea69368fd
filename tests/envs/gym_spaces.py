"""Gymnasium spaces of every kind that Hypothesis makes up, nested too, and how Minari's metadata describe them."""

from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

NAMES = st.sampled_from(["arm", "hand", "0", "a/b", "task"])
SHAPES = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    """With edges of every size, whole numbers among them, and some without any."""
    dtype, shape = draw(st.sampled_from([np.float32, np.float64, np.int64, np.int8])), draw(SHAPES)
    if np.issubdtype(dtype, np.integer):
        low = draw(st.integers(-100, 99))
        return spaces.Box(low, draw(st.integers(low + 1, 100)), shape, dtype)
    low = draw(st.floats(-100, 99, width=32))
    most = float(np.finfo(np.float32).max)
    edges = [(low, low + draw(st.floats(1e-3, 50))), (-np.inf, np.inf), (-most, most), (-1e10, 1e10), (0.0, np.inf)]
    return spaces.Box(*draw(st.sampled_from(edges)), shape, dtype)


CHOICES = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-3, 3))
SEVERAL = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete)
BITS = st.integers(1, 4).map(spaces.MultiBinary)
LEAVES = st.one_of(boxes(), CHOICES, SEVERAL, BITS)


def nested(leaves: st.SearchStrategy[spaces.Space]) -> st.SearchStrategy[spaces.Space]:
    """A leaf, or Dicts and Tuples of them two deep."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        ),
        max_leaves=5,
    )


def described(space: spaces.Space) -> dict[str, Any]:
    """As Minari's metadata.json holds it."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {key: described(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "subspaces": [described(part) for part in space.spaces]}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    assert isinstance(space, spaces.Box)
    bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
    return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
