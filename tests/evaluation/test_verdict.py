"""The sentences say what the figures say, and plots put points where they belong."""

import re

import numpy as np
import pytest

from worldloom.evaluation.verdict import verdict
from worldloom.evaluation.wording import Sentence, number, split_key
from worldloom.render.plots import Dot, Line, line_plot, nice_ticks, scatter_plot
from worldloom.stats.bootstrap import Figure


def sentence(metrics: dict[str, dict[str, Figure]], containing: str) -> Sentence:
    found = verdict(metrics, ["image"], (1, 5, 15), fps=10)
    return next(s for s in found if containing in s.words)


def test_a_useful_horizon_is_told_in_steps_and_seconds():
    metrics = {
        "useful_horizon": {"image": Figure(15, 10, 15)},
        "skill": {f"image@{k}": Figure(0.4, 0.3, 0.5) for k in (1, 5, 15)},
    }
    told = sentence(metrics, "useful up to")
    assert told.mark == "yes"
    assert "at least 15 steps ahead (1.5 s, with 95 % confidence 10)" in told.words


@pytest.mark.parametrize(
    ("mean", "mark", "words"),
    [
        ({1: 0.1, 5: 0.2, 15: 0.3}, "yes", None),
        ({1: 0.1, 5: 0.2, 15: 0.45}, "partly", "as close is the mean of the training data at 15 steps"),
        ({1: 0.4, 5: 0.5, 15: 0.45}, "no", "as close is the mean of the training data at 1, 5 and 15 steps"),
    ],
)
def test_what_a_baseline_does_as_well_is_not_trusted(mean: dict[int, float], mark: str, words: str | None):
    metrics = {
        "useful_horizon": {"image": Figure(15, 10, 15)},
        "skill": {f"image@{k}": Figure(0.4, 0.3, 0.5) for k in (1, 5, 15)},
    }
    baselines = {"mean": {"skill": {f"image@{k}": Figure(value) for k, value in mean.items()}}}
    told = verdict(metrics, ["image"], (1, 5, 15), 10, baselines=baselines)[0]
    assert told.mark == mark
    assert words is None or words in told.words


def test_losing_the_first_step_but_winning_later_is_told_as_such():
    skill = {"image@1": Figure(-1, -2, -0.5), "image@5": Figure(0.3, 0.1, 0.4), "image@15": Figure(0.4, -0.1, 0.5)}
    told = sentence({"useful_horizon": {"image": Figure(0, 0, 0)}, "skill": skill}, "nothing changes")
    assert told.mark == "partly"
    assert "better at 5 steps (skill 0.30 [0.10, 0.40])" in told.words


def test_hardly_listening_is_not_listening():
    told = sentence({"controllability": {"image@5": Figure(0.05, 0.02, 0.1)}}, "listens")
    assert (told.mark, "hardly listens to its actions (0.2 dB would count)" in told.words) == ("partly", True)
    told = sentence({"controllability": {"image@5": Figure(0.5, 0.3, 0.7)}}, "listens")
    assert told.mark == "yes"


def test_a_deaf_model_is_called_one_and_one_episode_decides_nothing():
    deaf = sentence({"controllability": {"image@5": Figure(0.01, -0.1, 0.1)}}, "listens")
    assert (deaf.mark, "no evidence" in deaf.words) == ("no", True)
    alone = sentence({"controllability": {"image@5": Figure(3.0)}}, "listens")
    assert (alone.mark, "cannot show" in alone.words) == ("partly", True)


def test_ends_that_are_ranked_well_but_foretold_too_often_are_not_to_be_trusted():
    seen = {"tracked": Figure(0.95, 0.9, 1.0), "open_loop@15": Figure(0.9, 0.8, 1.0)}
    error = {"tracked": Figure(0.31, 0.24, 0.37), "open_loop@15": Figure(0.01, 0.0, 0.02)}
    told = sentence({"terminated_auroc": seen, "terminated_ece": error}, "ends")
    assert told.mark == "partly"
    assert "off by 0.31 [0.24, 0.37] when tracked: dreams" in told.words
    calibrated = {"tracked": Figure(0.01, 0.0, 0.02)}
    assert sentence({"terminated_auroc": seen, "terminated_ece": calibrated}, "ends").mark == "yes"


def test_what_was_not_measured_says_why():
    told = sentence({"terminated_auroc": {"tracked": Figure.missing("the model has no terminated head")}}, "ends")
    assert told.mark == "open"
    assert "no terminated head" in told.words


@pytest.mark.parametrize(
    ("value", "text"), [(None, "\u2013"), (-0.001, "0.00"), (-1.5, "\u22121.50"), (12345.6, "12 346"), (0.125, "0.12")]
)
def test_numbers_are_written_as_people_write_them(value: float | None, text: str):
    assert number(value) == text


def test_keys_carry_their_step_at_the_end():
    assert split_key("state.x@15") == ("state.x", 15)
    assert split_key("image") == ("image", None)
    assert split_key("a@b") == ("a@b", None)


def test_ticks_are_round_and_inside():
    assert nice_ticks(0, 50) == [0, 10, 20, 30, 40, 50]
    assert nice_ticks(-0.21, 1.02) == [0, 0.25, 0.5, 0.75, 1]
    assert all(-3 <= tick <= 4 for tick in nice_ticks(-3, 4))


def test_a_line_is_interrupted_where_a_value_is_missing_and_described_in_words():
    line = Line("this model", "model", [1, 2, 3, 4], np.array([1.0, 2.0, np.nan, 4.0]))
    svg = line_plot([line], "Skill", "steps", "")
    path = re.search(r'class="line model" d="([^"]*)"', svg)
    assert path is not None
    assert path[1].count("M") == 2
    assert "this model goes from 1 at 1 to 4 at 4" in svg
    assert "nan" not in svg


def test_a_scatter_plot_shows_every_dot_with_the_error_bars_it_has_and_its_diagonal():
    svg = scatter_plot([Dot("a", 1, 2, (0, 3), (1, 4)), Dot("b", 2, 1)], "Returns", "in reality", "in the dream")
    assert svg.count('<circle class="dot model"') == 2
    assert svg.count('<line class="bar"') == 2
    assert svg.count('<line class="zero"') == 1
    assert "Returns: a at 1, 2; b at 2, 1." in svg


@pytest.mark.parametrize("value", [0.0, 5.0, -1e6])
def test_dots_that_all_lie_in_one_place_are_still_drawn(value: float):
    svg = scatter_plot([Dot("<i>", value, value)] * 2, "Returns", "x", "y")
    assert "nan" not in svg
    assert "<i>" not in svg.split("</svg>")[0]


def test_names_in_data_cannot_break_the_page():
    svg = line_plot([Line("<b>&", "model", [0, 1], [0, 1])], '"><script>', "x", "y")
    assert "<script>" not in svg
    assert "<b>&<" not in svg
