"""comparison.html: several runs side by side, one file, in the look of report.html."""

from collections.abc import Iterable
from html import escape

from jaxtl.report import page
from jaxtl.report.across import comparison
from jaxtl.report.across.comparison import Facts


def comparison_page(facts: Facts, png: bytes) -> str:
    """The whole page, the answers first and how differences are computed last.

    Args:
        facts: what is compared.
        png: the picture.
    """
    names = ", ".join(dict.fromkeys(side.experiment for side in facts.sides))
    how = f'<p class="soft">{escape(comparison.HOW)}</p>'
    body = (
        f'<p class="soft">{escape(names)}</p><h1>How do the runs compare?</h1>'
        f"{_answers(facts)}{page.section('What else to know', _cautions(facts))}"
        f"{page.section('Runs side by side', page.picture(png, 'runs'))}"
        f"{page.section('Arms', _arms(facts))}"
        f"{page.section('Runs', page.html_table(comparison.of_sides(facts)))}"
        f"{page.section('How it was computed', how)}"
    )
    return page.document(f"{len(facts.sides)} runs compared", body)


def comparison_fragment(facts: Facts, png: bytes) -> str:
    """What a notebook shows: the answers, what else to know, the picture and the arms."""
    body = f"{_answers(facts)}{_cautions(facts)}{page.picture(png, 'runs')}{_arms(facts)}"
    return page.in_notebook(body + page.html_table(comparison.of_sides(facts)))


def _answers(facts: Facts) -> str:
    return _list(("", line) for line in comparison.answers(facts))


def _cautions(facts: Facts) -> str:
    return _list(("", line) for line in comparison.cautions(facts))


def _arms(facts: Facts) -> str:
    sentences = comparison.sentences(facts)
    line = f"What each of the {len(sentences)} comparisons says"
    return page.html_table(comparison.of_rows(facts)) + page.folded(line, _list(sentences))


def _list(lines: Iterable[tuple[str, str]]) -> str:
    """(verdict or nothing, sentence) in the look of a report's verdicts; nothing without lines."""
    items = "".join(f'<li class="{verdict}">{escape(line)}</li>' for verdict, line in lines)
    return f'<ul class="verdicts">{items}</ul>' if items else ""
