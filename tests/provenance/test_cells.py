"""Cells read numbers from files by pointer, derive them, and format them."""

import json

import pytest

from provenance import cells
from provenance.cells import DERIVATIONS, JOB, RULES, Cell, Source, in_row, shown


@pytest.fixture
def scores(tmp_path):
    """A JSON and a CSV file with names that a JSON pointer has to escape."""
    content = {"score": 14.168, "a/b": {"c~d": [[3, 4, 5], [2, 3]]}, "~1": "tilde one", "": 0}
    (tmp_path / "test.json").write_text(json.dumps(content))
    (tmp_path / "rows.csv").write_text(
        "method,k,start,score,a/b\npermute,5,0,0.500000,x\npermute,5,1,4e-05,y\ndrop,2,1,,z\n"
    )
    return tmp_path / "test.json", tmp_path / "rows.csv"


# --- where a value stands -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/score", 14.168),
        ("/a~1b/c~0d/0", [3, 4, 5]),
        ("/a~1b/c~0d/1/1", 3),
        ("/~01", "tilde one"),  # ~01 is ~1, and not a slash
        ("/", 0),
    ],
)
def test_a_json_pointer_leads_to_a_value(scores, pointer, value):
    assert Source(scores[0], pointer).value() == value


def test_an_empty_pointer_is_the_whole_file(scores):
    assert Source(scores[0]).value() == json.loads(scores[0].read_text())


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/0/method", "permute"),
        ("/0/score", 0.5),
        ("/1/score", 4e-5),
        ("/2/score", ""),
        ("/2/k", 2),
        ("/1/a~1b", "y"),
    ],
)
def test_a_csv_file_is_the_list_of_its_rows_with_numbers_as_numbers(scores, pointer, value):
    found = Source(scores[1], pointer).value()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("pointer", ["/nothing", "/score/0", "/a~1b/c~0d/2", "/a~1b/c~0d/x"])
def test_a_pointer_to_nothing_names_file_and_pointer(scores, pointer):
    with pytest.raises(ValueError, match=f"test.json: nothing is at {pointer}"):
        Source(scores[0], pointer).value()


def test_a_row_is_found_by_its_values(scores):
    assert in_row(scores[1], "score", method="permute", start=1) == Source(scores[1], "/1/score")


@pytest.mark.parametrize(("where", "n"), [({"k": 5}, 2), ({"k": "5"}, 0), ({"other": 1}, 0)])
def test_values_of_no_row_or_of_several_are_refused(scores, where, n):
    with pytest.raises(ValueError, match=f"rows.csv: {n} rows have"):
        in_row(scores[1], "score", **where)


# --- what becomes of it ---------------------------------------------------------------------------

DERIVED = {
    "value": ([7], 7),
    "values": ([7, 8], [7, 8]),
    "difference": ([7, 9.5], -2.5),
    "ratio": ([3, 4], 0.75),
    "percent": ([3, 4], 75.0),
    "reduction_percent": ([600, 800], 25.0),
    "mean": ([1, 2, 6], 3.0),
    "sum": ([6, 6], 12),
    "count": ([6, 6], 2),
    "entries": ([{"0": "cat", "1": "dog"}], 2),
    "common": ([4, 4], 4),
}


def test_every_derivation_has_an_example():
    assert DERIVED.keys() == DERIVATIONS.keys()


@pytest.mark.parametrize("derivation", DERIVED)
def test_a_number_is_derived_from_its_sources_in_their_order(tmp_path, derivation):
    values, expected = DERIVED[derivation]
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    sources = tuple(Source(file, f"/{n}") for n in range(len(values)))
    assert Cell(sources, derivation=derivation).raw == pytest.approx(expected)


def test_values_that_differ_have_nothing_in_common():
    with pytest.raises(ValueError, match="4 is not what all have"):
        DERIVATIONS["common"]([4, 5])


def test_what_only_a_job_can_compute_is_what_it_computed(scores):
    cell = Cell((Source(scores[0]),), "{:.1f}", JOB, computed=0.25)
    assert (cell.raw, str(cell)) == (0.25, "0.2")


SHOWN = [
    (14.168, "{:.2f}", "14.17"),
    (14.168, "{:.1f} %", "14.2 %"),
    (-0.001, "{:+z.2f} PPL", "+0.00 PPL"),
    ([4, 12], "{}/{}", "4/12"),
    (224, "{0}x{0}", "224x224"),
    ("cosine", "{}", "cosine"),
    ([[3, 4, 5]], "window", "3-5"),
    ([[2, 3], [2, 3]], "window", "2-3/2-3"),
    ([3, 5], "span", "3-7"),
    ({"encoder": [[0, 1, 2], [4, 6]], "decoder": [[1, 2]]}, "groups", "0-2, 4+6/1-2"),
    ({"encoder": [], "decoder": [[3, 5]]}, "groups", "/3+5"),
    ([5e-5, 5e-5], "counted", "5e-05"),
    ([2, 4, 2], "counted", "2 (2 of 3), 4 (1 of 3)"),
    (["fp16"], "counted of 1", "fp16"),
    ([80], "counted of 3", "80 (1 of 3)"),
]


def test_every_rule_has_an_example():
    assert {rule.partition(" of ")[0] for _, rule, _ in SHOWN if "{" not in rule} == RULES.keys()


@pytest.mark.parametrize(("raw", "rule", "text"), SHOWN)
def test_a_number_is_shown_by_its_rule(raw, rule, text):
    assert shown(raw, rule) == text


def test_an_unknown_rule_is_refused():
    with pytest.raises(KeyError, match="rounded"):
        shown(1.5, "rounded")


def test_a_cell_is_shown_as_it_stands_in_the_file(scores):
    assert str(cells.of(scores[0], "/score", "{:.2f}")) == "14.17"
    assert cells.of(scores[0], "/score").raw == 14.168
