"""Film strips show the frames they are given, enlarged by whole factors."""

import numpy as np

from worldloom.render.filmstrip import as_frames, difference, film_strip, picture


def frames(num: int, size: tuple[int, int, int] = (3, 64, 64), value: int = 200) -> np.ndarray:
    return np.full((num, *size), value, np.uint8)


def test_small_frames_are_enlarged_by_a_whole_factor_and_keep_their_colours():
    red = frames(2)
    red[:, 1:] = 0
    strip = film_strip([("real", red)])
    assert strip.width == 2 * (128 + 4) + 4
    assert strip.getpixel((10, 60)) == (200, 0, 0)


def test_every_keeps_each_nth_frame_and_long_rows_are_thinned():
    assert film_strip([("a", frames(10))], every=5).width == 2 * 132 + 4
    assert film_strip([("a", frames(1000))]).width <= 24 * 132 + 4


def test_rows_of_different_cameras_sizes_and_lengths_share_one_strip():
    strip = film_strip([("left", frames(4)), ("wrist", frames(3, (3, 192, 320))), ("depth", frames(4, (1, 48, 48)))])
    assert strip.width >= 4 * 128
    assert strip.height > 128 + 77 + 144


def test_a_difference_is_grey_where_nothing_differs():
    assert (difference(frames(1), frames(1)) == 128).all()
    assert difference(frames(1, value=0), frames(1, value=255)).min() == 255
    assert difference(frames(1, value=255), frames(1, value=0)).max() == 0


def test_decoded_floats_become_rounded_and_clipped_bytes():
    assert as_frames(np.array([-0.2, 0.0, 0.5, 1.0, 3.0])).tolist() == [0, 0, 128, 255, 255]


def test_odd_channel_counts_still_show():
    assert picture(frames(1, (1, 8, 8))[0]).mode == "RGB"
    assert picture(frames(1, (9, 8, 8))[0]).size == (8, 8)
