"""World-model families, one file each. Adding one is its file and one line here, or your own `module:Class`."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from worldloom.errors import UserError, unknown
from worldloom.registry import Registry

if TYPE_CHECKING:  # so that `--help` can list the families without waiting for torch
    from worldloom.data.spec import DataSpec
    from worldloom.model import WorldModel


class Families(Registry):
    """A family from outside is called, in its runs and in messages, by the name that it was found under."""

    def adopt(self, name: str, thing: Any) -> Any:
        made = super().adopt(name, thing)
        for attribute in ("config_class", "sizes"):
            if not hasattr(made, attribute):
                raise UserError(f"{self.what} {name!r} has no `{attribute}`: see docs/your-own-family.md")
        made.family = name
        return made


FAMILIES = Families(
    "model family",
    {
        "ensemble": "worldloom.models.ensemble:Ensemble",
        "mlp": "worldloom.models.mlp:MLP",
        "rssm": "worldloom.models.rssm:RSSM",
        "tabular": "worldloom.models.tabular:Tabular",
        "tdmpc": "worldloom.models.tdmpc:TDMPC",
        "vae_rnn": "worldloom.models.vae_rnn:VAERNN",
    },
    group="worldloom.families",
    kind="worldloom.model:WorldModel",
)


def build(family: str, spec: "DataSpec", size: str = "nano", **overrides: Any) -> "WorldModel":
    """A new model of a family at a preset `size`, single hyperparameters overridden by name.

    Raises `NotAllowed` for a `module:Class` that was not allowed (`worldloom.allow`).
    """
    made = FAMILIES[family]
    if size not in made.sizes:
        raise unknown(f"size of family {family!r}", size, made.sizes)
    config = made.sizes[size]
    for name in overrides:
        if name not in {f.name for f in fields(config)}:
            raise unknown(f"hyperparameter of family {family!r}", name, [f.name for f in fields(config)])
    return made(spec, replace(config, **overrides))


def rebuild(made: Any, spec: "DataSpec", config: dict[str, Any]) -> "WorldModel":
    """A model of the family `made`, as a checkpoint describes it.

    `config` is plain JSON; unknown or missing hyperparameters are an error.
    """
    known = {f.name for f in fields(made.config_class)}
    for name in config:
        if name not in known:
            raise unknown(f"hyperparameter of family {made.family!r}", name, known)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return made(spec, made.config_class(**values))
