"""How many decisions an episode of `worldloom learn` may take: one that never ends must not keep the run from its end.

An episode ends with the budget at the latest. Before that it is only truncated where something is due, the end of the
random steps or an evaluation, and it has gone on for long already: an ordinary episode is always played to its end.
"""

from worldloom.learning.settings import LearnSettings

LONG = 1000  # decisions; the episodes of most benchmarks take no more


def longest_episode(settings: LearnSettings, decisions: int) -> int:
    """How many decisions each of the episodes may take that begin after so many `decisions`, side by side.

    With several environments the budget is exceeded by fewer decisions than there are environments.
    """
    left = share(settings.steps - decisions, settings)
    if settings.max_episode_steps is not None:
        return min(settings.max_episode_steps, left)
    is_random = decisions < settings.random_steps
    due = settings.random_steps - decisions if is_random else settings.eval_every - decisions % settings.eval_every
    # In a short run half of what is left is long: something must be left to learn with.
    return min(max(share(due, settings), min(LONG, left // 2)), left)


def longest_evaluation(settings: LearnSettings) -> int:
    """How many decisions an episode of an evaluation may take: as many as lie between two, where none are asked for."""
    return settings.max_episode_steps or max(settings.eval_every, min(LONG, settings.steps))


def share(decisions: int, settings: LearnSettings) -> int:
    """What each environment takes of so many decisions, rounded up."""
    return -(-decisions // settings.num_envs)
