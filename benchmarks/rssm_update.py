"""One whole DreamerV3 update of size1m: world model, imagination, actor, critic, optimiser.

    python benchmarks/rssm_update.py [--json] [--updates 10] [--work vector image]

B16 x T64 rows, 15 imagined steps from all 1,024 beliefs, one thread, CPU-ms (user + system time of the process).
It is the update of `worldloom learn dreamer`, with actor and critic as large as size1m's; peers run beside it where
`peers.py` finds them. fp32 is shown, and bf16 too where the processor is faster in it.
"""

import argparse
import time
from itertools import repeat
from statistics import median

import peers
import torch
from report import Row, print_rows

from worldloom.data.segment import Segment, outcome
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.learning.actor_critic import ActorCritic
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.models import build
from worldloom.runs.precision import has_fast_bf16
from worldloom.schedule import Budget, OptimizerSettings
from worldloom.training.joint_module import JointModule
from worldloom.training.memory import keep_freed_memory
from worldloom.training.trainer import Trainer

BATCH, TIME, ACTION, WARM_UP = 16, 64, 6, 3
POLICY = ActorCriticConfig(units=64, layers=3)
CPU = torch.device("cpu")


def random_segment(work: str) -> Segment:
    """The peers' work: 24 numbers or a 64 x 64 picture, 6 continuous actions; no episode begins or ends."""
    picture = torch.randint(0, 256, (BATCH, TIME, 3, 64, 64), dtype=torch.uint8)
    obs = {work: torch.randn(BATCH, TIME, 24) if work == "vector" else picture}
    false = torch.zeros(BATCH, TIME, dtype=torch.bool)
    actions, reward = torch.rand(BATCH, TIME, ACTION) * 2 - 1, torch.randn(BATCH, TIME)
    return Segment(obs, actions, outcome(reward, false, false), ~false)


def make_trainer(work: str, precision: str, segment: Segment) -> Trainer:
    entry = KeySpec("vector", (24,)) if work == "vector" else KeySpec("image", (3, 64, 64))
    action = ActionSpec("continuous", ACTION, low=(-1.0,) * ACTION, high=(1.0,) * ACTION)
    model = build("rssm", DataSpec({work: entry, **signal_keys(reward=True, terminated=True)}, action, 20.0), "size1m")
    settings = OptimizerSettings(lr=4e-5, clip=0.3)
    joint = JointModule(model, ActorCritic.of(model, POLICY))
    return Trainer(model, repeat(segment), Budget(1000), settings, CPU, precision, joint=joint)


def measure(work: str, precision: str, updates: int) -> list[Row]:
    """Median and least CPU-ms of `updates` after a warm-up, and the number of trained parameters."""
    torch.manual_seed(0)
    segment = random_segment(work)
    trainer, spent = make_trainer(work, precision, segment), []
    for _ in range(WARM_UP + updates):
        before = time.process_time()
        trainer.update(segment)
        spent.append(1000 * (time.process_time() - before))
    spent, name = spent[WARM_UP:], f"size1m update, {work}"
    parameters = sum(p.numel() for p in trainer.trained.parameters() if p.requires_grad)
    return [
        Row(name, median(spent), "CPU-ms", 1, precision, "worldloom"),
        Row(f"{name}, least of {updates}", min(spent), "CPU-ms", 1, precision, "worldloom"),
        Row(f"{name}, parameters", parameters, "count", 1, precision, "worldloom"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--work", nargs="+", choices=peers.WORK, default=list(peers.WORK))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for work in asked.work:
        for precision in ("bf16", "fp32") if has_fast_bf16(CPU) else ("fp32",):
            rows += measure(work, precision, asked.updates)
        for peer in peers.PEERS:
            rows += peers.measure(peer, work, asked.updates)
    print_rows(rows)


if __name__ == "__main__":
    main()
