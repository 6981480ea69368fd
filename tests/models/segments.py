"""Made-up segments for any description of data."""

from dataclasses import replace

import torch
from torch import Tensor

from worldloom.data.segment import Segment, outcome
from worldloom.data.spec import SIGNALS, ActionGroup, ActionSpec, DataSpec, KeySpec, mask_name, signal_keys

CONTINUOUS = ActionSpec("continuous", 3, low=(-1.0,) * 3, high=(1.0,) * 3)
MIXED = ActionSpec.of(
    (ActionGroup("arm", "continuous", 2, low=(-2.0, 0.0), high=(2.0, 1.0)), ActionGroup("grip", "discrete", 3))
)
IMAGE = KeySpec("image", (3, 32, 32))
STATE = KeySpec("vector", (5,), mean=(1.0,) * 5, std=(2.0,) * 5)

SPECS = {
    "image": DataSpec({"image": IMAGE, **signal_keys(reward=True, terminated=True)}, ActionSpec("discrete", 4), 10.0),
    "vector": DataSpec({"state": STATE, **signal_keys(reward=True)}, CONTINUOUS, 10.0),
    "cameras and task": DataSpec(
        {"left": IMAGE, "wrist": IMAGE, "state": STATE, "task": KeySpec("category", (3,), names=("a", "b", "c"))},
        CONTINUOUS,
        10.0,
    ),
    "every kind": DataSpec(
        {
            "front": KeySpec("image", (3, 20, 36)),
            "wrist": KeySpec("image", (1, 16, 16)),
            "state": STATE,
            "gyro": KeySpec("window", (4, 3), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
            "cars": KeySpec("set", (4, 2)),
            "wind": KeySpec("vector", (2,), role="given", per="episode"),
            "grip": KeySpec("flag", ()),
            "pose": KeySpec("vector", (2,), role="target", masked=True),
            "label": KeySpec("category", (3,), role="target"),
            "heat": KeySpec("image", (1, 12, 10), role="target"),
            **signal_keys(reward=True, terminated=True, success=True),
            "cost": replace(SIGNALS["cost"], masked=True),
        },
        MIXED,
        10.0,
    ),
    "no actions": DataSpec({"image": IMAGE}, ActionSpec("continuous", 0), 10.0),
}


def random_segment(spec: DataSpec, batch: int = 3, time: int = 6, seed: int = 0) -> Segment:
    generator = torch.Generator().manual_seed(seed)
    obs = {}
    further: dict[str, Tensor] = {}
    for key, entry in spec.keys.items():
        part = further if entry.role == "target" else obs
        if entry.kind == "image":
            part[key] = torch.randint(0, 256, (batch, time, *entry.shape), generator=generator, dtype=torch.uint8)
        elif entry.kind == "category":
            part[key] = torch.eye(entry.shape[0])[torch.arange(batch) % entry.shape[0]][:, None].repeat(1, time, 1)
        elif entry.kind == "flag":
            part[key] = torch.rand(batch, time, generator=generator) < 0.5
        else:
            part[key] = torch.randn(batch, time, *entry.shape, generator=generator)
        if entry.has_mask:
            part[mask_name(key)] = torch.rand(batch, time, *entry.mask_shape, generator=generator) < 0.5
    action = torch.rand(batch, time, spec.action.size, generator=generator) * 2 - 1
    for group, place in zip(spec.action.parts, spec.action.slices.values(), strict=True):
        if group.kind == "discrete":
            action[..., place] = torch.eye(group.size)[action[..., place].argmax(-1)]
    ended = torch.zeros(batch, time, dtype=torch.bool)
    terminated = ended.clone()
    terminated[:, -1] = spec.has_end
    signals = outcome(torch.randn(batch, time, generator=generator), terminated, ended)
    return Segment(obs, action, {**further, **signals}, ~ended)
