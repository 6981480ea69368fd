"""World-model families, one file each. Adding one is its file and one line here."""

from dataclasses import fields, replace
from typing import Any

from worldloom.data.spec import DataSpec
from worldloom.errors import unknown
from worldloom.model import WorldModel
from worldloom.registry import Registry

FAMILIES = Registry(
    "model family",
    {
        "ensemble": "worldloom.models.ensemble:Ensemble",
        "mlp": "worldloom.models.mlp:MLP",
        "rssm": "worldloom.models.rssm:RSSM",
        "tabular": "worldloom.models.tabular:Tabular",
        "tdmpc": "worldloom.models.tdmpc:TDMPC",
        "vae_rnn": "worldloom.models.vae_rnn:VAERNN",
    },
)


def build(family: str, spec: DataSpec, size: str = "nano", **overrides: Any) -> WorldModel:
    """A new model of a registered family at a preset `size`, single hyperparameters overridden by name."""
    made = FAMILIES[family]
    if size not in made.sizes:
        raise unknown(f"size of family {family!r}", size, made.sizes)
    config = made.sizes[size]
    for name in overrides:
        if name not in {f.name for f in fields(config)}:
            raise unknown(f"hyperparameter of family {family!r}", name, [f.name for f in fields(config)])
    return made(spec, replace(config, **overrides))


def rebuild(family: str, spec: DataSpec, config: dict[str, Any]) -> WorldModel:
    """The model a checkpoint describes. `config` is plain JSON; unknown or missing hyperparameters are an error."""
    made = FAMILIES[family]
    known = {f.name for f in fields(made.config_class)}
    for name in config:
        if name not in known:
            raise unknown(f"hyperparameter of family {family!r}", name, known)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return made(spec, made.config_class(**values))
