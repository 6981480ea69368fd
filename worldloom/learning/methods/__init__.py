"""Ways of learning, one file each. Adding one is its file and one line here, or your own `module:object`."""

from worldloom.registry import Registry

METHODS = Registry(
    "learning method",
    {
        "tdmpc": "worldloom.learning.methods.tdmpc:TDMPC",
        "dreamer": "worldloom.learning.methods.dreamer:DREAMER",
        "cma": "worldloom.learning.methods.cma:CMA",
    },
    group="worldloom.learning",
    kind="worldloom.learning.method:Method",
    instances=True,
)
