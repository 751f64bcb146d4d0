"""report.html holds everything it shows and runs nothing."""

import dataclasses
import html.parser

import pytest

from jaxtl import report
from jaxtl.plan import maximize
from jaxtl.report.page import page, write_report


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
        "Did the transfer help?", "Arms", "Gain over scratch", "Learning curves", "Classes",
        "Confusion", "Source and target features", "Forgetting", "Sweep", "How it was run",
    ]  # fmt: skip
    assert text.index("positive transfer") < text.index("<table")
    for fact in ("config.learning_rate", "versions.jax", "git_commit", "last step"):
        assert fact in text


def test_text_is_escaped(make, result):
    arms = {"scratch": result.arms["scratch"], "<b>&": result.arms["full"]}
    run = make(arms=arms, experiment="<i>", config={"x": "<script>"})
    text = page(report.summarize(run), {}, {"command": "a && <u>"}, "is 1 < 2?")
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
        arm = dataclasses.replace(arm, metrics=metrics, by_stage={word: metrics})
        run = make(
            arms={"scratch": result.arms["scratch"], word: arm},
            experiment=word,
            selection=word,
            config={word: [word]},
            primary=maximize("target", word),
            sweep=[({word: word}, {"scratch": arm, word: arm})],
        )
        summary = report.summarize(run)
        summary["arms"][word]["picks"] = {word: {"mean": 0.5, "ci95": None}}
        summary["arms"][word]["domain_gap"] = {word: {"mean": 0.5, "ci95": None}}
        return page(summary, {}, {word: word}, word)

    elements = Elements(texts(name))
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in Elements(texts("w")).found]
    assert "".join(elements.words).count(name) >= 12


def test_a_path_that_is_no_text_is_written(make, result, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, report.summarize(result), {}, {"folder": "/runs/\udcff/é"})
    assert "<code>/runs/?/é</code>" in path.read_text(encoding="utf-8")
