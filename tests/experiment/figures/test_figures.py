"""Figures show the measured numbers, and the same data give the same bytes."""

import csv
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from experiment.figures import figure1, figure4, figures_2_3, figures_5_6, style
from experiment.figures.figure1 import Window
from ffmerge.method.heat_map import COLOURS
from provenance.cells import JOB, Cell


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    pyplot.close("all")


@pytest.fixture
def saved(tmp_path, job_with) -> Callable[..., tuple[bytes, bytes, bytes]]:
    """saved(draw, points, inputs): the bytes of a figure's PDF, PNG and ledger."""

    def made(draw: Callable, points: list[dict], inputs=()) -> tuple[bytes, bytes, bytes]:
        names = {"pdf": "figure.pdf", "png": "figure.png", "ledger": "figure.ledger.json"}
        job = job_with(tmp_path / "figures", inputs, **names)
        style.save(draw(points), job, points)
        return tuple(file.read_bytes() for file in vars(job.output).values())

    return made


def texts(figure: Figure) -> list:
    """All visible texts of a figure."""
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


def points_of(windows: list[Window]) -> list[dict]:
    """The points of Figure 1 for some windows."""

    def number(computed) -> Cell:
        return Cell((), derivation=JOB, computed=computed)

    return [
        {
            "panel": w.title,
            "first layer": number(w.start),
            "merged layers": number([list(range(w.start, w.start + w.k))]),
            "anchor": number(w.anchor),
            "layers": number(w.n_layers),
        }
        for w in windows
    ]


def drawn(windows: list[Window]) -> Figure:
    return figure1.draw(points_of(windows))


by_title = pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w.title}-{w.start}")


def layer_at(window: Window, y: float) -> int:
    """The layer whose row holds a height, in inches above the bottom of layer 0."""
    return next(n for n in range(window.n_layers) if window.bottom(n) <= y < window.bottom(n + 1))


def rows_of_panel(window: Window) -> dict[str, list[int]]:
    """Each text of a window's panel -> the layers whose rows have it."""
    figure = drawn([window])
    # the panel's texts stand above the legend and the footer that follow below it
    bottom = figure.axes[0].get_ylim()[1] - figure1.HEADER - window.bottom(window.n_layers)
    found: dict[str, list[int]] = {}
    for text in figure.axes[0].texts:
        y = text.get_position()[1] - bottom
        if 0 <= y < window.bottom(window.n_layers):
            found.setdefault(text.get_text(), []).append(layer_at(window, y))
    return found


@by_title
def test_a_layer_s_number_is_on_both_sides_of_its_row(window):
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
def test_every_merged_layer_has_weights_and_all_but_the_anchor_have_a_permutation(window):
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
    written = [text.get_text() for text in texts(drawn([window]))]
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
def test_all_texts_are_within_the_page(n):
    figure = drawn(WINDOWS[:n])
    figure.tight_layout()  # as when it is saved
    figure.canvas.draw()
    page = figure.bbox
    for text in texts(figure):
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()


def test_figure_1_has_the_same_bytes_when_it_is_drawn_again(saved):
    windows = WINDOWS[3:]
    first, second = (saved(figure1.draw, points_of(windows)) for _ in (1, 2))
    assert first == second
    other = [windows[0], Window("pico", n_layers=4, start=1, k=2, anchor=2)]
    assert saved(figure1.draw, points_of(other))[1] != first[1]


def test_figure_1_shows_the_selected_window_of_every_tower(tmp_path):
    architecture = {"model_type": "marian", "encoder_layers": 6, "decoder_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(architecture))
    (tmp_path / "selection.json").write_text(json.dumps({"3": {"best": 2}, "4": {"best": 0}}))
    task = {"label": "OPUS-MT", "k": 3, "anchor": "middle"}
    points = figure1.points({"marian": task}, [tmp_path], [tmp_path / "selection.json"])
    assert [[str(value) for value in point.values()] for point in points] == [
        [f"OPUS-MT {tower}", "2", "2-4", "3", "6", "4"] for tower in ("encoder", "decoder")
    ]
    assert points[0]["first layer"].sources[0].pointer == "/3/best"
    said = [text.get_text() for text in texts(figure1.draw(points))]
    assert said.count("layers 2-4 share one FF sublayer: 4 of 6 stored") == 2


# --- Figures 2 and 3 ------------------------------------------------------------------------------


@pytest.fixture
def tested(result) -> Callable[..., list[dict]]:
    """tested(task, base): the points of a task, the most compressed models first."""

    def made(task: str = "gpt2", base: str = "base") -> list[dict]:
        wide = {"n_parameters": 700, "from_base_low": 17.25, "from_base_high": 19.25}
        results = [
            result("permute-k7-first-best", 18.0, task, **wide),
            result("permute-k5-first-best", 16.0, task, n_parameters=800),
            result("vanilla-k5-first-best", 17.0, task, n_parameters=800),
            result(base, 14.0, task),
            result("drop-k4-best", 25.0, task, n_parameters=695),
        ]
        return figures_2_3.points(results)

    return made


def test_a_panel_has_the_uncompressed_model_s_score_and_each_method_by_compression(tested):
    (axis,) = figures_2_3.draw(tested()).axes
    handles, labels = axis.get_legend_handles_labels()
    assert sorted(labels) == ["Layer Drop", "Permute FF Merge", "Uncompressed", "Vanilla FF Merge"]
    drawn = dict(zip(labels, handles, strict=True))
    assert set(drawn["Uncompressed"].get_ydata()) == {14.0}
    points = {
        label: drawn[label].lines[0].get_xydata().round(9).tolist()
        for label in labels
        if label != "Uncompressed"
    }
    assert points == {
        "Permute FF Merge": [[20.0, 16.0], [30.0, 18.0]],
        "Vanilla FF Merge": [[20.0, 17.0]],
        "Layer Drop": [[30.5, 25.0]],
    }
    bars = drawn["Permute FF Merge"].lines[2][0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [
        [15.5, 16.5],
        [17.25, 19.25],
    ]  # of the difference, paired
    assert axis.get_title() == "GPT-2"
    assert axis.get_ylabel() == "test perplexity ↓"
    assert axis.get_xlim()[0] == 0


@pytest.mark.parametrize(
    ("task", "label"), [("vit", "test top-1 accuracy (%) ↑"), ("marian", "test BLEU ↑")]
)
def test_an_axis_says_which_way_is_better(task, label, tested):
    assert figures_2_3.draw(tested(task)).axes[0].get_ylabel() == label


def test_every_model_has_a_panel_with_its_points(tested):
    figure = figures_2_3.draw([*tested(), *tested("vit")])
    assert [axis.get_title() for axis in figure.axes] == ["GPT-2", "ViT"]
    assert len({len(axis.lines) for axis in figure.axes}) == 1


def test_methods_differ_without_colour():
    styles = [(m["marker"], m["linestyle"]) for m in style.METHOD_STYLES.values()]
    assert len({marker for marker, _ in styles}) == len({line for _, line in styles}) == 3
    assert figures_2_3.BASE["linestyle"] not in {line for _, line in styles}


def test_scores_have_the_same_bytes_when_they_are_drawn_again(tested, saved):
    points = tested()
    inputs = {
        source.file
        for p in points
        for c in p.values()
        if isinstance(c, Cell)
        for source in c.sources
    }
    assert saved(figures_2_3.draw, points, inputs) == saved(figures_2_3.draw, points, inputs)


# --- Figure 4 -------------------------------------------------------------------------------------

UNTUNED = """method,k,start,score,loss
permute,5,1,40.5,3.75
permute,5,0,90.25,4.5
permute,7,0,999,9
vanilla,5,0,95.5,4.75
vanilla,5,1,60.5,4.25
"""


@pytest.mark.parametrize(
    ("kind", "label", "permuted", "shown"),
    [
        ("language_modeling", "validation loss (nats) ↓", [4.5, 3.75], "4.500"),
        ("image_classification", "validation top-1 accuracy (%) ↑", [90.25, 40.5], "90.2"),
        ("translation", "validation BLEU ↑", [90.25, 40.5], "90.2"),
    ],
)
def test_every_window_of_the_ratio_is_a_point_by_its_start(tmp_path, kind, label, permuted, shown):
    (tmp_path / "windows.csv").write_text(UNTUNED)
    tasks = {"a": {"kind": kind, "label": "A", "k": 5}}
    points = figure4.points(tasks, [tmp_path / "windows.csv"])
    assert [str(point[figure4.WINDOW]) for point in points] == ["0-4", "0-4", "1-5", "1-5"]
    assert str(points[0][figure4.SCORE]) == shown
    (axis,) = figure4.draw(points).axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert curves.keys() == {"Permute FF Merge", "Vanilla FF Merge"}
    assert curves["Permute FF Merge"] == [[0, permuted[0]], [1, permuted[1]]]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0-4", "1-5"]
    assert (axis.get_title(), axis.get_ylabel()) == ("A", label)


# --- Figures 5 and 6 ------------------------------------------------------------------------------

TASKS = {"gpt2": {"label": "GPT-2"}, "marian": {"label": "OPUS-MT"}}
SIZES = {"gpt2": {"decoder": 13}, "marian": {"encoder": 4, "decoder": 6}}
TITLES = ["GPT-2", "OPUS-MT encoder", "OPUS-MT decoder"]


@pytest.fixture
def cka(tmp_path) -> tuple[list[Path], dict[tuple[str, str], np.ndarray]]:
    """cka.csv of each task with shuffled rows, and (title, sublayer) -> similarities."""
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
    """Title of each heat map -> its axis and its cells."""
    found = {}
    for axis in figure.axes:
        meshes = [m for m in axis.collections if isinstance(m, QuadMesh)]
        if axis.texts and meshes:
            found[axis.texts[0].get_text()] = axis, meshes[0]
    return found


@pytest.mark.parametrize("shown", ["feed_forward", "attention"])
def test_a_heat_map_shows_its_tower_s_similarities_layer_0_at_the_top_left(shown, cka):
    files, matrices = cka
    drawn = panels(figures_5_6.draw(figures_5_6.points(files, TASKS, shown)))
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
        for _, mesh in panels(figures_5_6.draw(figures_5_6.points(files, TASKS, shown))).values()
    ]
    assert len(meshes) == 2 * len(TITLES)
    assert {(mesh.norm.vmin, mesh.norm.vmax, mesh.get_cmap().name) for mesh in meshes} == {
        (0, 1, COLOURS)
    }
    lightness = [sum(mesh.get_cmap()(x)[:3]) for mesh in meshes[:1] for x in np.linspace(0, 1, 20)]
    assert all(a < b for a, b in pairwise(lightness))


def test_the_numbers_beside_a_heat_map_are_those_of_its_layers(cka):
    files, matrices = cka
    for title, (axis, _) in panels(
        figures_5_6.draw(figures_5_6.points(files, TASKS, "attention"))
    ).items():
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
    for title, (axis, _) in panels(
        figures_5_6.draw(figures_5_6.points(files, TASKS, shown))
    ).items():
        means = []
        for sublayer in (shown, other):
            m = matrices[title, sublayer]
            means.append((m.sum() - len(m)) / (len(m) * (len(m) - 1)))
        assert axis.get_title() == said.format(*means)


def test_heat_maps_have_the_same_bytes_when_they_are_drawn_again(cka, saved):
    files, _ = cka

    def drawn(shown: str) -> tuple[bytes, bytes, bytes]:
        return saved(figures_5_6.draw, figures_5_6.points(files, TASKS, shown), files)

    assert drawn("feed_forward") == drawn("feed_forward")
    assert drawn("attention") == drawn("attention") != drawn("feed_forward")


def test_every_cell_of_a_heat_map_and_both_means_are_points_with_their_sources(cka):
    files, matrices = cka
    points = figures_5_6.points(files, TASKS, "attention")
    n = len(matrices["OPUS-MT encoder", "attention"])
    of_panel = [point for point in points if point["panel"] == "OPUS-MT encoder"]
    *pairs, mean, other_mean = of_panel
    assert [point["layers"] for point in pairs] == [f"{i}, {j}" for i in range(n) for j in range(n)]
    assert {len(point[figures_5_6.CKA].sources) for point in pairs} == {1}
    assert (
        len(mean[figures_5_6.CKA].sources)
        == len(other_mean[figures_5_6.CKA].sources)
        == n * (n - 1)
    )
    assert (mean["sublayer"], other_mean["sublayer"]) == ("attention sublayer", "FF sublayer")
