"""What comes from outside, for the tests of it: packages that are installed without pip, and modules that give
themselves away when they are imported.
"""

from collections.abc import Mapping
from pathlib import Path

MODULE = """
from pathlib import Path
import gymnasium
from worldloom import learning, planners
Path({marker!r}).write_text("imported")
from tests.toy import ToyModel
from worldloom.learning.method import Method
from worldloom.learning.settings import TDMPCSettings
from worldloom.planners.cem import CEM
from worldloom.planners.objectives import Return

class Family(ToyModel):
    pass

class Planner(CEM):
    pass

class Settings(TDMPCSettings):
    method = "hostile:METHOD"

OBJECTIVE, METHOD = Return(), Method(Settings, print)
make = gymnasium.Env
"""


def install(site: Path, package: str, module: str, points: Mapping[str, Mapping[str, str]]) -> Path:
    """A package with one module as pip would leave it in the folder `site`: `points[group][name] = reference`."""
    folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(groups))
    (site / f"{package.replace('-', '_')}.py").write_text(module)
    return site


def write_hostile(folder: Path) -> Path:
    """`hostile.py` in `folder`; the file that it writes when it is imported."""
    marker = folder / "imported.txt"
    (folder / "hostile.py").write_text(MODULE.format(marker=str(marker)))
    return marker
