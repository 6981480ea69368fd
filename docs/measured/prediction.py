"""What models predict on episodes that they were never trained on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .page import Result, Section, Table, estimate, number, percent

BASELINES = ("linear", "mean")  # persistence has skill zero by definition


def doom_demo(result: Result) -> Section:
    card, demo = result["metrics"], result["demo"]
    return Section(
        "Doom, the demo",
        f"ViZDoom take_cover, {scale(result)}, then {demo['policy']['minutes']} min of learning a policy in dreams "
        f"({number(demo['policy']['updates'])} updates). A step is {number(1 / result['provenance']['fps'], 2)} s. "
        f"All of it takes {length(demo['seconds'])} from {demo['start']}.",
        (
            skills(result, ("image",)),
            by_horizon(card, ("controllability", "terminated_auroc", "terminated_ece"), horizons(result), "image"),
            demo_policies(result),
            demo_speed(result),
        ),
        (
            f"The return in dreams is {number(ratio(card['policy']['dream'], card['policy']['reality']), 1)} "
            "times the real one.",
            "Monsters and most fireballs are blurred away in imagined frames.",
            "Training stops by the clock, so the number of updates depends on the processor.",
        ),
    )


def franka(result: Result) -> Section:
    rows = result["provenance"]["rows_judged"] + result["metrics"]["cost"]["training_rows"]["value"]
    losses = result["losses"]
    return Section(
        "A real Franka arm",
        f"{number(rows)} rows at {number(result['provenance']['fps'])} Hz, cameras and the pose, {scale(result)}.",
        (
            skills(result, ("state",), 3),
            skills(result, ("left", "right", "wrist")),
            by_horizon(result["metrics"], ("controllability",), horizons(result), "state"),
        ),
        (f"Loss on training episodes {number(losses['training'])}, on held-out ones {number(losses['held_out'])}.",),
    )


def robot_vectors(result: Result) -> Section:
    """Families on the states of a simulated robot, beside the same linear forecast."""
    rows = [
        (run["arm"], str(run["seed"]), number(run["updates"]), *(estimate(run["skill"][k], 3) for k in run["skill"]))
        for run in result["runs"]
    ]
    linear, world = result["runs"][0]["linear"], result["world"]
    rows.append(("a linear forecast", "", "", *(estimate(figure, 3) for figure in linear.values())))
    return Section(
        "A robot of two arms by its joints alone",
        f"{world['joints']} joints with limited torque, dry friction and unseen velocities. {world['episodes']} "
        f"episodes of {world['rows']} rows at {number(world['fps'])} Hz, {percent(world['held_out'])} held out; "
        f"{number(result['minutes_each'])} min of one core each. `rssm` carries the vectors "
        "(`--set vectors=change`), `rssm-latent` reads them out of its latent.",
        (Table(("arm", "seed", "updates", *(f"skill, {key.rpartition('@')[2]} steps" for key in linear)), rows),),
    )


def precision(result: Result) -> Section:
    curves = result["curves"]
    rows = [
        (c["precision"], str(c["seed"]), number(c["held_out_loss"], 1), number(c["loss"][-1], 1), number(c["seconds"]))
        for c in curves
    ]
    means = [(p, mean(c["held_out_loss"] for c in curves if c["precision"] == p)) for p in ("fp32", "bf16")]
    return Section(
        "Training in bf16 and in fp32",
        "`rssm` nano on Doom, the same windows in the same order.",
        (Table(("precision", "seed", "held-out loss", "training loss at the end", "wall s"), rows),),
        ("Mean held-out loss: " + ", ".join(f"{name} {number(loss)}" for name, loss in means) + ".",),
        "precision.svg",
    )


def horizons(result: Result) -> Sequence[int]:
    return result["provenance"]["horizons"]


def scale(result: Result) -> str:
    """How large the data and the training were, as the card's provenance tells it."""
    provenance = result["provenance"]
    settings, data = provenance["training"]["settings"], provenance["datasets"][0]
    held_out = len(data["held_out_episodes"])
    pixels = f"{settings['image_size']} x {settings['image_size']} pixels"
    steps = result["metrics"]["cost"]["training_steps"]["value"]
    return (
        f"{pixels}, {data['train_episodes'] + held_out} episodes, {held_out} of them held out, "
        f"{number(settings['minutes'])} min of training ({number(steps)} updates)"
    )


def length(seconds: int) -> str:
    return f"{seconds // 60} min {seconds % 60} s"


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def ratio(above: Mapping[str, float], below: Mapping[str, float]) -> float:
    return above["value"] / below["value"]


def skills(result: Result, keys: Sequence[str], digits: int = 2) -> Table:
    """Skill of the model and of the baselines, a row for each key and horizon."""
    columns = ("held-out skill", "model", *BASELINES, "model minus linear")
    card, baselines = result["metrics"], result["baselines"]
    rows = [
        (
            f"{key}@{k}",
            estimate(card["skill"][f"{key}@{k}"], digits),
            *(estimate(baselines[name]["skill"][f"{key}@{k}"], digits) for name in BASELINES),
            estimate(card["skill_minus_linear"][f"{key}@{k}"], digits),
        )
        for key in keys
        for k in horizons(result)
    ]
    return Table(columns, rows, "Skill is one for a perfect prediction and zero for repeating the last observation.")


NAMES = {
    "controllability": ("controllability, dB", 2),
    "terminated_auroc": ("termination, AUROC", 2),
    "terminated_ece": ("termination, calibration error", 3),
}


def by_horizon(card: Mapping[str, Any], names: Sequence[str], steps: Sequence[int], key: str) -> Table:
    """Figures of the card by how many steps ahead they are; `tracked` has observed the row itself."""

    def cell(name: str, step: str, digits: int) -> str:
        at = card[name].get(step) or card[name].get(step.replace("open_loop", key))
        return estimate(at, digits) if at else "-"

    columns = ("figure", "tracked", *(f"{k} ahead" for k in steps))
    keys = ("tracked", *(f"open_loop@{k}" for k in steps))
    rows = [(NAMES[name][0], *(cell(name, step, NAMES[name][1]) for step in keys)) for name in names]
    return Table(columns, rows)


def demo_policies(result: Result) -> Table:
    """What the demo's policy is worth, in this run and in others."""
    policy, updates = result["metrics"]["policy"], result["metrics"]["cost"]["training_steps"]["value"]
    columns = ("policy, mean return in tics", "model updates", "real", "in dreams", "random play")
    here = ("this run", number(updates), *(estimate(policy[who]) for who in ("reality", "dream", "random")))
    others = [
        (f"{run['what']} ({run['hardware']})", number(run["updates"]), estimate(run["policy"]), "-", "-")
        for run in result["other_runs_of_the_demo"]
    ]
    return Table(columns, [here, *others])


def demo_speed(result: Result) -> Table:
    cost, recording = result["metrics"]["cost"], result["demo"]["recording"]
    settings = result["provenance"]["training"]["settings"]
    windows = settings["batch_size"] * settings["length"]
    trained = cost["training_steps"]["value"] * windows / cost["training_seconds"]["value"]
    rows = [
        (f"recording, {recording['environments']} environments ({recording['hardware']})",
         number(recording["rows_per_second"]), "rows/s"),
        (f"training nano, {settings['batch_size']} windows of {settings['length']}, {settings['threads']} threads",
         number(trained), "frames/s"),
        ("imagined steps, the card's batch, nothing decoded",
         number(cost["imagined_steps_per_second"]["value"]), "steps/s"),
    ]  # fmt: skip
    return Table(("speed of the demo", "measured", "unit"), rows)
