"""World-model families, one file each. Adding one is its file and one line here, or your own `module:Class`."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from worldloom.errors import UserError, unknown
from worldloom.registry import Registry

if TYPE_CHECKING:  # so that `--help` can list the families without waiting for torch
    from torch import nn

    from worldloom.data.spec import DataSpec
    from worldloom.model import WorldModel


class Families(Registry):
    """A family from outside is called, in its runs and in messages, by the name that it was found under.

    Whatever it says itself: it may be a copy or a subclass of one of ours, and would be taken for that.
    """

    def adopt(self, name: str, thing: Any) -> Any:
        made = super().adopt(name, thing)
        for attribute in ("config_class", "sizes"):
            if not hasattr(made, attribute):
                raise UserError(f"{self.what} {name!r} has no `{attribute}`: see docs/your-own-family.md")
        if f"{made.__module__}:{made.__qualname__}" not in self.entries.values():
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


def build(
    family: str, spec: "DataSpec", size: str = "nano", parts: "Mapping[str, nn.Module] | None" = None, **overrides: Any
) -> "WorldModel":
    """A new model of a family at a preset `size`, single hyperparameters overridden by name.

    `parts` are modules of other runs, by the names that the family's `part_types` has; they stay as they are.
    Raises `NotAllowed` for a `module:Class` that was not allowed (`worldloom.allow`).
    """
    made = FAMILIES[family]
    if size not in made.sizes:
        raise unknown(f"size of family {family!r}", size, made.sizes)
    config, overrides = made.sizes[size], current_names(made, overrides)
    for name in overrides:
        if name not in {f.name for f in fields(config)}:
            raise unknown(f"hyperparameter of family {family!r}", name, [f.name for f in fields(config)])
    return assemble(made, spec, replace(config, **overrides), parts or {})


def rebuild(
    made: Any, spec: "DataSpec", config: dict[str, Any], parts: "Mapping[str, nn.Module] | None" = None
) -> "WorldModel":
    """A model of the family `made`, as a checkpoint describes it.

    `config` is plain JSON; unknown or missing hyperparameters are an error.
    """
    known, config = {f.name for f in fields(made.config_class)}, current_names(made, config)
    for name in config:
        if name not in known:
            raise unknown(f"hyperparameter of family {made.family!r}", name, known)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return assemble(made, spec, made.config_class(**values), parts or {})


def current_names(made: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters by the names that the family `made` has for them now."""
    return {made.renamed.get(name, name): value for name, value in values.items()}


def assemble(made: Any, spec: "DataSpec", config: Any, parts: "Mapping[str, nn.Module]") -> "WorldModel":
    """A model of the class `made` around frozen `parts`. Raises `UserError` for a part it does not have."""
    check_parts(made, parts)
    model: WorldModel = made(spec, config, parts) if made.part_types else made(spec, config)
    for name, part in parts.items():
        assert model.get_submodule(name) is part, f"family {made.family!r} does not use the part {name!r} it was given"
        model.freeze(name)
    return model


def check_parts(made: Any, parts: "Mapping[str, nn.Module]") -> None:
    """Raise `UserError` unless the family has parts of these names and types."""
    for name, part in parts.items():
        if not made.part_types:
            raise UserError(f"family {made.family!r} has no parts: leave {name!r} away")
        if name not in made.part_types:
            raise unknown(f"part of family {made.family!r}", name, made.part_types)
        wanted = made.part_types[name]
        wanted = FAMILIES[wanted] if isinstance(wanted, str) else wanted
        if not isinstance(part, wanted):
            raise UserError(
                f"part {name!r} of family {made.family!r} is a {type(part).__name__}, but must be a {wanted.__name__}"
            )
