"""The command line with the toy family, and categorical latents that answer with their mean instead of a sample.

Processes draw their samples independently, so only without samples can their losses be compared with those of one.
"""

from torch import Tensor

from tests.toy import ENTRY
from worldloom.cli import main
from worldloom.models import FAMILIES
from worldloom.nets.latent import Categorical


def mean(latent: Categorical, params: Tensor, temperature: float = 1.0) -> Tensor:
    return latent.probs(params).flatten(-2)


if __name__ == "__main__":
    FAMILIES.entries["toy"] = ENTRY
    Categorical.sample = mean  # type: ignore[method-assign, assignment]
    main()
