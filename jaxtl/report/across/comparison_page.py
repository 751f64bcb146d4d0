"""comparison.html: several runs side by side, one file, in the look of report.html."""

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
    return page.document(f"{len(facts.sides)} runs compared", content(facts, png))


def content(facts: Facts, png: bytes) -> str:
    """What stands in the body of the page, and in a notebook."""
    names = ", ".join(dict.fromkeys(side.experiment for side in facts.sides))
    answers = "".join(f"<li>{escape(line)}</li>" for line in comparison.answers(facts))
    pairs = comparison.sentences(facts)
    findings = "".join(f'<li class="{verdict}">{escape(text)}</li>' for verdict, text in pairs)
    findings = page.folded(
        f"What each of the {len(pairs)} comparisons says", f'<ul class="verdicts">{findings}</ul>'
    )
    lines = "".join(f"<li>{escape(line)}</li>" for line in comparison.cautions(facts))
    cautions = f'<ul class="verdicts">{lines}</ul>' if lines else ""
    how = f'<p class="soft">{escape(comparison.HOW)}</p>'
    return (
        f'<p class="soft">{escape(names)}</p><h1>How do the runs compare?</h1>'
        f'<ul class="verdicts">{answers}</ul>'
        f"{page.section('What else to know', cautions)}"
        f"{page.section('Runs side by side', page.picture(png, 'runs'))}"
        f"{page.section('Arms', page.html_table(comparison.of_rows(facts)) + findings)}"
        f"{page.section('Runs', page.html_table(comparison.of_sides(facts)))}"
        f"{page.section('How it was computed', how)}"
    )
