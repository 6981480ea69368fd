"""A dataset we wrote, held against the LeRobotDataset v3.0 layout with no code of ours: pyarrow, json, av.

Written from the format's field list. Where a number is asserted it comes from the recorded episodes' lengths alone.
"""

import io
import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.recorded import SPEC, record
from worldloom.data.lerobot.writer import FileLimits

LENGTHS = (7, 5, 9, 4)
FPS = 10
STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
FEATURES = {  # name: dtype, shape
    "observation.image": ("image", [8, 12, 3]),
    "observation.images.front": ("video", [128, 160, 3]),
    "observation.state": ("float32", [4]),
    "observation.speed": ("float32", [1]),
    "action": ("float32", [2]),
    "next.reward": ("float32", [1]),
    "next.done": ("bool", [1]),
    "next.truncated": ("bool", [1]),
    "timestamp": ("float32", [1]),
    "frame_index": ("int64", [1]),
    "episode_index": ("int64", [1]),
    "index": ("int64", [1]),
    "task_index": ("int64", [1]),
}
VIDEO = "observation.images.front"


@pytest.fixture(scope="module", params=["one file", "a file per episode"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "data"
    limits = FileLimits() if request.param == "one file" else FileLimits(data_mb=0, video_mb=0, chunk_files=3)
    record(path, SPEC, LENGTHS, robot_type="toy", limits=limits)
    return path


def read_info(dataset: Path) -> dict:
    return json.loads((dataset / "meta/info.json").read_text())


def read_episodes(dataset: Path) -> list[dict]:
    rows = [
        row
        for p in sorted(dataset.glob("meta/episodes/chunk-*/file-*.parquet"))
        for row in pq.read_table(p).to_pylist()
    ]
    return sorted(rows, key=lambda row: row["episode_index"])


def read_rows(dataset: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(dataset.glob("data/chunk-*/file-*.parquet"))])


def test_there_are_no_files_but_those_of_the_format(dataset: Path) -> None:
    found = {p.relative_to(dataset).parts[0] for p in dataset.rglob("*") if p.is_file()}
    assert found == {"meta", "data", "videos"}
    assert {p.name for p in (dataset / "meta").iterdir()} == {"info.json", "stats.json", "tasks.parquet", "episodes"}


def test_info_has_every_field_with_its_type(dataset: Path) -> None:
    info = read_info(dataset)
    assert info["codebase_version"] == "v3.0"
    assert info["robot_type"] == "toy"
    assert info["fps"] == FPS
    assert type(info["fps"]) is int
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (len(LENGTHS), sum(LENGTHS), 3)
    for name in ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"):
        assert type(info[name]) is int
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert info["splits"] == {"train": f"0:{len(LENGTHS)}"}


def test_features_declare_dtype_shape_and_names(dataset: Path) -> None:
    features = read_info(dataset)["features"]
    assert {name: (f["dtype"], f["shape"]) for name, f in features.items()} == FEATURES
    assert features["observation.state"]["names"] == ["x", "y", "z", "grip"]
    assert features["action"]["names"] == ["steer", "gas"]
    assert all("/" not in name for name in features)
    for camera in ("observation.image", VIDEO):
        assert features[camera]["names"] == ["height", "width", "channels"]
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        assert features[name]["names"] is None


def test_the_video_info_is_what_the_file_is(dataset: Path) -> None:
    info = read_info(dataset)["features"][VIDEO]["info"]
    for path in dataset.glob(f"videos/{VIDEO}/chunk-*/file-*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert info["video.codec"] == stream.codec_context.name == "h264"
            assert info["video.pix_fmt"] == stream.codec_context.pix_fmt
            assert (info["video.height"], info["video.width"]) == (stream.height, stream.width) == (128, 160)
            assert info["video.fps"] == stream.average_rate == FPS
            assert info["has_audio"] is bool(container.streams.audio) is False
            assert info["video.channels"] == 3
            assert info["video.is_depth_map"] is False


def test_data_columns_are_the_features_but_video_with_their_arrow_types(dataset: Path) -> None:
    types = {"float32": pa.float32(), "bool": pa.bool_(), "int64": pa.int64()}
    for path in dataset.glob("data/chunk-*/file-*.parquet"):
        schema = pq.read_schema(path)
        assert set(schema.names) == {name for name, (dtype, _) in FEATURES.items() if dtype != "video"}
        for name, (dtype, shape) in FEATURES.items():
            if dtype == "image":
                assert schema.field(name).type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            elif dtype != "video":
                wanted = types[dtype] if shape == [1] else pa.list_(types[dtype], shape[0])
                assert schema.field(name).type == wanted, name
        columns = pq.read_metadata(path).row_group(0)
        assert {columns.column(i).compression for i in range(columns.num_columns)} == {"SNAPPY"}


def test_the_datasets_library_is_told_how_to_show_each_column(dataset: Path) -> None:
    schema = pq.read_schema(next(iter(dataset.glob("data/chunk-*/file-*.parquet"))))
    note = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert set(note) == set(schema.names)
    assert note["observation.image"] == {"_type": "Image"}
    assert note["next.done"] == {"dtype": "bool", "_type": "Value"}
    assert note["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "Sequence"}


def test_index_frame_index_and_timestamp_count_together(dataset: Path) -> None:
    rows = read_rows(dataset)
    assert rows["index"].to_pylist() == list(range(sum(LENGTHS)))
    assert rows["episode_index"].to_pylist() == [e for e, n in enumerate(LENGTHS) for _ in range(n)]
    assert rows["frame_index"].to_pylist() == [t for n in LENGTHS for t in range(n)]
    wanted = (np.concatenate([np.arange(n) for n in LENGTHS]) / FPS).astype(np.float32)
    np.testing.assert_array_equal(rows["timestamp"].to_numpy(), wanted)


def test_the_last_row_of_an_episode_is_done_and_no_other(dataset: Path) -> None:
    rows = read_rows(dataset)
    last = np.cumsum(LENGTHS) - 1
    done = np.flatnonzero(rows["next.done"].to_numpy(zero_copy_only=False))
    truncated = np.flatnonzero(rows["next.truncated"].to_numpy(zero_copy_only=False))
    assert done.tolist() == last.tolist()
    assert truncated.tolist() == last[1::2].tolist()  # the maker truncates every second episode


def test_image_columns_hold_encoded_pictures_of_the_declared_shape(dataset: Path) -> None:
    for cell in read_rows(dataset)["observation.image"].to_pylist():
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            assert image.format == "PNG"
            assert image.mode == "RGB"
            assert image.size == (12, 8)


def test_tasks_are_indexed_by_their_words(dataset: Path) -> None:
    table = pq.read_table(dataset / "meta/tasks.parquet")
    assert table.schema.field("task_index").type == pa.int64()
    tasks = dict(zip(table["task_index"].to_pylist(), table["task"].to_pylist(), strict=True))
    assert tasks == {0: "push", 1: "", 2: "pull"}
    note = json.loads(table.schema.metadata[b"pandas"])
    assert note["index_columns"] == ["task"]
    used = dict(zip(*(read_rows(dataset)[c].to_pylist() for c in ("episode_index", "task_index")), strict=True))
    assert [tasks[used[e]] for e in range(4)] == ["push", "", "pull", "push"]


def test_episodes_say_where_their_rows_are(dataset: Path) -> None:
    episodes = read_episodes(dataset)
    assert [row["episode_index"] for row in episodes] == list(range(len(LENGTHS)))
    assert [row["length"] for row in episodes] == list(LENGTHS)
    assert [row["dataset_to_index"] for row in episodes] == np.cumsum(LENGTHS).tolist()
    assert [row["tasks"] for row in episodes] == [["push"], [""], ["pull"], ["push"]]
    for row in episodes:
        assert row["dataset_to_index"] - row["dataset_from_index"] == row["length"]
        path = f"data/chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
        stored = pq.read_table(dataset / path, columns=["index", "episode_index"])
        mine = [
            i
            for i, e in zip(*(stored[c].to_pylist() for c in stored.column_names), strict=True)
            if e == row["episode_index"]
        ]
        assert mine == list(range(row["dataset_from_index"], row["dataset_to_index"]))


def test_episodes_are_in_the_metadata_file_they_name(dataset: Path) -> None:
    for path in dataset.glob("meta/episodes/chunk-*/file-*.parquet"):
        chunk, file = int(path.parent.name[-3:]), int(path.stem[-3:])
        for row in pq.read_table(path).to_pylist():
            assert (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) == (chunk, file)


def test_metadata_columns_have_their_types(dataset: Path) -> None:
    for path in dataset.glob("meta/episodes/chunk-*/file-*.parquet"):
        schema = pq.read_schema(path)
        whole = [
            "episode_index",
            "length",
            "data/chunk_index",
            "data/file_index",
            "dataset_from_index",
            "dataset_to_index",
        ]
        whole += [f"videos/{VIDEO}/chunk_index", f"videos/{VIDEO}/file_index"]
        assert {schema.field(name).type for name in whole} == {pa.int64()}
        assert schema.field("tasks").type == pa.list_(pa.string())
        assert schema.field(f"videos/{VIDEO}/from_timestamp").type == pa.float64()
        assert schema.field(f"stats/{VIDEO}/mean").type == pa.list_(pa.list_(pa.list_(pa.float64())))
        assert schema.field("stats/action/std").type == pa.list_(pa.float64())
        assert schema.field("stats/action/count").type == pa.list_(pa.int64())


def test_video_frames_lie_at_from_timestamp_plus_timestamp(dataset: Path) -> None:
    times: dict[str, list[float]] = {}
    for row in read_episodes(dataset):
        chunk, file = row[f"videos/{VIDEO}/chunk_index"], row[f"videos/{VIDEO}/file_index"]
        path = f"videos/{VIDEO}/chunk-{chunk:03d}/file-{file:03d}.mp4"
        first = row[f"videos/{VIDEO}/from_timestamp"]
        assert row[f"videos/{VIDEO}/to_timestamp"] - first == pytest.approx(row["length"] / FPS)
        times.setdefault(path, []).extend(first + t / FPS for t in range(row["length"]))
    assert {str(p.relative_to(dataset)) for p in dataset.glob("videos/**/*.mp4")} == set(times)
    for path, wanted in times.items():
        with av.open(str(dataset / path)) as container:
            found = [float(frame.time) for frame in container.decode(video=0) if frame.time is not None]
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_statistics_cover_every_feature_with_their_shapes(dataset: Path) -> None:
    stats = json.loads((dataset / "meta/stats.json").read_text())
    assert set(stats) == set(FEATURES)
    for name, (dtype, shape) in FEATURES.items():
        assert set(stats[name]) == STATISTICS
        wanted = (3, 1, 1) if dtype in ("image", "video") else (shape[0],)
        for statistic in STATISTICS - {"count"}:
            assert np.shape(stats[name][statistic]) == wanted, (name, statistic)
        assert np.shape(stats[name]["count"]) == (1,)
    for row in read_episodes(dataset):
        assert {k for k in row if k.startswith("stats/")} == {f"stats/{n}/{s}" for n in FEATURES for s in STATISTICS}


def test_statistics_are_those_of_the_rows(dataset: Path) -> None:
    rows, stats = read_rows(dataset), json.loads((dataset / "meta/stats.json").read_text())
    for name in ("observation.state", "action", "next.reward", "index"):
        values = np.array(rows[name].to_pylist(), np.float64).reshape(sum(LENGTHS), -1)
        for statistic, wanted in (
            ("min", values.min(0)),
            ("max", values.max(0)),
            ("mean", values.mean(0)),
            ("std", values.std(0)),
        ):
            np.testing.assert_allclose(stats[name][statistic], wanted, rtol=1e-5, atol=1e-6)
        assert stats[name]["count"] == [sum(LENGTHS)]
    pixels = (
        np.stack([np.asarray(Image.open(io.BytesIO(c["bytes"]))) for c in rows["observation.image"].to_pylist()]) / 255
    )
    np.testing.assert_allclose(np.ravel(stats["observation.image"]["mean"]), pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(np.ravel(stats["observation.image"]["std"]), pixels.std((0, 1, 2)), atol=1e-6)


def test_files_are_numbered_within_chunks(dataset: Path) -> None:
    size = read_info(dataset)["chunks_size"]
    for folder in ("data", f"videos/{VIDEO}", "meta/episodes"):
        found = sorted((int(p.parent.name[-3:]), int(p.stem[-3:])) for p in (dataset / folder).glob("chunk-*/file-*"))
        assert found == [divmod(k, size) for k in range(len(found))]
