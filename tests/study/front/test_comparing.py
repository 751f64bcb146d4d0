"""Runs side by side: how they are paired, what is refused, and what is shown."""

import json
import re
import shutil

import numpy as np
import pytest
from finished_runs import accuracies, edit, write_run
from rich.console import Console
from scipy import stats

import jaxtl
from jaxtl import cli
from jaxtl.plan import maximize, minimize
from jaxtl.report.summary import statistics
from jaxtl.study.front.across.compare import paths_of


def rows(comparison):
    return {(row.run, row.arm): row for row in comparison.facts.rows}


def refusal(*runs, **options):
    with pytest.raises(ValueError) as error:
        jaxtl.compare(runs, **options)
    return str(error.value)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("first") / "toy")


def another(tmp_path, name="other", **changes):
    return write_run(tmp_path / name / "toy", **changes)


def test_the_same_seeds_are_paired(first, tmp_path):
    row = rows(jaxtl.compare([first, another(tmp_path, shift=0.02)]))["other/toy", "scratch"]
    before, now = accuracies(range(5)), accuracies(range(5), shift=0.02)
    test = stats.ttest_rel(now, before).confidence_interval(0.95)
    np.testing.assert_allclose(row.difference["ci95"], test, rtol=1e-9)
    assert (row.verdict, row.how) == ("positive", "paired, 5 seeds")


def test_common_seeds_are_paired(first, tmp_path):
    row = rows(jaxtl.compare([first, another(tmp_path, seeds=range(2, 8), shift=-0.02)]))[
        "other/toy", "full"
    ]
    assert (row.verdict, row.how) == ("negative", "paired, 3 seeds")
    assert len(row.difference["per_seed"]) == 3


def test_other_seeds_are_not_paired(first, tmp_path):
    comparison = jaxtl.compare([first, another(tmp_path, seeds=(5, 6, 7), shift=0.2)])
    row = rows(comparison)["other/toy", "scratch"]
    before, now = accuracies(range(5)), accuracies((5, 6, 7), shift=0.2)
    test = stats.ttest_ind(now, before, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(row.difference["ci95"], test, rtol=1e-9)
    assert (row.verdict, row.how) == ("positive", "Welch, 3 and 5 seeds")
    assert not row.difference["per_seed"]
    assert "without common seeds nobody knows" in repr(comparison)


def test_two_seeds_of_a_run_decide_nothing(first, tmp_path):
    row = rows(jaxtl.compare([first, another(tmp_path, seeds=(6, 7), shift=0.2)]))[
        "other/toy", "scratch"
    ]
    assert row.verdict == "undecided" and "2 seeds of one run, 3 are needed" in row.doubt


def test_lower_may_be_better(tmp_path):
    changes = {"primary": minimize("target", "accuracy"), "declared": ()}
    runs = [another(tmp_path, n, shift=s, **changes) for n, s in (("a", 0.0), ("b", 0.02))]
    comparison = jaxtl.compare(runs)
    assert rows(comparison)["b/toy", "full"].verdict == "negative"
    assert re.search(r"target/accuracy higher by\s+0\.02", repr(comparison))


def test_an_arm_may_be_what_all_are_compared_with(first, tmp_path):
    other = another(tmp_path, gains={"scratch": 0.0, "mine": 0.04})
    by_name = jaxtl.compare([first, other])
    assert rows(by_name)["other/toy", "mine"].verdict is None
    assert "not compared, as first" in repr(by_name).replace("\n", " ")
    found = rows(jaxtl.compare([first, other], against="scratch"))
    assert found["other/toy", "mine"].verdict == "positive"
    assert found["other/toy", "mine"].against[1] == "scratch"
    label = next(run for run, arm in found if run != "other/toy")
    assert found[label, "full"].verdict == "positive" and found[label, "scratch"].verdict is None
    assert "Did you mean 'scratch'" in refusal(first, other, against="scratsh")


@pytest.mark.parametrize(
    "changes, kind, words",
    [
        ({"steps": 200}, "steps", "stages scratch, pretrain, full: 200 steps, there 100"),
        ({"batch_size": 64}, "steps", "batches of 64 examples, there 32"),
        ({"labels": 20}, "data", "stages scratch, full: reads toy.train.few(20), there"),
        ({"weights": "w"}, "data", "other published weights"),
        ({"selection": "best step"}, "selection", "those of the best step, there last step"),
        ({"test_data": "bb"}, "evaluation", "evaluation 'target' reads other data"),
    ],
)
def test_what_differs_is_refused_unless_it_is_named(first, tmp_path, changes, kind, words):
    other = another(tmp_path, shift=0.02, **changes)
    text = refusal(first, other)
    assert words in text and f"--despite={kind} compares them nevertheless" in text
    comparison = jaxtl.compare([first, other], despite=kind)
    assert words in comparison.facts.despite[kind][0]
    assert words in comparison._repr_html_().replace("&#x27;", "'")
    assert rows(comparison)["other/toy", "full"].verdict == "positive"


def test_all_reasons_come_at_once(first, tmp_path):
    runs = [first, another(tmp_path, "a", steps=200), another(tmp_path, "b", labels=20)]
    text = refusal(*runs, another(tmp_path, "c", primary=maximize("target", "f1")))
    assert "a/toy: stages" in text and "b/toy: stages" in text and "c/toy: its primary" in text
    assert "--despite" not in text  # nothing makes another metric the same
    assert "--despite=steps,data" in refusal(*runs)
    assert "--despite=steps,data" in refusal(*runs, despite=["steps"])


def test_an_arm_of_another_name_stays_within_the_budget(first, tmp_path):
    names = {"gains": {"mine": 0.04}, "baseline": "mine"}
    assert "--against=ARM compares" in refusal(first, another(tmp_path, "a", **names))
    less = another(tmp_path, "b", steps=50, **names)
    jaxtl.compare([first, less], against="scratch")
    more = another(tmp_path, "c", steps=101, labels=20, **names)
    text = refusal(first, more, against="scratch")
    assert "3,232 examples, no arm's last stage there more than 3,200" in text
    assert "reads toy.train.few(20), rows that no stage there reads" in text


def test_other_versions_and_files_are_said(first, tmp_path):
    other = another(tmp_path, file="ee", environment={"jax": "0.11"})
    notes = jaxtl.compare([first, other]).facts.notes["other/toy"]
    assert notes == ["the experiment's file differs", "jax is 0.11, there 0.10"]
    codes = [{"file": file, "environment": {"code": "the same"}} for file in ("ff", "ee")]
    runs = [another(tmp_path, name, **c) for name, c in zip("ab", codes, strict=True)]
    assert not jaxtl.compare(runs).facts.notes  # a docstring, say


def test_a_flag_that_nothing_needs_is_said(first, tmp_path):
    facts = jaxtl.compare([first, another(tmp_path)], despite=["steps"]).facts
    assert not facts.despite and "--despite=steps changes nothing" in str(facts.notes)


def test_a_sweep_is_compared_as_it_is(first, tmp_path):
    other = another(tmp_path)
    summary = json.loads((other / "summary.json").read_text())
    point = {"config": {"learning_rate": 0.1}, "arms": summary["arms"]}
    edit(other / "summary.json", sweep=[point], tuned={})
    notes = jaxtl.compare([first, other]).facts.notes["other/toy"]
    assert "as it is (learning_rate=0.01, no point of the sweep)" in notes[0]


def damage(run, name):
    if name == "no summary":
        (run / "summary.json").unlink()
    elif name == "half a summary":
        text = (run / "summary.json").read_text()
        (run / "summary.json").write_text(text[: len(text) // 2])
    elif name == "a word for a number":
        text = (run / "summary.json").read_text()
        (run / "summary.json").write_text(text.replace("0.84,", '"good",', 1))
    elif name == "another mean":
        text = (run / "summary.json").read_text()
        (run / "summary.json").write_text(re.sub(r'"mean": 0.8', '"mean": 0.9', text, count=1))
    elif name == "later seeds":
        edit(run / "config.json", seeds=list(range(9)))
    elif name == "a stage":
        edit(run / "stages" / "full" / "stage.json", finished=False)
    elif name == "no stages":
        shutil.rmtree(run / "stages")
    elif name == "garbled arm":
        (run / "report_data" / "full.npz").write_bytes(b"PK no")
    elif name == "earlier version":
        summary = json.loads((run / "summary.json").read_text())
        del summary["evaluations"]
        (run / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    "what, words",
    [
        ("no summary", "is not finished: it has no summary.json"),
        ("half a summary", "is damaged: it is not JSON"),
        ("a word for a number", "no value a seed"),
        ("another mean", "of arm 'scratch' is not that of its seeds"),
        ("later seeds", "its last launch was of the seeds 0-8, its summary has 0-4"),
        ("a stage", "is not finished: stage 'full' is not"),
        ("no stages", "no stage.json of stage 'scratch'"),
        ("garbled arm", "full.npz is damaged"),
        ("earlier version", "is of an earlier version: it lacks evaluations"),
    ],
)
def test_runs_that_are_not_whole_are_refused(first, tmp_path, what, words):
    other = another(tmp_path)
    damage(other, what)
    text = refusal(first, other, tmp_path / "nowhere")  # and the other trouble beside it
    assert words in text and "nowhere: there is no such folder" in text


def test_what_is_no_run_is_refused(first, tmp_path):
    other = another(tmp_path)
    assert "at least two runs, got 1" in refusal(first)
    assert f"it holds the runs {other}" in refusal(first, tmp_path)
    assert f"perhaps {other}" in refusal(first, other / "summary.json")
    (tmp_path / "link").symlink_to(other.parent)
    assert "is named twice" in refusal(first, other, tmp_path / "link" / "toy")
    for runs in (str(first), first, jaxtl.open(first), None):
        with pytest.raises(ValueError, match="must be a list"):
            jaxtl.compare(runs)
    assert "expected the directory of a run, or a Result, got 3" in refusal(first, 3, "")
    assert "Did you mean 'steps'" in refusal(first, other, despite="step")


def test_paths_between_commas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b,c", "d1", "d2"):
        (tmp_path / name).mkdir()
    assert paths_of("a,b,c,d*, nowhere") == ["a", "b,c", "d1", "d2", "nowhere"]
    with pytest.raises(ValueError, match="matches nothing"):
        paths_of("a,x*")
    with pytest.raises(ValueError, match="between two commas"):
        paths_of("a,,b")


def test_the_command_line_prints_and_writes(first, tmp_path, capsys):
    other = another(tmp_path, shift=0.02, config={"learning_rate": 0.1})
    args = [f"--compare={first},{other}", f"--workdir={tmp_path / 'runs'}"]
    assert cli.main(["launch.py", *args]) == 0
    out = capsys.readouterr().out
    assert "better: scratch and full" in out and "learning_rate=0.1" in out
    page = (tmp_path / "runs" / "comparison.html").read_text()
    assert page.count("data:image/png;base64,iVBOR") == 1 and "Welch" in page
    assert (tmp_path / "runs" / "comparison.png").stat().st_size > 10_000
    assert cli.main(["launch.py", args[0], "--despite=step"]) == 1
    assert cli.main(["launch.py", "--experiment=iris", "--despite=steps"]) == 1
    assert "goes with --compare" in capsys.readouterr().err
    assert cli.main(["launch.py", args[0], "--seeds=3"]) == 1
    assert "--seeds goes with --experiment=NAME" in capsys.readouterr().err


def test_seeds_without_a_number_are_named(first, tmp_path):
    other = another(tmp_path, shift=0.02)
    summary = json.loads((other / "summary.json").read_text())
    accuracy = [np.nan, *accuracies(range(1, 5), shift=0.02)]
    summary["arms"]["scratch"]["metrics"]["target/accuracy"] = statistics(accuracy, std=True)
    edit(other / "summary.json", **summary)
    comparison = jaxtl.compare([first, other])
    row = rows(comparison)["other/toy", "scratch"]
    assert (row.verdict, row.how, row.not_finite) == ("positive", "paired, 4 seeds", [0])
    assert "left out for want of a finite value: seed 0." in repr(comparison).replace("\n", " ")


def test_a_comparison_as_values(first, tmp_path):
    pandas = pytest.importorskip("pandas")
    other = another(tmp_path, seeds=range(3), shift=0.02)
    comparison = jaxtl.compare([first, other])
    frame = comparison.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 2 * (5 + 3)
    assert frame["target/accuracy"].notna().all()
    assert comparison.figure().axes


@pytest.mark.parametrize("width", [30, 60, 200])
def test_no_number_is_cut_on_a_narrow_terminal(first, tmp_path, width):
    name = "an_attempt_with_a_rather_long_name"
    comparison = jaxtl.compare([first, another(tmp_path, name, shift=0.02)])
    console = Console(width=width, record=True, quiet=False)
    comparison.print(console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for row in comparison.facts.rows:
        if row.difference:
            assert f"{row.difference['mean']:+.3f}" in text
