"""World-model families, one file each. Adding one is its file and one line here."""

from worldloom.registry import Registry

FAMILIES = Registry("model family", {"rssm": "worldloom.models.rssm:RSSM"})
