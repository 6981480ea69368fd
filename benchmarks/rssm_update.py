"""One whole DreamerV3 update of size1m: world model, imagination, actor, critic, optimiser.

    python benchmarks/rssm_update.py [--json] [--updates 10] [--work vector image]

B16 x T64 rows, 15 imagined steps from all 1,024 beliefs, one thread, CPU-ms (user + system time of the process).
The actor and the critic are DreamerV3's, written here on the contract alone; peers run beside ours where `peers.py`
finds them. fp32 and bf16 are both shown; which one `worldloom train` picks depends on the processor.
"""

import argparse
import time
from statistics import median

import peers
import torch
from report import Row, print_rows
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.model import State, WorldModel, dream
from worldloom.models import build
from worldloom.nets.dense import initialise, mlp
from worldloom.nets.heads import TwoHotHead
from worldloom.training.memory import keep_freed_memory
from worldloom.training.optimizer import clip_gradients, make_optimizer
from worldloom.training.precision import autocast, has_fast_bf16

BATCH, TIME, HORIZON, ACTION, UNITS, WARM_UP = 16, 64, 15, 6, 64, 3
DISCOUNT, LAMBDA, ENTROPY, SLOW_RATE = 1 - 1 / 333, 0.95, 3e-4, 0.02
CPU = torch.device("cpu")


class Actor(nn.Module):
    """A bounded normal policy over `[..., F]` features: mean in (-1, 1), standard deviation in (0.1, 1)."""

    def __init__(self, features: int):
        super().__init__()
        self.net = nn.Sequential(mlp(features, UNITS, 3), nn.Linear(UNITS, 2 * ACTION))

    def forward(self, features: Tensor) -> torch.distributions.Normal:
        mean, raw = self.net(features).float().chunk(2, -1)
        return torch.distributions.Normal(mean.tanh(), 0.9 * (raw + 2).sigmoid() + 0.1, validate_args=False)


class Dreamer(nn.Module):
    """A world model, its actor and its critic. `loss` is the sum that one update differentiates."""

    def __init__(self, model: WorldModel, features: int):
        super().__init__()
        self.model, self.actor = model, Actor(features)
        self.critic, self.slow = (TwoHotHead(features, units=UNITS, layers=3) for _ in range(2))
        self.apply(initialise)
        self.critic.zero_output()
        self.slow.load_state_dict(self.critic.state_dict())
        self.slow.requires_grad_(False)

    def loss(self, segment: Segment) -> Tensor:
        belief = self.model.track(segment.obs, segment.action)
        terms = self.model(segment, belief)
        total = torch.stack([self.model.loss_weights[k] * v.mean() for k, v in terms.items()]).sum()
        start = tree_map(lambda x: x.detach().flatten(0, 1), belief)
        return total + self.behaviour(start) + self.replay_value(belief, segment)

    def behaviour(self, start: State) -> Tensor:
        """Actor and critic on dreams from every belief: lambda returns, REINFORCE, two-hot regression."""
        heads: nn.ModuleDict = self.model.heads  # type: ignore[assignment]
        with torch.no_grad():
            states, actions = dream(self.model, start, lambda s: self.actor(s.features).sample(), HORIZON + 1)
            features = states.features
            # Cast once here, or every head below would cast these ten million numbers again.
            features = features.bfloat16() if torch.is_autocast_enabled("cpu") else features
            reward, end = heads["reward"](features).mean, heads["terminated"](features).mean
        critic = self.critic(features)
        with torch.no_grad():
            value, slow = critic.mean, self.slow(features).mean
            target = lambda_return(reward, (1 - end) * DISCOUNT, value)
            advantage = (target - value[:, :-1]) / max(1.0, spread(target))
        policy = self.actor(features)
        log_prob, entropy = policy.log_prob(actions).sum(-1)[:, :-1], policy.entropy().sum(-1)[:, :-1]
        # The last state has no return: it regresses to the slow critic only.
        target = torch.cat([target, slow[:, -1:]], 1)
        return (critic.nll(target) + critic.nll(slow)).mean() - (log_prob * advantage + ENTROPY * entropy).mean()

    def replay_value(self, belief: State, segment: Segment) -> Tensor:
        """The critic on the real rows too, with gradients into the beliefs."""
        critic = self.critic(belief.features)
        with torch.no_grad():
            ends, slow = (1 - segment.terminated.float()) * DISCOUNT, self.slow(belief.features).mean
            target = torch.cat([lambda_return(segment.reward, ends, critic.mean), slow[:, -1:]], 1)
        return 0.3 * (critic.nll(target) + critic.nll(slow)).mean()


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor) -> Tensor:
    """`[B, H]` each, all known on arrival in a state; the returns of the first H - 1 states."""
    returns = [value[:, -1]]
    for t in range(value.shape[1] - 1, 0, -1):
        bootstrap = (1 - LAMBDA) * value[:, t] + LAMBDA * returns[-1]
        returns.append(reward[:, t] + discount[:, t] * bootstrap)
    return torch.stack(returns[:0:-1], 1)


def spread(returns: Tensor) -> float:
    low, high = torch.quantile(returns.flatten(), torch.tensor([0.05, 0.95]))
    return float(high - low)


def make_work(work: str) -> tuple[Dreamer, Segment]:
    """The peers' work: 24 numbers or a 64 x 64 picture, 6 continuous actions."""
    entry = KeySpec("vector", (24,)) if work == "vector" else KeySpec("image", (3, 64, 64))
    action = ActionSpec("continuous", ACTION, low=(-1.0,) * ACTION, high=(1.0,) * ACTION)
    model = build("rssm", DataSpec({work: entry}, action, 20.0, has_reward=True, has_end=True), "size1m")
    picture = torch.randint(0, 256, (BATCH, TIME, 3, 64, 64), dtype=torch.uint8)
    obs = {work: torch.randn(BATCH, TIME, 24) if work == "vector" else picture}
    false = torch.zeros(BATCH, TIME, dtype=torch.bool)
    actions, reward = torch.rand(BATCH, TIME, ACTION) * 2 - 1, torch.randn(BATCH, TIME)
    features = model.start({k: v[:, 0] for k, v in obs.items()}).features.shape[-1]
    return Dreamer(model, features), Segment(obs, actions, reward, false, false, ~false)


def measure(work: str, precision: str, updates: int) -> list[Row]:
    """Median and least CPU-ms of `updates` after a warm-up, and the number of trained parameters."""
    torch.manual_seed(0)
    agent, segment = make_work(work)
    optimizer = make_optimizer(agent, lr=4e-5)
    spent = []
    for _ in range(WARM_UP + updates):
        before = time.process_time()
        with autocast(precision, CPU):
            loss = agent.loss(segment)
        loss.backward()
        clip_gradients(agent.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(list(agent.slow.parameters()), list(agent.critic.parameters()), SLOW_RATE)
        spent.append(1000 * (time.process_time() - before))
    spent, name = spent[WARM_UP:], f"size1m update, {work}"
    parameters = sum(p.numel() for p in agent.parameters() if p.requires_grad)
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
