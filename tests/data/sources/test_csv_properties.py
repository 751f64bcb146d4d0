"""Generated CSV files: what was written comes back, or one line says what is wrong."""

import csv
import io
import re

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtl import data
from jaxtl.data.sources import names
from jaxtl.data.sources.label_spelling import MISSING

LIMITS = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
SPELLINGS = (repr, "{:.9e}".format, "{:+.17g}".format, " {!r} ".format)
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=5
).filter(lambda word: not any(sign.isdigit() for sign in word))
FILES = iter(range(10**9))


def tables(tmp_path, content):
    """Two files of the same content, the second for the test set."""
    number = next(FILES)
    paths = tmp_path / f"{number}.csv", tmp_path / f"{number}t.csv"
    for path in paths:
        path.write_bytes(content)
    return paths


@st.composite
def tidy(draw):
    """A table and a file of it in one of the usual dialects."""
    columns = draw(st.lists(WORDS, min_size=1, max_size=4, unique_by=folded))
    n = draw(st.integers(1, 6))
    values = draw(
        st.lists(
            st.lists(NUMBERS, min_size=len(columns), max_size=len(columns)), min_size=n, max_size=n
        )
    )
    classes = draw(st.lists(WORDS, min_size=1, max_size=4, unique_by=folded))
    missing = draw(st.sampled_from(["", "NA", "nan", "NaN", "null", "None", "N/A", "?"]))
    labels = draw(st.lists(st.sampled_from([*classes, None]), min_size=n, max_size=n))
    spell = draw(st.sampled_from(SPELLINGS))
    position = draw(st.integers(0, len(columns)))
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=(delimiter := draw(st.sampled_from([",", ";", "\t", "|"]))),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    index = draw(st.booleans())

    def write(line, inputs, label):
        cells = [*inputs[:position], label, *inputs[position:]]
        writer.writerow([line, *cells] if index else cells)

    write("", columns, "label of it")
    for i in range(n):
        write(i, [*map(spell, values[i])], missing if labels[i] is None else labels[i])
        if draw(st.booleans()):
            text.write(draw(st.sampled_from(["\n", " \n"])))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return values, labels, delimiter, text.getvalue().encode(encoding)


def folded(word):
    """Words that are the same for one of the rules are one here."""
    return names.nfc(word).casefold()


@LIMITS
@given(table=tidy())
def test_what_was_written_comes_back(tmp_path, table):
    values, labels, delimiter, content = table
    path, copy = tables(tmp_path, content)
    known = [label if label and folded(label) not in MISSING else None for label in labels]
    load = data.csv(path, "label of it", test=copy, delimiter=delimiter).train
    if not any(known):
        with np.testing.assert_raises_regex(ValueError, "all labels are missing"):
            load.table()
        return
    read = load.table()
    np.testing.assert_array_equal(np.float32(read.inputs), np.float32(values))
    spelled = [*read.classes["label"], None]
    expected = [label and names.nfc(label) for label in known]
    assert [spelled[i] for i in read.labels["label"]] == expected
    assert set(read.classes["label"]) == {*expected} - {None}


@LIMITS
@given(
    labels=st.lists(st.integers(-3, 12), min_size=1, max_size=12),
    spellings=st.lists(st.sampled_from(["{}", "{}.0", "{}.", "{:+d}", "{:.3f}", "{}e0"])),
    fraction=st.booleans(),
)
def test_equal_numbers_are_one_class(tmp_path, labels, spellings, fraction):
    spellings = spellings or ["{}"]
    texts = [spellings[i % len(spellings)].format(label) for i, label in enumerate(labels)]
    text = "a,y\n" + "".join(f"1,{text}\n" for text in texts)
    path, copy = tables(tmp_path, text.encode())
    table = data.csv(path, "y", test=copy).train.table()
    names = [*map(str, sorted(set(labels)))]
    assert table.classes["label"] == tuple(names)
    assert [names[i] for i in table.labels["label"]] == [*map(str, labels)]
    if fraction and len(labels) > 1:
        try:
            parts = data.csv(path, "y", test=0.3)
            counts = [
                np.bincount(parts[s].table().labels["label"], minlength=len(names))
                for s in ("train", "test")
            ]
        except ValueError as error:
            assert min(labels.count(label) for label in labels) == 1 and "one row" in str(error)
        else:
            assert (np.array(counts) > 0).all()
            np.testing.assert_array_equal(sum(counts), [labels.count(int(name)) for name in names])


CELLS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "NA",
            "nan",
            "1",
            "1.0",
            "2",
            "x",
            "X",
            "True",
            "1e400",
            "1,5",
            "1_0",
            '"',
            "'",
            "\ufeff",
            "\x00",
            "0x1",
            "inf",
            "Unnamed: 0",
            "y",
            "a",
            "\u00e9",
            "\u0661",
            "-",
            "\r",
        ]
    ),
    st.text(max_size=4),
    NUMBERS.map(str),
)


@LIMITS
@given(
    lines=st.lists(st.lists(CELLS, max_size=4), max_size=6),
    header=st.lists(st.sampled_from(["a", "b", "", "y", "Unnamed: 0"]), max_size=4),
    options=st.fixed_dictionaries(
        {},
        optional={
            "regression": st.booleans(),
            "delimiter": st.sampled_from([",", ";", "\t"]),
            "classes": st.lists(st.sampled_from(["1", "2", "x", "NA"]), min_size=1, unique=True),
            "test": st.sampled_from([0.3, 0.9]),
        },
    ),
    damage=st.binary(max_size=3),
)
def test_any_text_is_read_right_or_refused_in_one_line(tmp_path, lines, header, options, damage):
    text = "\n".join(",".join(cells) for cells in [header, *lines])
    content = text.encode("utf-8", "replace") + damage
    path, copy = tables(tmp_path, content)
    try:
        table = data.csv(path, "y", **{"test": copy} | options).train.table()
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        return
    written = [cell.strip(' "\ufeff') for cell in re.split(r"[,;\t\r\n]", content.decode())]
    numbers = {np.float32(as_number(cell)) for cell in written}
    assert {*np.float32(table.inputs.ravel())} <= numbers - {np.float32("inf")}
    if "label" in table.classes:
        named = set(map(str.casefold, table.classes["label"]))
        assert "classes" in options or not named & MISSING
        assert table.labels["label"].max() < len(table.classes["label"])
    else:
        assert {x for x in table.labels["label"] if not np.isnan(x)} <= numbers


def as_number(text):
    """NaN for what is none; true and false count as 1 and 0."""
    try:
        return float({"true": "1", "false": "0"}.get(text.strip().lower(), text))
    except ValueError:
        return float("nan")
