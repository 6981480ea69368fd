"""Where the rows of an episode lie in the data files: found by their own episode_index, never by counting.

N rows of a file, G row groups. What meta/episodes says of files and first rows is only where to look first, because
conversions and merges leave it stale. A file's column is read once, so a dataset costs the same an episode however
many there are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class FileIndex:
    """One data file: `order` `[N]` are its rows sorted by their `episodes` `[N]`, `starts` `[G + 1]` of the groups."""

    metadata: pq.FileMetaData
    starts: np.ndarray
    order: np.ndarray
    episodes: np.ndarray

    @classmethod
    def of(cls, path: Path) -> "FileIndex":
        """Raises what pyarrow raises for a file that is cut or no parquet file, and `KeyError` without the column."""
        metadata = pq.read_metadata(path)
        column = pq.read_table(path, columns=["episode_index"])["episode_index"].to_numpy()
        order = np.argsort(column, kind="stable")
        starts = np.cumsum([0, *(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))])
        return cls(metadata, starts, order, column[order])

    def rows(self, episode: int) -> np.ndarray:
        """The rows of an episode in the order of the file."""
        first, end = np.searchsorted(self.episodes, (episode, episode + 1))
        return self.order[first:end]

    def groups(self, rows: np.ndarray) -> list[int]:
        """The row groups in which `rows`, one or more in ascending order, lie."""
        return np.unique(np.searchsorted(self.starts, rows, side="right") - 1).tolist()

    def within(self, rows: np.ndarray, groups: list[int]) -> np.ndarray:
        """The places of `rows` in the table that these row groups make."""
        sizes = np.diff(self.starts)[groups]
        offsets = np.cumsum([0, *sizes[:-1]])
        group = np.searchsorted(self.starts[groups], rows, side="right") - 1
        return rows - self.starts[groups][group] + offsets[group]


def data_files(folder: Path) -> list[Path]:
    """The parquet files of a dataset's part, without hidden files and folders that other programs leave there."""
    found = sorted(folder.glob("*/*.parquet"))
    return [path for path in found if not any(part.startswith((".", "_")) for part in path.parts[-2:])]


def select(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """`rows` of a table, as a view where they lie side by side."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return table.slice(int(rows[0]), len(rows))
    return table.take(pa.array(rows))
