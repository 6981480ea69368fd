"""The public conformance suite: what every world model must keep so that every consumer works with it.

B batch, T time, H horizon, A action size. Run `check_world_model` on a new family; it raises `AssertionError` at the
first promise broken, with the values.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_leaves

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.model import State, WorldModel, dream
from worldloom.models import rebuild

HORIZON = 3
CLASS = ("category", "target")


def check_world_model(model: WorldModel, segment: Segment, *, overfit_steps: int = 200) -> None:
    """Check each promise of `worldloom.model` on `segment` `[B, T, ...]` (B >= 2, T >= 4); trains `model` for a moment.

    Shapes, finite losses, weights for every term, no mutation, indexing, `repeat`, `track` and `imagine` equal to
    their scans, save and load, one batch can be overfitted, and a gradient from a decoded key back to the actions.
    Pass `overfit_steps=0` to leave the model as it is and skip the last two.
    """
    batch, time = segment.shape
    assert batch >= 2, f"the segment needs at least 2 rows, it has {batch}"
    assert time > HORIZON, f"the segment needs more than {HORIZON} steps, it has {time}"
    with torch.no_grad():
        check_shapes(model, segment)
        check_losses(model, segment)
        check_values(model, segment)
        check_scans(model, segment)
        check_save_and_load(model, segment)
    if overfit_steps:
        check_overfitting(model, segment, overfit_steps)
        check_action_gradient(model, segment)


def check_shapes(model: WorldModel, segment: Segment) -> None:
    """Every verb keeps the leading shape, and every decoded key has the shape and range the data declares."""
    batch, time = segment.shape
    first = model.start(look(segment, 0))
    after = model.observe(first, segment.action[:, 0], look(segment, 1))
    tracked = model.track(segment.obs, segment.action)
    imagined = model.imagine(first, segment.action[:, :HORIZON])
    dreamt, actions = dream(model, first, lambda belief, noise: segment.action[:, 0], HORIZON)
    expected = [(first, (batch,)), (after, (batch,)), (tracked, (batch, time))]
    for belief, leading in [*expected, (imagined, (batch, HORIZON)), (dreamt, (batch, HORIZON))]:
        assert belief.features.shape[:-1] == leading, f"features {tuple(belief.features.shape)}, not {leading} + (F,)"
        for key in model.decodes:
            check_decoded(model, model.decode(belief, key), key, leading)
    assert actions.shape == (batch, HORIZON, segment.action.shape[-1]), f"dream returned actions {actions.shape}"


def check_decoded(model: WorldModel, value: Tensor, key: str, leading: tuple[int, ...]) -> None:
    entry = model.spec.keys.get(key)
    shape = () if entry is None else entry.shape
    if key == "action":
        shape = (model.spec.action.size,)
    assert value.shape == leading + tuple(shape), (
        f"decode({key!r}) is {tuple(value.shape)}, not {leading + tuple(shape)}"
    )
    assert value.dtype == torch.float32, f"decode({key!r}) is {value.dtype}, not float32"
    bounded = entry is not None and (entry.kind in ("flag", "image") or (entry.kind, entry.role) == CLASS)
    assert not bounded or (value.min() >= 0 and value.max() <= 1), f"decode({key!r}) leaves [0, 1]"


def check_losses(model: WorldModel, segment: Segment) -> None:
    """Every term is finite, is a scalar or `[B, T]`, and has a weight."""
    terms = model(segment)
    assert set(terms) == set(model.loss_weights), f"terms {set(terms)} against weights {set(model.loss_weights)}"
    for name, value in terms.items():
        assert value.shape in ((), segment.shape), f"loss term {name!r} is {tuple(value.shape)}"
        assert value.isfinite().all(), f"loss term {name!r} is not finite"


def check_values(model: WorldModel, segment: Segment) -> None:
    """A belief is a value: no verb changes one, and indexing and repeating it are what they say."""
    first = model.start(look(segment, 0))
    before = [leaf.clone() for leaf in tree_leaves(first)]
    actions = segment.action[:, :HORIZON].clone()
    model.observe(first, actions[:, 0], look(segment, 1))
    model.imagine(first, actions)
    for key in model.decodes:
        model.decode(first, key)
    assert_close(tree_leaves(first), before, "a verb changed the belief it was given")
    assert_close([actions], [segment.action[:, :HORIZON]], "a verb changed the actions it was given")
    repeated = first.repeat(2)
    assert_close(tree_leaves(repeated[0]), tree_leaves(first[0]), "repeat(2)[0] is not the first belief")
    assert_close(tree_leaves(repeated[1]), tree_leaves(first[0]), "repeat(2)[1] is not the first belief")
    assert_close(tree_leaves(State.stack([first, first])[:, 1]), before, "stack then index is not the identity")
    one, other = (
        seeded(lambda: model.predict(first.repeat(2), actions[:, 0].repeat_interleave(2, 0))) for _ in range(2)
    )
    assert_close(tree_leaves(one), tree_leaves(other), "predict keeps something between calls: equal seeds differ")


def check_scans(model: WorldModel, segment: Segment) -> None:
    """A parallel `track` or `imagine` equals the scan of the contract under the same seed."""
    tracked = seeded(lambda: model.track(segment.obs, segment.action))
    scanned = seeded(lambda: WorldModel.track(model, segment.obs, segment.action))
    assert_close(tree_leaves(tracked), tree_leaves(scanned), "track is not the scan of observe")
    first = model.start(look(segment, 0))
    imagined = seeded(lambda: model.imagine(first, segment.action[:, :HORIZON]))
    scanned = seeded(lambda: WorldModel.imagine(model, first, segment.action[:, :HORIZON]))
    assert_close(tree_leaves(imagined), tree_leaves(scanned), "imagine is not the scan of predict")


def check_save_and_load(model: WorldModel, segment: Segment) -> None:
    """Weights that went through safetensors, into a model built afresh from JSON, give the same beliefs."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        save_file(model.state_dict(), path)
        again = rebuild(type(model), DataSpec.from_json(model.spec.to_json()), asdict(model.config))
        again.load_state_dict(load_file(path))
    before, after = (seeded(lambda m=m: m.track(segment.obs, segment.action)) for m in (model, again))  # type: ignore[misc]
    assert_close(tree_leaves(before), tree_leaves(after), "the loaded model differs from the saved one")


def check_overfitting(model: WorldModel, segment: Segment, steps: int) -> None:
    """The weighted loss of one batch falls clearly when trained on nothing else."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        terms = model(segment)
        loss = torch.stack([model.loss_weights[k] * v.mean() for k, v in terms.items()]).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_update()
    assert losses[-1] < 0.7 * losses[0], f"the loss of one batch went from {losses[0]:.3f} to only {losses[-1]:.3f}"


def check_action_gradient(model: WorldModel, segment: Segment) -> None:
    """What is decoded after an action depends on the action, differentiably: gradient planners live on this."""
    if not segment.action.shape[-1]:
        return
    first = model.start(look(segment, 0)).detach()
    actions = segment.action[:, :HORIZON].clone().requires_grad_()
    key = "reward" if "reward" in model.decodes else model.decodes[0]
    model.decode(model.imagine(first, actions), key).sum().backward()
    assert actions.grad is not None, f"no gradient from the decoded {key!r} to the actions"
    assert actions.grad.abs().sum() > 0, f"the gradient from the decoded {key!r} to the actions is zero"


def look(segment: Segment, t: int) -> dict[str, Tensor]:
    return {k: v[:, t] for k, v in segment.obs.items()}


def seeded(call: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return call()


def assert_close(one: list[Tensor], other: list[Tensor], message: str) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda detail: f"{message}: {detail}")
