"""report.html holds everything it shows and runs nothing."""

import dataclasses
import html.parser

import numpy as np
import pytest

from jaxtl import report
from jaxtl.plan import Table, Texts, maximize
from jaxtl.report.figures.draw import Drawing
from jaxtl.report.page import page

NOTHING = Drawing({}, {})


class Elements(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.headings, self._tag = [], [], ""
        self.open, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


@pytest.fixture(scope="module")
def text(swept, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    report.write(swept, directory)
    return (directory / "report.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(text):
    elements = Elements(text)
    assert not elements.open  # every element is closed
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "link", "iframe", "object"})
    sources = [attributes["src"] for _, attributes in elements.found if "src" in attributes]
    assert len(sources) == 7
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "://" not in text and "url(" not in text and "@import" not in text


def test_the_answer_comes_first_and_the_setup_last(text):
    assert Elements(text).headings == [
        "Did the transfer help?", "Arms", "Gain over scratch", "Learning curves",
        "F1 of each class on target", "Recall of each class on target less that of scratch",
        "Confusion on target", "Source and target features", "Forgetting", "Sweep",
        "How it was run",
    ]  # fmt: skip
    assert text.index("positive transfer") < text.index("<table")
    for fact in ("config.learning_rate", "versions.jax", "git_commit", "last step"):
        assert fact in text


def test_text_is_escaped(make, result):
    arms = {"scratch": result.arms["scratch"], "<b>&": result.arms["full"]}
    run = make(arms=arms, experiment="<i>", config={"x": "<script>"})
    text = page(report.summarize(run), {}, NOTHING, {"command": "a && <u>"}, "is 1 < 2?")
    tags = {tag for tag, _ in Elements(text).found}
    assert tags.isdisjoint({"i", "u", "script"})
    assert "&lt;b&gt;&amp;" in text and "is 1 &lt; 2?" in text


@pytest.mark.parametrize(
    "name", ["\"><script>x</script>'", "$a_{b}$ & c", "two\nlines", "🙂 腕", "x" * 9_000, "</b>"]
)
def test_a_name_changes_no_tag(make, result, name):
    def texts(word):
        arm = dataclasses.replace(result.arms["full"], name=word)
        metrics = {f"target/{word}": arm.metrics["target/accuracy"], **arm.metrics}
        arm = dataclasses.replace(arm, metrics=metrics)
        run = make(
            arms={"scratch": result.arms["scratch"], word: arm},
            experiment=word,
            selection=word,
            config={word: [word]},
            primary=maximize("target", word),
            sweep=[({word: word}, {"scratch": arm, word: arm})],
        )
        panels = {
            word: Table(word, word, rows={word: {word: 0.5}}, corner=word),
            "texts": Texts(word, word, texts={word: [(word, 0.5)]}),
        }
        return page(report.summarize(run), panels, Drawing({}, {word: word}), {word: word}, word)

    elements = Elements(texts(name))
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in Elements(texts("w")).found]
    assert "".join(elements.words).count(name) >= 12


def test_a_path_that_is_no_text_is_written(result):
    text = page(report.summarize(result), {}, NOTHING, {"folder": "/runs/\udcff/é"})
    assert "<code>/runs/?/é</code>" in text


def test_panels_stand_in_their_order_with_their_notes(result):
    panels = {
        "b": Table(
            "Second", "How to read it", rows={"full": {"n": 1200, "x": np.array([0.5, 0.7])}}
        ),
        "a": Texts("Words", "Which decided", texts={"one": [("good ", 0.25), ("bad", -2.0)]}),
        "c": Table(
            "Details", "Few read them", rows={"full": {"label": "text", "no": None}}, folded=True
        ),
    }
    text = page(report.summarize(result), panels, NOTHING, {})
    assert Elements(text).headings[1:-1] == ["Arms", "Second", "Words"]
    assert text.index("How to read it") < text.index("1,200") < text.index("Which decided")
    assert "<td>0.600<small>[-0.671, 1.871]</small></td>" in text
    assert '<mark class="for" style="--strength: 25%" title="+0.25">good </mark>' in text
    assert '<mark class="against" style="--strength: 100%" title="-2.00">bad</mark>' in text
    assert "<details><summary>Details</summary>" in text and "<td>text</td><td>-</td>" in text


def test_an_interval_beyond_what_can_be_is_said_in_words(result):
    panels = {
        "accuracies": Table("A", "", {"full": {"t/accuracy": np.array([0.9, 1.0])}}),
        "picks": Table("P", "", {"full": {"a rule": np.array([0.3, 0.0])}}, metric="t/f1_macro"),
        "lost": Table("L", "", {"full": {"t/accuracy": np.array([0.9, 0.8])}}, signed=True),
        "losses": Table("M", "", {"full": {"t/loss": np.array([0.9, 0.7])}}),
    }
    text = page(report.summarize(result), panels, NOTHING, {})
    for ends in ("[0.315, beyond 1]", "[below 0, beyond 1]", "[0.215, 1.485]", "[-0.471, 2.071]"):
        assert f"<small>{ends}</small>" in text
