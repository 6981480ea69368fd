"""Made-up segments for any description of data."""

import torch

from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec

CONTINUOUS = ActionSpec("continuous", 3, low=(-1.0,) * 3, high=(1.0,) * 3)
IMAGE = KeySpec("image", (3, 32, 32))
STATE = KeySpec("vector", (5,), mean=(1.0,) * 5, std=(2.0,) * 5)

SPECS = {
    "image": DataSpec({"image": IMAGE}, ActionSpec("discrete", 4), 10.0, has_reward=True, has_end=True),
    "vector": DataSpec({"state": STATE}, CONTINUOUS, 10.0, has_reward=True),
    "cameras and task": DataSpec(
        {"left": IMAGE, "wrist": IMAGE, "state": STATE, "task": KeySpec("category", (3,), names=("a", "b", "c"))},
        CONTINUOUS,
        10.0,
    ),
    "no actions": DataSpec({"image": IMAGE}, ActionSpec("continuous", 0), 10.0),
}


def random_segment(spec: DataSpec, batch: int = 3, time: int = 6, seed: int = 0) -> Segment:
    generator = torch.Generator().manual_seed(seed)
    obs = {}
    for key, entry in spec.obs.items():
        if entry.kind == "image":
            obs[key] = torch.randint(0, 256, (batch, time, *entry.shape), generator=generator, dtype=torch.uint8)
        elif entry.kind == "vector":
            obs[key] = torch.randn(batch, time, *entry.shape, generator=generator)
        else:
            obs[key] = torch.eye(entry.shape[0])[torch.arange(batch) % entry.shape[0]][:, None].repeat(1, time, 1)
    action = torch.rand(batch, time, spec.action.size, generator=generator) * 2 - 1
    if spec.action.kind == "discrete":
        action = torch.eye(spec.action.size)[action.argmax(-1)]
    ended = torch.zeros(batch, time, dtype=torch.bool)
    terminated = ended.clone()
    terminated[:, -1] = spec.has_end
    return Segment(obs, action, torch.randn(batch, time, generator=generator), terminated, ended, ~ended)
