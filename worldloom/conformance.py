"""The public conformance suite: what every world model must keep so that every consumer works with it.

B batch, T time, H horizon, A action size, N beliefs of any kind. Run `check_world_model` on a new family; it raises
`AssertionError` at the first promise broken, with the values. Beliefs are compared by what they show and what follows
from them under the same noise, and never field by field: how a family keeps them is its own affair.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.model import State, WorldModel, dream
from worldloom.models import rebuild
from worldloom.noise import Noise, RecordedNoise, RowNoise, TorchNoise

HORIZON = 3
CLASS = ("category", "target")


def check_world_model(model: WorldModel, segment: Segment, *, overfit_steps: int = 200) -> None:
    """Check each promise of `worldloom.model` on `segment` `[B, T, ...]` (B >= 2, T >= 4); trains `model` briefly.

    Shapes, finite losses, weights for every term, no mutation, every method of a belief, all that is sampled drawn from
    the noise given and row by row, `track` and `imagine` equal to their scans (of a family that `imagines_jointly` only
    shapes and finiteness), save and load, one batch can be overfitted, and a gradient from a decoded key back to the
    actions. Pass `overfit_steps=0` to leave the model as it is and skip the last two.
    """
    batch, time = segment.shape
    assert batch >= 2, f"the segment needs at least 2 rows, it has {batch}"
    assert time > HORIZON, f"the segment needs more than {HORIZON} steps, it has {time}"
    with torch.no_grad():
        check_shapes(model, segment)
        check_losses(model, segment)
        check_values(model, segment)
        check_algebra(model, segment)
        check_joining(model, segment)
        check_noise(model, segment)
        check_rows(model, segment)
        check_scans(model, segment)
        check_save_and_load(model, segment)
    if overfit_steps:
        check_overfitting(model, segment, overfit_steps)
        check_action_gradient(model, segment)


def check_shapes(model: WorldModel, segment: Segment) -> None:
    """Every verb keeps the leading shape, and every decoded key has the shape and range the data declares."""
    batch, time = segment.shape
    first = model.start(obs_at(segment, 0))
    after = model.observe(first, segment.action[:, 0], obs_at(segment, 1))
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
    """A belief is a value: no verb changes one."""
    first, actions = model.start(obs_at(segment, 0)), segment.action[:, :HORIZON].clone()
    before = readouts(model, first)
    model.observe(first, actions[:, 0], obs_at(segment, 1))
    model.imagine(first, actions)
    for key in model.decodes:
        model.decode(first, key)
    assert_close(readouts(model, first), before, "a verb changed the belief it was given, or keeps something of it")
    assert_close([actions], [segment.action[:, :HORIZON]], "a verb changed the actions it was given")


def check_algebra(model: WorldModel, segment: Segment) -> None:
    """What is made of one belief `[B]`: parts of it, copies and repetitions are what they say."""
    first = model.start(obs_at(segment, 0))
    rows, whole = list(range(len(first.features))), readouts(model, first)
    masked = torch.tensor(rows, device=first.features.device) > 0
    for index in (slice(1, None), masked, torch.tensor(rows[::-1], device=first.features.device)):
        kept = torch.tensor(rows, device=first.features.device)[index].tolist()
        assert_same_readouts(model, first[index], [x[index] for x in whole], f"indexing with {index}", kept)
    repeated = [row for row in rows for _ in range(2)]
    assert_same_readouts(model, first.repeat(2), [x[repeated] for x in whole], "repeat(2)", repeated)
    for name, same in (
        ("clone", first.clone()),
        ("detach", first.detach()),
        ("to", first.to(first.features.device)),
        ("where", first.where(torch.ones_like(masked), first[rows[::-1]])),
    ):
        assert_same_readouts(model, same, whole, name)
    assert first.shape == (len(rows),), f"the shape of {len(rows)} beliefs is {tuple(first.shape)}"
    assert first.isfinite().tolist() == [True] * len(rows), f"isfinite is {first.isfinite()} of beliefs that are"
    assert first.nbytes > 0, f"a belief of {first.nbytes} bytes"


def check_joining(model: WorldModel, segment: Segment) -> None:
    """What is made of several beliefs: rows of them, batches of them, and the choice between two."""
    first = model.start(obs_at(segment, 0))
    other = model.predict(first, segment.action[:, 0])
    batch, (one, two) = len(first.features), (readouts(model, each) for each in (first, other))
    pair = State.stack([first, other])
    assert pair.shape == (batch, 2), f"two beliefs stacked are {tuple(pair.shape)}"
    assert_same_readouts(model, pair[:, 0], one, "stack, then the first of them")
    assert_same_readouts(model, pair[:, 1], two, "stack, then the second of them")
    assert pair.flatten().shape == (2 * batch,), f"two rows of {batch} beliefs flattened are {pair.flatten().shape}"
    again = pair.flatten().unflatten(batch)
    assert_same_readouts(model, again[:, 1], two, "flatten, then unflatten")
    longer = State.cat([pair, again[:, :1]], dim=1)
    assert longer.shape == (batch, 3), f"2 rows and 1 joined along time are {tuple(longer.shape)}"
    assert_same_readouts(model, longer[:, 2], one, "cat along time")
    both = State.cat([first, other])
    assert_same_readouts(model, both[batch:], two, "cat, then the second batch")
    assert pair.isfinite().tolist() == [[True, True]] * batch, f"isfinite is {pair.isfinite()} of beliefs that are"
    mask = torch.arange(batch, device=first.features.device) > 0
    chosen = [torch.cat([b[:1], a[1:]]) for a, b in zip(one, two, strict=True)]
    assert_same_readouts(model, first.where(mask, other), chosen, "where")


def check_noise(model: WorldModel, segment: Segment) -> None:
    """All that is sampled comes from the noise given: it can be played again, and torch's generators stay."""
    verbs = sampling(model, segment)
    for name, call in verbs.items():
        before, noise = torch.get_rng_state(), RecordedNoise(source=TorchNoise.seeded(0, segment.action.device))
        once = call(noise)
        noise.rewind()
        again = call(noise)
        assert noise.place == len(noise.draws), f"{name} draws {len(noise.draws)} times, and then {noise.place} times"
        assert_close(once, again, f"{name} is not the same again under the same noise")
        assert torch.equal(before, torch.get_rng_state()), f"{name} draws from torch's generator, not from its noise"


def check_rows(model: WorldModel, segment: Segment) -> None:
    """What is drawn for a row belongs to it: with `RowNoise` it is the same alone and in a batch."""
    last = len(segment.mask) - 1
    together, alone = sampling(model, segment), sampling(model, segment[last:])
    for name in together.keys() - {"loss"}:
        whole = together[name](RowNoise(range(last + 1)))
        single = alone[name](RowNoise([last]))
        assert_close(single, [x[last:] for x in whole], f"{name} draws something else for a row that is alone")


def sampling(model: WorldModel, segment: Segment) -> dict[str, Callable[[Noise], list[Tensor]]]:
    """Every verb that may sample, as a function from noise to its readouts."""
    first = model.start(obs_at(segment, 0), RowNoise([7] * len(segment.mask)))
    action, actions, obs = segment.action[:, 0], segment.action[:, :HORIZON], segment.obs

    def losses(noise: Noise) -> list[Tensor]:
        return [value.reshape(-1) for _, value in sorted(model.loss(segment, noise=noise).items())]

    return {
        "start": lambda noise: read(model, model.start(obs_at(segment, 0), noise)),
        "observe": lambda noise: read(model, model.observe(first, action, obs_at(segment, 1), noise)),
        "predict": lambda noise: read(model, model.predict(first, action, noise)),
        "track": lambda noise: read(model, model.track(obs, segment.action, noise)),
        "imagine": lambda noise: read(model, model.imagine(first, actions, noise)),
        "loss": losses,
    }


def check_scans(model: WorldModel, segment: Segment) -> None:
    """A parallel `track` or `imagine` equals the scan of the contract under the same noise."""
    device = segment.action.device
    tracked, scanned = (
        track(segment.obs, segment.action, TorchNoise.seeded(0, device))
        for track in (model.track, lambda *given: WorldModel.track(model, *given))
    )
    assert_same_readouts(
        model, tracked.flatten(), readouts(model, scanned.flatten()), "track, against the scan of observe,"
    )
    first, actions = model.start(obs_at(segment, 0)), segment.action[:, :HORIZON]
    imagined = model.imagine(first, actions, TorchNoise.seeded(0, device))
    if model.imagines_jointly:
        assert bool(imagined.isfinite().all()), "what is imagined is not finite"
        return
    scanned = WorldModel.imagine(model, first, actions, TorchNoise.seeded(0, device))
    assert_same_readouts(
        model, imagined.flatten(), readouts(model, scanned.flatten()), "imagine, against the scan of predict,"
    )


def check_save_and_load(model: WorldModel, segment: Segment) -> None:
    """Weights that went through safetensors, into a model built afresh from JSON, give the same beliefs."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        save_file(model.state_dict(), path)
        again = rebuild(type(model), DataSpec.from_json(model.spec.to_json()), asdict(model.config))
        again.load_state_dict(load_file(path))
    before, after = (m.track(segment.obs, segment.action, TorchNoise.seeded(0)).flatten() for m in (model, again))
    assert_same_readouts(again, after, readouts(model, before), "the loaded model, against the saved one,")


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
    """What is decoded after an action depends on the action, differentiably: gradient planners need this."""
    if not segment.action.shape[-1]:
        return
    first = model.start(obs_at(segment, 0)).detach()
    actions = segment.action[:, :HORIZON].clone().requires_grad_()
    key = "reward" if "reward" in model.decodes else model.decodes[0]
    model.decode(model.imagine(first, actions), key).sum().backward()
    assert actions.grad is not None, f"no gradient from the decoded {key!r} to the actions"
    assert actions.grad.abs().sum() > 0, f"the gradient from the decoded {key!r} to the actions is zero"


def obs_at(segment: Segment, t: int) -> dict[str, Tensor]:
    """The observation of row `t`, `[B, ...]` by key."""
    return {k: v[:, t] for k, v in segment.obs.items()}


def readouts(model: WorldModel, belief: State, rows: Sequence[int] | None = None) -> list[Tensor]:
    """All that can be read out of beliefs `[N]`, now and after one predicted action.

    `rows` `[N]` (default: 0 to N - 1) are the numbers by which action and noise of each are chosen.
    """
    rows = range(len(belief.features)) if rows is None else rows
    actions = torch.rand(max(rows) + 1, model.spec.action.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if model.spec.action.kind == "discrete":
        actions = torch.eye(model.spec.action.size)[actions.argmax(-1)]
    taken = actions[list(rows)].to(belief.features.device)
    return [*read(model, belief), *read(model, model.predict(belief, taken, RowNoise(rows)))]


def read(model: WorldModel, belief: State) -> list[Tensor]:
    """Features and every decoded key."""
    return [belief.features, *(model.decode(belief, key) for key in model.decodes)]


def assert_same_readouts(
    model: WorldModel, belief: State, expected: Sequence[Tensor], what: str, rows: Sequence[int] | None = None
) -> None:
    assert_close(readouts(model, belief, rows), expected, f"{what} gives another belief")


def assert_close(one: Sequence[Tensor], other: Sequence[Tensor], message: str) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda detail: f"{message}: {detail}")
