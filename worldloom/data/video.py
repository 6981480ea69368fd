"""Frames in and out of mp4 files: encode an episode, join episodes without re-encoding, decode by time.

T frames, C H W channels, height, width. Measured: at 64 x 64, 4:2:0 chroma costs 13 dB on saturated colours, so small
frames are encoded as 4:4:4 (or better, stored as PNG by the writer).
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

# Without full chroma interpolation swscale writes RGB at half the horizontal colour resolution: measured on smooth
# pictures, scaled to 64 x 64, an error of 2.0 grey levels with a bias instead of 0.5 without.
SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
Codec = Literal["h264", "av1"]
CODECS = ("h264", "av1")
NEARLY = 0.02  # rates that differ by more, such as twice the rows', are meant
SMALL = 128  # pixels; below this the chroma of 4:2:0 is too coarse


class BrokenVideo(Exception):
    """A video that cannot give the frames it was asked for. `row` is the first row without a frame, if one is known."""

    def __init__(self, reason: str, row: int | None = None):
        super().__init__(reason)
        self.row = row


def pixel_format(height: int, width: int, codec: Codec) -> str:
    """4:4:4 for small or odd-sized frames, 4:2:0 (what players expect) otherwise. SVT-AV1 knows 4:2:0 only."""
    if codec == "av1":
        return "yuv420p"
    return "yuv444p" if min(height, width) < SMALL or height % 2 or width % 2 else "yuv420p"


def encode(path: Path, frames: Iterable[np.ndarray], fps: int, codec: Codec = "h264") -> None:
    """Write uint8 `[T, C, H, W]` frames (C is 1 or 3) as one mp4. Frame t is shown at exactly t / fps seconds.

    No B-frames, so that packets are in display order and episodes can be joined by shifting times. AV1 has LeRobot's
    settings (libsvtav1, g=2, crf=30); H.264 is crf 18 with a key frame every ten, near-lossless and quick to seek.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[1:]
    options = {"g": "10", "crf": "18", "preset": "veryfast", "bf": "0"} if codec == "h264" else {"g": "2", "crf": "30"}
    if codec == "av1":
        options |= {"preset": "8"}
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it prints a page per file otherwise
    file = io.BytesIO()  # in memory, so that a full disk is an OSError of ours and not one lost inside FFmpeg
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264" if codec == "h264" else "libsvtav1", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format(height, width, codec)
        stream.time_base = Fraction(1, fps)
        for t, pixels in enumerate(chain([first], frames)):
            picture = np.broadcast_to(pixels, (3, height, width)).transpose(1, 2, 0)
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(file.getbuffer())


def signature(path: Path) -> tuple[Any, ...]:
    """What must agree between files that are joined: codec, size, pixel format and the decoder's set-up bytes."""
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        return codec.name, codec.width, codec.height, codec.pix_fmt, bytes(codec.extradata or b"")


def join(paths: Sequence[Path], lengths: Sequence[int], target: Path, fps: int) -> None:
    """Copy the packets of several mp4s into one; file i starts at `sum(lengths[:i]) / fps` seconds. No re-encoding."""
    first = 0
    with av.open(str(target), "w", format="mp4") as output:
        stream: Any = None
        for path, length in zip(paths, lengths, strict=True):
            with av.open(str(path)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(video, opaque=True)
                    stream.time_base = video.time_base
                for packet in source.demux(video):
                    if packet.pts is not None:
                        _shift(packet, Fraction(first, fps))
                        packet.stream = stream
                        output.mux_one(packet)
            first += length


def _shift(packet: Any, seconds: Fraction) -> None:
    ticks = round(seconds / packet.time_base)
    packet.pts += ticks
    packet.dts += ticks


def decode(
    path: Path, times: np.ndarray, fps: float, size: tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """The frames shown at `times` (seconds, increasing): uint8 `[T, C, H, W]`, area-averaged to `size` if given.

    One seek, then straight decoding. A row takes the nearest frame, at most half a frame away; raises `BrokenVideo`
    when there is none or the file cannot be decoded.
    """
    layout = "rgb24" if channels == 3 else "gray"
    found: list[np.ndarray] = []
    shown: list[float] = []
    scaler = VideoReformatter()  # kept for all frames: setting one up costs as much as decoding a frame
    try:
        with av.open(str(path)) as container:
            for frame in _nearest(container, times, 0.5 / fps + min(1e-4, 0.05 / fps)):
                found.append(_picture(scaler, frame, size, layout))
                shown.append(frame.time)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise BrokenVideo(f"cannot be decoded ({error})", len(found) or None) from error
    _check_drift(np.array(shown), times, fps)
    return np.stack(found)


def _check_drift(shown: np.ndarray, times: np.ndarray, fps: float) -> None:
    """Raise `BrokenVideo` when the frames follow each other at nearly the rows' rate but not at it.

    Each row then finds a frame near enough, but after a while it is the one before or after its own.
    """
    steps = np.diff(shown)
    apart = float(np.median(steps[steps > 0])) * fps if (steps > 0).any() else 1.0
    drift = abs(apart - 1) * fps * float(times[-1] - times[0])
    if abs(apart - 1) < NEARLY and drift > 0.5:
        raise BrokenVideo(
            f"has {fps / apart:.3f} frames a second where the rows have {fps:g}, so that it is {drift:.1f} frames off "
            "at the end of the episode; write it again with one frame a row"
        )


def _nearest(container: Any, times: np.ndarray, tolerance: float) -> Iterator[VideoFrame]:
    """One frame per time. One that is a tenth of a frame away is taken at once, without decoding the one after it."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    container.seek(max(0, int((times[0] - tolerance) / stream.time_base)), stream=stream, backward=True)
    row, before = 0, None
    for frame in container.decode(stream):
        if frame.time is None:  # a damaged file may have frames without a time
            continue
        while row < len(times) and frame.time >= times[row] - min(1e-3, tolerance / 5):
            near = before if before and times[row] - before.time < frame.time - times[row] else frame
            yield _checked(near, times[row], tolerance, row)
            row += 1
        if row == len(times):
            return
        before = frame
    for late in range(row, len(times)):
        yield _checked(before, times[late], tolerance, late, last=True)


def _checked(frame: VideoFrame | None, time: float, tolerance: float, row: int, last: bool = False) -> VideoFrame:
    if frame is None or frame.time is None:
        raise BrokenVideo("holds no frame", row)
    if last and frame.time < time - tolerance:
        raise BrokenVideo(f"ends at {frame.time:.4f} s, before the frame of {time:.4f} s", row)
    if abs(frame.time - time) > tolerance:
        raise BrokenVideo(f"has no frame at {time:.4f} s, the nearest is at {frame.time:.4f} s", row)
    return frame


def _picture(scaler: VideoReformatter, frame: VideoFrame, size: tuple[int, int] | None, layout: str) -> np.ndarray:
    height, width = size or (frame.height, frame.width)
    pixels = scaler.reformat(frame, width, height, layout, interpolation=SCALING).to_ndarray()
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
