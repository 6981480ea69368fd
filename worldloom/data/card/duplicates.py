"""Find episodes that are the same, or nearly: they bias a held-out figure when one is in training and one in
evaluation.

K times per episode, C H W image channels, height, width.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from worldloom.data.episode import Episode
from worldloom.data.spec import DataSpec

TIMES = 8
THUMBNAIL = 16
NEAR_LEVELS = 10.0  # of 255: a re-encoded copy stays below, a sprite that moved one thumbnail pixel does not
NEAR_DEVIATIONS = 0.1  # of each vector's standard deviation over the dataset
BLOCK = 512


@dataclass(frozen=True)
class Signature:
    """digest: of all observations and actions. thumbnails: grey levels and vectors: own units, at `TIMES` times."""

    length: int
    digest: str
    thumbnails: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Duplicates:
    """Episodes that are `identical` byte by byte, or alike at every compared time."""

    episodes: list[int]
    identical: bool


def signature(episode: Episode, spec: DataSpec) -> Signature:
    """What `duplicates` compares of an episode."""
    digest = hashlib.blake2b(np.ascontiguousarray(episode.action).data, digest_size=16)
    for key in (*spec.image_keys, *spec.vector_keys):
        digest.update(np.ascontiguousarray(episode.obs[key]).data)
    times = np.linspace(0, len(episode) - 1, TIMES).round().astype(int)
    thumbnails = [_thumbnail(episode.obs[key][t]) for key in spec.image_keys for t in times]
    vectors = [episode.obs[key][times] for key in spec.vector_keys]
    return Signature(
        length=len(episode),
        digest=digest.hexdigest(),
        thumbnails=np.concatenate(thumbnails) if thumbnails else np.zeros(0, np.float32),
        vectors=np.concatenate(vectors, 1) if vectors else np.zeros((TIMES, 0), np.float32),
    )


def duplicates(signatures: Mapping[int, Signature]) -> list[Duplicates]:
    """Groups of two or more episodes (keys of `signatures`): first the identical ones, then the nearly identical."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, one in signatures.items():
        same[one.digest].append(index)
    groups = [Duplicates(episodes, True) for episodes in same.values() if len(episodes) > 1]
    unique = {episodes[0]: signatures[episodes[0]] for episodes in same.values()}
    return groups + [Duplicates(episodes, False) for episodes in _near(unique)]


def _near(signatures: Mapping[int, Signature]) -> list[list[int]]:
    indices, ones = list(signatures), list(signatures.values())
    if len(ones) < 2:
        return []
    features = _features(ones)
    if not features.shape[1]:
        return []
    parent = list(range(len(ones)))
    for i, j in _close_pairs(features):
        if abs(ones[i].length - ones[j].length) <= 0.1 * max(ones[i].length, ones[j].length):
            parent[_root(parent, j)] = _root(parent, i)
    groups: dict[int, list[int]] = defaultdict(list)
    for number, index in enumerate(indices):
        groups[_root(parent, number)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _features(ones: list[Signature]) -> np.ndarray:
    """`[E, F]`, scaled so that two episodes are near when no feature differs by more than 1."""
    vectors = np.stack([one.vectors for one in ones])
    std = vectors.std((0, 1))
    vectors = vectors / np.where(std > 0, std * NEAR_DEVIATIONS, 1)
    frames = np.stack([one.thumbnails for one in ones]) / NEAR_LEVELS
    return np.concatenate([frames, vectors.reshape(len(ones), -1)], 1).astype(np.float32)


def _close_pairs(features: np.ndarray) -> list[tuple[int, int]]:
    """Pairs whose largest difference is at most 1. A mean square above 1 rules a pair out cheaply."""
    features = features - features.mean(0)
    square = (features**2).sum(1)
    pairs = []
    for first in range(0, len(features), BLOCK):
        block = features[first : first + BLOCK]
        distance = square[first : first + BLOCK, None] + square - 2 * block @ features.T
        for i, j in np.argwhere(distance <= features.shape[1] * 1.01):
            i += first
            if i < j and np.abs(features[i] - features[j]).max() <= 1:
                pairs.append((int(i), int(j)))
    return pairs


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """Grey levels of a uint8 `[C, H, W]` frame, averaged over the pixels of a coarse grid."""
    grey = Image.fromarray((frame.sum(0, dtype=np.uint16) // len(frame)).astype(np.uint8))
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32).ravel()
