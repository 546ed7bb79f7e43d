"""Figures: what is drawn is what was measured, and the same data give the same bytes."""

import csv
import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas
import pytest
from matplotlib import pyplot
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from test_tables import result

from ffmerge.figures import heat_maps, look, overview
from ffmerge.figures.overview_panel import Window
from ffmerge.tables.results import write_results


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    pyplot.close("all")


def saved(figure: Figure, directory: Path) -> tuple[bytes, bytes]:
    """The bytes of a figure as PDF and as PNG."""
    directory.mkdir()
    files = directory / "figure.pdf", directory / "figure.png"
    look.save(figure, *files)
    return tuple(file.read_bytes() for file in files)


def texts(figure: Figure) -> list:
    """All that is written in a figure."""
    return [t for t in figure.findobj(pyplot.Text) if t.get_text() and t.get_visible()]


def test_figures_are_drawn_without_a_display():
    assert matplotlib.get_backend().lower() == "agg"


# --- Figure 1 -------------------------------------------------------------------------------------

WINDOWS = [
    Window("GPT-2", n_layers=36, start=22, k=13, anchor=22),
    Window("ViT", n_layers=12, start=3, k=5, anchor=5),
    Window("OPUS-MT encoder", n_layers=6, start=2, k=3, anchor=4),
    Window("pico", n_layers=4, start=0, k=4, anchor=0),  # nothing is left outside
    Window("pico", n_layers=4, start=2, k=2, anchor=2),
]
by_title = pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w.title}-{w.start}")


def layer_at(window: Window, y: float) -> int:
    """The layer whose part of a panel holds a height, in inches from the bottom of layer 0."""
    return next(n for n in range(window.n_layers) if window.bottom(n) <= y < window.bottom(n + 1))


def rows_of_panel(window: Window) -> dict[str, list[int]]:
    """Each text of a window's own panel -> the layers in whose rows it stands."""
    figure = overview.draw([window])
    # the panel's texts stand above the legend and the footer that follow below it
    bottom = figure.axes[0].get_ylim()[1] - overview.HEADER - window.bottom(window.n_layers)
    found: dict[str, list[int]] = {}
    for text in figure.axes[0].texts:
        y = text.get_position()[1] - bottom
        if 0 <= y < window.bottom(window.n_layers):
            found.setdefault(text.get_text(), []).append(layer_at(window, y))
    return found


@by_title
def test_a_layer_s_number_stands_on_either_side_of_its_own_row(window):
    rows = rows_of_panel(window)
    numbers = {int(text): layers for text, layers in rows.items() if text.isdigit()}
    assert all(layers == [number, number] for number, layers in numbers.items())
    merged = set(range(window.start, window.start + window.k))
    assert merged <= numbers.keys()
    ends = {0, window.start - 1, window.start + window.k, window.n_layers - 1}
    assert ends & set(range(window.n_layers)) <= numbers.keys()
    if window.n_layers <= 12:
        assert numbers.keys() == set(range(window.n_layers))


@by_title
def test_every_merged_layer_has_its_weights_and_all_but_the_anchor_their_permutation(window):
    rows = rows_of_panel(window)
    merged = list(range(window.start, window.start + window.k))
    for side in ("in", "out"):
        weights = re.compile(rf"\$W\^\{{\\rm {side}\}}_\{{(\d+)\}}\$")
        drawn = {int(weights.match(t)[1]): at for t, at in rows.items() if weights.match(t)}
        assert drawn == {layer: [layer] for layer in merged}
    permuted = {
        int(found[1]): at for t, at in rows.items() if (found := re.match(r"\$P_\{(\d+)\}", t))
    }
    assert permuted == {layer: [layer] for layer in merged if layer != window.anchor}
    assert rows["anchor"] == [window.anchor]
    assert rows["$W^*$"] == merged


@by_title
def test_the_heading_says_which_layers_share_and_how_many_are_stored(window):
    last, stored = window.start + window.k - 1, window.n_layers - window.k + 1
    said = (
        f"layers {window.start}-{last} share one FF sublayer: {stored} of {window.n_layers} stored"
    )
    written = [text.get_text() for text in texts(overview.draw([window]))]
    assert said in written
    assert window.title in written
    assert rf"$\Sigma/{window.k}$" in written


def test_rows_of_a_panel_follow_each_other_and_those_of_the_window_are_the_largest():
    for window in WINDOWS:
        heights = [b - a for a, b in pairwise(map(window.bottom, range(window.n_layers + 1)))]
        inside = [h for layer, h in enumerate(heights) if layer in window]
        outside = [h for layer, h in enumerate(heights) if layer not in window]
        assert len(inside) == window.k
        assert min(heights) > 0
        assert min(inside) > max(outside, default=0)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_all_that_is_written_is_within_the_page(n):
    figure = overview.draw(WINDOWS[:n])
    figure.tight_layout()  # as when it is saved
    figure.canvas.draw()
    page = figure.bbox
    for text in texts(figure):
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()


def test_figure_1_has_the_same_bytes_when_it_is_drawn_again(tmp_path):
    windows = WINDOWS[3:]
    first, second = (saved(overview.draw(windows), tmp_path / str(n)) for n in (1, 2))
    assert first == second
    other = [windows[0], Window("pico", n_layers=4, start=1, k=2, anchor=2)]
    assert saved(overview.draw(other), tmp_path / "other") != first


# --- Figures 2 and 3 ------------------------------------------------------------------------------


def table(directory: Path, task: str = "gpt2", base: str = "base") -> pandas.DataFrame:
    """Results of one task, as a tidy table has them; the most compressed models first."""
    results = [
        result("permute-k7-first-best", 18.0, task, reduction_percent=30.0, low=17.5, high=19.5),
        result("permute-k5-first-best", 16.0, task, reduction_percent=20.0),
        result("vanilla-k5-first-best", 17.0, task, reduction_percent=20.0),
        result(base, 14.0, task),
        result("drop-k4-best", 25.0, task, reduction_percent=30.5),
    ]
    write_results(results, directory / "tidy.csv")
    return pandas.read_csv(directory / "tidy.csv")


def test_a_panel_has_the_uncompressed_model_s_score_and_each_method_by_compression(tmp_path):
    _, (axis,) = look.panels(1)
    look.scores_by_reduction(axis, table(tmp_path))
    handles, labels = axis.get_legend_handles_labels()
    assert sorted(labels) == ["Layer Drop", "Permute FF Merge", "Uncompressed", "Vanilla FF Merge"]
    drawn = dict(zip(labels, handles, strict=True))
    assert set(drawn["Uncompressed"].get_ydata()) == {14.0}
    points = {
        label: drawn[label].lines[0].get_xydata().tolist()
        for label in labels
        if label != "Uncompressed"
    }
    assert points == {
        "Permute FF Merge": [[20.0, 16.0], [30.0, 18.0]],
        "Vanilla FF Merge": [[20.0, 17.0]],
        "Layer Drop": [[30.5, 25.0]],
    }
    bars = drawn["Permute FF Merge"].lines[2][0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [[15.0, 17.0], [17.5, 19.5]]
    assert axis.get_title() == "GPT-2"
    assert axis.get_ylabel() == "test perplexity ↓"
    assert axis.get_xlim()[0] == 0


@pytest.mark.parametrize(
    ("task", "label"), [("vit", "test top-1 accuracy (%) ↑"), ("marian", "test BLEU ↑")]
)
def test_an_axis_says_which_way_is_better(task, label, tmp_path):
    _, (axis,) = look.panels(1)
    look.scores_by_reduction(axis, table(tmp_path, task))
    assert axis.get_ylabel() == label


def test_methods_are_told_apart_without_colour():
    styles = [(m["marker"], m["linestyle"]) for m in look.METHODS.values()]
    assert len({marker for marker, _ in styles}) == len({line for _, line in styles}) == 3
    assert look.BASE["linestyle"] not in {line for _, line in styles}


def test_scores_have_the_same_bytes_when_they_are_drawn_again(tmp_path):
    def drawn(name: str) -> tuple[bytes, bytes]:
        figure, axes = look.panels(2)
        for axis in axes:
            look.scores_by_reduction(axis, table(tmp_path))
        axes[0].legend(frameon=False)
        return saved(figure, tmp_path / name)

    assert drawn("1") == drawn("2")


# --- Figures 5 and 6 ------------------------------------------------------------------------------

TASKS = {"gpt2": {"label": "GPT-2"}, "marian": {"label": "OPUS-MT"}}
SIZES = {"gpt2": {"decoder": 13}, "marian": {"encoder": 4, "decoder": 6}}
TITLES = ["GPT-2", "OPUS-MT encoder", "OPUS-MT decoder"]


@pytest.fixture
def cka(tmp_path) -> tuple[list[Path], dict[tuple[str, str], np.ndarray]]:
    """cka.csv of each task, its rows in no order -> and title, sublayer -> similarities."""
    generator, files, matrices = np.random.default_rng(0), [], {}
    for task, sizes in SIZES.items():
        rows = []
        for tower, n in sizes.items():
            title = TASKS[task]["label"] + (f" {tower}" if len(sizes) > 1 else "")
            for sublayer in ("attention", "feed_forward"):
                half = generator.uniform(0.2, 0.7, size=(n, n))
                similarities = (half + half.T) / 2
                np.fill_diagonal(similarities, 1)
                matrices[title, sublayer] = similarities
                order = [(i, j) for i in range(n) for j in range(n)]
                rows += [[tower, sublayer, i, j, similarities[i, j]] for i, j in order]
        first, *rest = rows
        generator.shuffle(rest)
        files.append(tmp_path / f"{task}.csv")
        with files[-1].open("w", newline="") as file:
            csv.writer(file).writerows([["tower", "sublayer", "i", "j", "cka"], first, *rest])
    return files, matrices


def panels(figure: Figure) -> dict[str, tuple]:
    """Title of each heat map -> its axis and its cells; the colour bar is not one."""
    found = {}
    for axis in figure.axes:
        meshes = [m for m in axis.collections if isinstance(m, QuadMesh)]
        if axis.texts and meshes:
            found[axis.texts[0].get_text()] = axis, meshes[0]
    return found


@pytest.mark.parametrize("shown", ["feed_forward", "attention"])
def test_a_heat_map_shows_its_tower_s_similarities_layer_0_at_the_top_left(shown, cka):
    files, matrices = cka
    drawn = panels(heat_maps.draw(files, TASKS, shown))
    assert sorted(drawn) == sorted(TITLES)
    for title, (axis, mesh) in drawn.items():
        expected = matrices[title, shown]
        np.testing.assert_allclose(mesh.get_array().reshape(expected.shape), expected)
        bottom, top = axis.get_ylim()
        assert bottom > top  # row 0 is at the top
        assert axis.get_xlim()[0] < axis.get_xlim()[1]


def test_both_figures_have_one_scale_of_colour_from_0_to_1(cka):
    files, _ = cka
    meshes = [
        mesh
        for shown in ("feed_forward", "attention")
        for _, mesh in panels(heat_maps.draw(files, TASKS, shown)).values()
    ]
    assert len(meshes) == 2 * len(TITLES)
    assert {(mesh.norm.vmin, mesh.norm.vmax, mesh.get_cmap().name) for mesh in meshes} == {
        (0, 1, heat_maps.COLOURS)
    }
    lightness = [sum(mesh.get_cmap()(x)[:3]) for mesh in meshes[:1] for x in np.linspace(0, 1, 20)]
    assert all(a < b for a, b in pairwise(lightness))


def test_the_numbers_beside_a_heat_map_are_those_of_its_layers(cka):
    files, matrices = cka
    for title, (axis, _) in panels(heat_maps.draw(files, TASKS, "attention")).items():
        n = len(matrices[title, "attention"])
        for one in (axis.xaxis, axis.yaxis):
            labels = [int(label.get_text()) for label in one.get_ticklabels()]
            assert [place - 0.5 for place in one.get_ticklocs()] == labels  # a cell's middle
            assert labels == sorted(set(labels)) and set(labels) <= set(range(n))
            assert labels[0] == 0
            assert len(labels) == n if n <= 6 else 4 <= len(labels) <= 6


@pytest.mark.parametrize(
    ("shown", "other", "said"),
    [
        ("feed_forward", "attention", "mean off-diagonal {:.2f} (attention {:.2f})"),
        ("attention", "feed_forward", "mean off-diagonal {:.2f} (FF {:.2f})"),
    ],
)
def test_a_heat_map_says_the_mean_of_different_layers_for_both_sublayers(shown, other, said, cka):
    files, matrices = cka
    for title, (axis, _) in panels(heat_maps.draw(files, TASKS, shown)).items():
        means = []
        for sublayer in (shown, other):
            m = matrices[title, sublayer]
            means.append((m.sum() - len(m)) / (len(m) * (len(m) - 1)))
        assert axis.get_title() == said.format(*means)


def test_heat_maps_have_the_same_bytes_when_they_are_drawn_again(cka, tmp_path):
    files, _ = cka

    def drawn(name: str, shown: str) -> tuple[bytes, bytes]:
        return saved(heat_maps.draw(files, TASKS, shown), tmp_path / name)

    assert drawn("1", "feed_forward") == drawn("2", "feed_forward")
    assert drawn("3", "attention") == drawn("4", "attention") != drawn("5", "feed_forward")
