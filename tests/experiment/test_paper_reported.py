"""The data in config/paper_reported/ are complete; docs/discrepancies.md names what exists."""

import csv
import math
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from experiment.config.run import validated

REPOSITORY = Path(__file__).parents[2]
FILES = REPOSITORY / "config" / "paper_reported"
PAPER = validated(
    yaml.safe_load((REPOSITORY / "config" / "paper.yaml").read_text(encoding="utf-8"))
)
HEADERS = {
    "scores": "table,task,method,ratio,anchor,window,int8,quantity,value,unit",
    "hyperparameters": "table,task,name,value,printed_name,printed_value",
    "text": "section,task,quantity,value,unit,note",
    "models": "task,kind,repository,n_layers,d_model,d_ff,n_parameters,ff_parameters,"
    "layer_parameters",
    "tolerances": "name,unit,printed,tolerance,source",
}
COLUMNS = {name: header.split(",") for name, header in HEADERS.items()}
# leading columns that are a key
KEYS = {"scores": 8, "hyperparameters": 3, "text": 3, "models": 1, "tolerances": 2}
TASKS = {"gpt2", "vit", "marian"}
ALLOWED = {
    "table": {"2", "3", "4", "5"},
    "task": TASKS,
    "method": {"base", "permute", "vanilla"},
    "ratio": {"", "third", "half", "all"},
    "anchor": {"", "first", "middle", "last"},
    "window": {"", "best", "random1", "random2", "random3"},
    "int8": {"no", "yes"},
    "quantity": {"score", "merged_indices", "ffs_removed", "storage_percent"},
}
UNITS = {"gpt2": "perplexity", "vit": "%", "marian": "BLEU"}
FORMS = {
    "score": r"\d+\.\d\d?",
    "merged_indices": r"\d+-\d+(/\d+-\d+)?",
    "ffs_removed": r"\d+/\d+",
    "storage_percent": r"\d\d",
}


def read(name: str) -> list[dict[str, str]]:
    with (FILES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


SCORES, HYPERPARAMETERS, TEXT = read("scores"), read("hyperparameters"), read("text")
MODELS = {row["task"]: row for row in read("models")}


def scores(**which: str) -> dict[tuple[str, ...], str]:
    """Values of the rows with these cells, by the other key columns that vary."""
    rows = [row for row in SCORES if which.items() <= row.items()]
    free = [c for c in COLUMNS["scores"][:8] if c not in which and len({r[c] for r in rows}) > 1]
    found = {tuple(row[c] for c in free): row["value"] for row in rows}
    assert len(found) == len(rows) > 0
    return found


def stated(section: str, task: str, quantity: str) -> str:
    (row,) = [
        row
        for row in TEXT
        if (row["section"], row["task"], row["quantity"]) == (section, task, quantity)
    ]
    return row["value"]


# --- the files themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLUMNS)
def test_a_file_is_plain_and_its_keys_are_unique(name):
    raw = (FILES / f"{name}.csv").read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf") and b"\r" not in raw and raw.endswith(b"\n")
    lines = list(csv.reader(raw.decode("utf-8").splitlines(), strict=True))
    assert lines[0] == COLUMNS[name]
    assert {len(line) for line in lines} == {len(COLUMNS[name])}
    assert all(cell == cell.strip() for line in lines for cell in line)
    keys = Counter(tuple(line[: KEYS[name]]) for line in lines[1:])
    assert [key for key, n in keys.items() if n > 1] == []


def test_the_readme_describes_every_file_and_column():
    readme = (FILES / "README.md").read_text(encoding="utf-8")
    assert {f"{name}.csv" for name in COLUMNS} == {file.name for file in FILES.glob("*.csv")}
    for name in COLUMNS:
        assert f"## `{name}.csv`" in readme
    for column in COLUMNS["scores"]:
        assert f"`{column}`" in readme


def test_every_score_has_allowed_cells_and_the_form_of_its_quantity():
    for row in SCORES:
        for column, allowed in ALLOWED.items():
            assert row[column] in allowed, row
        assert re.fullmatch(FORMS[row["quantity"]], row["value"]), row
        unit = {"score": UNITS[row["task"]], "storage_percent": "%"}.get(row["quantity"], "")
        assert row["unit"] == unit, row
        # GPT-2's perplexities have two decimals in Table 5 and one elsewhere; all else has one
        if row["quantity"] == "score":
            two = row["table"] == "5" and row["task"] == "gpt2"
            assert len(row["value"].split(".")[1]) == (2 if two else 1), row
        uncompressed = row["method"] == "base"
        assert uncompressed == (row["ratio"] == "") == (row["window"] == ""), row
        assert (row["anchor"] != "") == (row["method"] == "permute"), row


def test_every_cell_of_tables_2_to_5_is_there():
    for task in TASKS:
        varied = {"method": "permute", "ratio": "third", "quantity": "score", "int8": "no"}
        windows = {("best",), ("random1",), ("random2",), ("random3",)}
        assert scores(table="2", task=task, anchor="first", **varied).keys() == windows
        anchors = {("first",), ("middle",), ("last",)}
        assert scores(table="3", task=task, window="best", **varied).keys() == anchors
        assert scores(table="4", task=task).keys() == {
            (int8, quantity) for int8 in ("no", "yes") for quantity in ("score", "storage_percent")
        }
        ratios = {(ratio,) for ratio in ("third", "half", "all")}
        for method in ("permute", "vanilla"):
            of_method = {"table": "5", "task": task, "method": method}
            assert scores(quantity="score", **of_method).keys() == ratios
        for quantity in ("merged_indices", "ffs_removed"):
            of_rows = {"table": "5", "task": task, "method": "permute"}
            assert scores(quantity=quantity, **of_rows).keys() == ratios
        base = scores(table="5", task=task, method="base")
        assert base.keys() == {("score",), ("ffs_removed",)}
    n_table5 = 3 * (2 + 3 * 4)  # base: score, removed; a ratio: two scores, indices, removed
    assert Counter(row["table"] for row in SCORES) == {"2": 12, "3": 9, "4": 12, "5": n_table5}


def test_tables_that_show_the_same_model_agree():
    """The model at 1/3 of Table 5 is in Tables 2 to 4 too, with one decimal."""
    for task in TASKS:
        which = {"task": task, "method": "permute", "ratio": "third", "quantity": "score"}
        which |= {"anchor": "first", "window": "best", "int8": "no"}
        values = {row["table"]: row["value"] for row in SCORES if which.items() <= row.items()}
        assert values.keys() == {"2", "3", "4", "5"}
        assert {f"{float(value):.1f}" for value in values.values()} == {values["2"]}


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("ratio", ["third", "half", "all"])
def test_permuting_beats_averaging_in_every_row_of_table_5(task, ratio):
    which = {"table": "5", "task": task, "ratio": ratio, "quantity": "score"}
    (vanilla,) = scores(method="vanilla", **which).values()
    (permute,) = scores(method="permute", **which).values()
    lower, higher = sorted([vanilla, permute], key=float)
    assert lower != higher
    assert permute == (lower if task == "gpt2" else higher)


# --- what the paper prints is what the configuration has ------------------------------------------


@pytest.mark.parametrize("row", HYPERPARAMETERS, ids=lambda r: f"{r['task']}-{r['name']}")
def test_a_printed_hyperparameter_is_the_configuration_s(row):
    configured = getattr(PAPER.tasks[row["task"]].fine_tuning, row["name"])
    if isinstance(configured, str):
        assert configured == row["value"]
    else:
        assert configured == float(row["value"])
    assert in_our_form(row["printed_value"], row["name"]) == row["value"]


def in_our_form(printed: str, name: str) -> str:
    names = {"inv_sqrt": "inverse_sqrt", "lin_decay with min": "linear_to_minimum"}
    if name == "precision":
        return {"True": "fp16"}[printed]
    return names.get(printed) or re.sub("K$", "000", printed)


def test_tables_6_to_8_are_complete():
    names = {"learning_rate", "schedule", "precision", "batch_size", "max_steps"}
    more = {"decay_steps", "minimum_learning_rate"}
    expected = {("6", "gpt2"): names, ("7", "vit"): names | more, ("8", "marian"): names}
    found: dict[tuple[str, str], set[str]] = {}
    for row in HYPERPARAMETERS:
        found.setdefault((row["table"], row["task"]), set()).add(row["name"])
        assert bool(row["printed_name"]) == (row["table"] == "7")
    assert found == expected


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("ratio", ["third", "half", "all"])
def test_windows_of_table_5_have_the_configured_k(task, ratio):
    of_row = {"table": "5", "task": task, "ratio": ratio, "method": "permute"}
    (indices,) = scores(quantity="merged_indices", **of_row).values()
    (removed,) = scores(quantity="ffs_removed", **of_row).values()
    sides = [tuple(map(int, side.split("-"))) for side in indices.split("/")]
    k, n_layers = getattr(PAPER.tasks[task].merge.k, ratio), PAPER.tasks[task].base_model.n_layers
    assert len(sides) == (2 if task == "marian" else 1)
    for first, last in sides:
        assert last - first + 1 == k and first >= 0 and last < n_layers
    n_removed, n = map(int, removed.split("/"))
    assert n == len(sides) * n_layers
    misprinted = (task, ratio) == ("marian", "all")  # 11: docs/discrepancies.md, section 3
    assert n_removed == len(sides) * (k - 1) + misprinted


def test_the_setup_in_the_text_is_the_configured_one():
    sections = {"gpt2": "4.1", "vit": "4.2", "marian": "4.3"}
    for task, section in sections.items():
        settings, sides = PAPER.tasks[task], 2 if task == "marian" else 1
        assert int(stated(section, task, "n_layers")) == sides * settings.base_model.n_layers
        what = "patches" if task == "vit" else "tokens"
        n_features = int(stated(section, task, f"feature_{what}"))
        assert n_features == settings.features.n_tokens
        assert n_features == int(stated("5.5", "", "feature_positions"))
        assert n_features == int(stated("C", "", "feature_positions"))
        assert int(stated(section, task, "max_steps")) == settings.fine_tuning.max_steps
        assert int(stated(section, task, "batch_size")) == settings.fine_tuning.batch_size
    gpt2, marian = PAPER.tasks["gpt2"], PAPER.tasks["marian"]
    assert int(stated("4.1", "gpt2", "context")) == gpt2.context
    assert int(stated("4.1", "gpt2", "test_window")) == gpt2.test.stride
    assert stated("4.1", "gpt2", "d_ff") == MODELS["gpt2"]["d_ff"]
    n_validation = int(stated("B.3", "marian", "validation_sentences"))
    assert n_validation == marian.validation.max_examples


def test_the_printed_ratios_are_the_configured_ones():
    for task in PAPER.tasks.values():
        n, k, drop = task.base_model.n_layers, task.merge.k, task.layer_drop
        assert Fraction(k.third - 1, n) == Fraction(stated("5.1", "", "ratio_third"))
        assert Fraction(k.half - 1, n) == Fraction(stated("5.1", "", "ratio_half"))
        assert k.all == n and stated("5.1", "", "ratio_all") == "(n-1)/n"
        assert Fraction(drop.sixth, n) == Fraction(stated("Figure 3", "", "layer_drop_smaller"))
        assert Fraction(drop.third, n) == Fraction(stated("Figure 3", "", "layer_drop_larger"))


def test_text_names_known_tasks_and_says_little():
    for row in TEXT:
        assert row["task"] in TASKS | {""}, row
        assert re.fullmatch(r"[a-z][a-z0-9_]*", row["quantity"]), row
        assert row["value"] and len(row["note"].split()) <= 10, row


# --- the tolerances -------------------------------------------------------------------------------


def test_margins_are_what_the_tables_print_and_a_tolerance_of_half_the_spread_of_table_2():
    rows = read("tolerances")
    assert all(row["source"] for row in rows)
    found = {
        (row["name"], row["unit"], kind): float(row[kind])
        for row in rows
        for kind in ("printed", "tolerance")
    }
    expected = {("reproduction", "percent"): (0, 1)}  # storage is printed without decimals
    for task, printed_in in UNITS.items():
        unit, scale = {"gpt2": ("nats", math.log)}.get(task, (printed_in, float))

        def printed(table: str, task: str = task, scale=scale, **which: str) -> list[float]:
            found = scores(table=table, task=task, quantity="score", **which).values()
            return [scale(float(value)) for value in found]

        spread = max(printed("2")) - min(printed("2"))
        (base,), (third,) = printed("5", method="base"), printed("5", ratio="third", anchor="first")
        (int8,), (tuned,) = printed("4", int8="yes"), printed("4", int8="no")
        expected["close", unit] = abs(third - base), spread / 2
        expected["similar", unit] = spread, spread / 2
        expected["equal", unit] = abs(int8 - tuned), spread / 2
        unscaled = printed("2", scale=float)
        expected["reproduction", printed_in] = 0, (max(unscaled) - min(unscaled)) / 2
    by_kind = {
        (*key, kind): value
        for key, values in expected.items()
        for kind, value in zip(("printed", "tolerance"), values, strict=True)
    }
    assert found == pytest.approx(by_kind, abs=0.0005)


# --- the models -----------------------------------------------------------------------------------


def test_models_are_those_of_the_configuration():
    assert list(MODELS) == list(PAPER.tasks)
    for task, model in MODELS.items():
        settings = PAPER.tasks[task]
        assert model["kind"] == settings.kind
        assert model["repository"] == settings.base_model.repository
        assert int(model["n_layers"]) == settings.base_model.n_layers


def linear(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


@pytest.mark.parametrize("task", sorted(TASKS))
def test_parameters_are_what_the_architecture_adds_up_to(task):
    model = MODELS[task]
    n, d, d_ff = (int(model[key]) for key in ("n_layers", "d_model", "d_ff"))
    feed_forward = linear(d, d_ff) + linear(d_ff, d)
    attention, norm = 4 * linear(d, d), 2 * d
    encoder = attention + feed_forward + 2 * norm
    decoder = encoder + attention + norm  # of an encoder-decoder: with cross-attention
    layers, rest = {
        "gpt2": ([encoder], (50257 + 1024) * d + norm),
        "vit": ([encoder], linear(3 * 16 * 16, d) + (1 + 197) * d + norm + linear(d, 1000)),
        "marian": ([encoder, decoder], (65001 + 2 * 512) * d),
    }[task]
    assert int(model["ff_parameters"]) == feed_forward
    assert model["layer_parameters"] == "/".join(map(str, layers))
    assert int(model["n_parameters"]) == n * sum(layers) + rest


def removed_percent(task: str) -> list[float]:
    """Parameters removed by merging at three ratios, then by dropping layers at two, in %."""
    model, settings = MODELS[task], PAPER.tasks[task]
    layers = [int(size) for size in model["layer_parameters"].split("/")]
    feed_forwards = len(layers) * int(model["ff_parameters"])
    removed = [(k - 1) * feed_forwards for k in settings.merge.k.sizes()]
    removed += [n * sum(layers) for n in settings.layer_drop.sizes()]
    return [100 * n / int(model["n_parameters"]) for n in removed]


def test_the_printed_reductions_follow_from_the_models():
    for task in TASKS:
        third, half, *_ = removed_percent(task)
        left = scores(table="4", task=task, quantity="storage_percent", int8="no")
        assert list(left.values()) == [f"{100 - third:.0f}"]
        if task != "marian":
            assert half > float(stated("5.1", task, "parameters_removed_at_half"))
    assert removed_percent("vit")[0] > float(stated("Abstract", "vit", "parameters_removed"))


# --- docs/discrepancies.md ------------------------------------------------------------------------

DISCREPANCIES = (REPOSITORY / "docs" / "discrepancies.md").read_text(encoding="utf-8")
QUOTED = sorted(set(re.findall(r"`([^`]+)`", DISCREPANCIES)))
PATHS = [quoted for quoted in QUOTED if "/" in quoted and not quoted.startswith("{results}")]
RESULTS = [quoted for quoted in QUOTED if quoted.startswith("{results}/")]
CONFIGURED = [quoted for quoted in QUOTED if re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)+", quoted)]
IS_NO_KEY = {"source.json"}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_in_the_discrepancies_exists(path):
    made = {"results/", "results/demo/"}  # by a run
    assert path in made or (REPOSITORY / path).exists()


@pytest.mark.parametrize("path", RESULTS)
def test_a_result_in_the_discrepancies_is_made_by_a_rule(path):
    rules = [file.read_text("utf-8") for file in (REPOSITORY / "workflow/rules").glob("*.smk")]
    name = re.sub(r"(_tidy)?\.csv$", "", path).removeprefix("{results}/tables/")
    of_any_number = re.sub(r"(?<=table)[1-8]", "{n}", name)
    made = [f'"{path}"', *(f'**table("{each}"' for each in (name, of_any_number))]
    assert any(each in text for text in rules for each in made)


@pytest.mark.parametrize("key", [key for key in CONFIGURED if key not in IS_NO_KEY])
def test_a_key_in_the_discrepancies_is_one_of_the_configuration(key):
    def has(settings) -> bool:
        for part in key.split("."):
            if not hasattr(settings, part):
                return False
            settings = getattr(settings, part)
        return True

    assert any(has(settings) for settings in [PAPER, *PAPER.tasks.values()])


def test_the_discrepancies_refer_to_something_at_all():
    assert len(PATHS) > 10 and len(RESULTS) > 5 and len(CONFIGURED) > 10


def test_links_in_the_discrepancies_lead_to_headings():
    headings = re.findall(r"^#+ (.+)$", DISCREPANCIES, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", DISCREPANCIES)
    assert links and set(links) <= anchors


def test_sections_of_the_discrepancies_are_numbered_without_gaps():
    numbers = [int(n) for n in re.findall(r"^### (\d+)\. ", DISCREPANCIES, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_discrepancies_say_what_each_setting_removes(task):
    cells = " | ".join(f"{percent:.2f}" for percent in removed_percent(task))
    assert f"| {PAPER.tasks[task].label} | {cells} |" in DISCREPANCIES


def test_no_file_mentions_what_lies_outside_the_project():
    texts = [file.read_text(encoding="utf-8") for file in FILES.iterdir()] + [DISCREPANCIES]
    assert not any(re.search(r"\.\./shared|facts\.md|paper\.md", text) for text in texts)
