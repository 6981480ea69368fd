"""The parquet schemas of LeRobotDataset v3.0: rows, episodes and tasks, as `datasets` and pandas expect them."""

import json
from typing import Any

import pyarrow as pa

EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def arrow_type(feature: dict[str, Any]) -> pa.DataType:
    """A scalar for shape (1,), a fixed-size list for a vector, encoded bytes for an image."""
    if feature["dtype"] == "image":
        return IMAGE
    value = {"bool": pa.bool_(), "string": pa.string()}.get(feature["dtype"]) or pa.from_numpy_dtype(feature["dtype"])
    size = feature["shape"][0]
    return value if size == 1 else pa.list_(value, size)


def hugging_face_schema(features: dict[str, Any]) -> pa.Schema:
    """The schema of data/*.parquet. The "huggingface" note lets the `datasets` library show images as images."""
    stored = {name: feature for name, feature in features.items() if feature["dtype"] != "video"}
    note = json.dumps({"info": {"features": {name: _note(feature) for name, feature in stored.items()}}})
    return pa.schema([(n, arrow_type(f)) for n, f in stored.items()], metadata={"huggingface": note})


def _note(feature: dict[str, Any]) -> dict[str, Any]:
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    value, size = {"dtype": feature["dtype"], "_type": "Value"}, feature["shape"][0]
    return value if size == 1 else {"feature": value, "length": size, "_type": "Sequence"}


def episodes_schema(row: dict[str, Any]) -> pa.Schema:
    """The schema of meta/episodes from one row: whole numbers, times in seconds, nested lists of statistics."""
    return pa.schema([(name, _episode_type(name, value)) for name, value in row.items()])


def _episode_type(name: str, value: Any) -> pa.DataType:
    if name == "tasks":
        return pa.list_(pa.string())
    if not name.startswith("stats/"):
        return pa.float64() if name.endswith("_timestamp") else pa.int64()
    made = pa.int64() if name.endswith("/count") else pa.float64()
    while isinstance(value, list):
        made, value = pa.list_(made), value[0]
    return made


def tasks_table(tasks: list[str]) -> pa.Table:
    """meta/tasks.parquet as pandas writes it: the column task_index under an index called `task`."""
    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    kind = {"pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}
    note = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **kind}],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(note)})
    return pa.table([pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.string())], schema=schema)
