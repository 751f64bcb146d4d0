"""`--prepare=NAME,...`: what it prints, on originals as small as they get."""

import bz2

import pytest

from jaxtl import cli

LINE = "3 1:0.5\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the originals belong of a USPS of one train and two test images."""
    from jaxtl.data.prepared.builders.usps import Original, Usps

    files = {"train": "usps.bz2", "test": "usps.t.bz2"}
    originals = {split: Original(file, "https://page") for split, file in files.items()}
    monkeypatch.setattr(Usps, "ORIGINALS", originals)
    monkeypatch.setattr(Usps, "COUNTS", {"train": {"2": 1}, "test": {"2": 2}})
    place = tmp_path / "downloads" / "manual" / "usps"
    place.mkdir(parents=True)
    (place / "usps.bz2").write_bytes(bz2.compress(LINE.encode()))
    (place / "usps.t.bz2").write_bytes(bz2.compress(2 * LINE.encode()))
    return place


@pytest.fixture
def prepare(tmp_path, capfd):
    def run(names):
        status = cli.main(["launch.py", f"--prepare={names}", f"--run.data_dir={tmp_path}"])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_it_says_what_it_does_and_what_came_out(tmp_path, place, prepare, caplog):
    status, out, err = prepare("usps")
    assert status == 0 and "%|" not in err  # no bar where nobody watches
    folder = tmp_path / "usps" / "1.0.0"
    assert out == f"usps/1.0.0: train 1, test 2 examples, in {folder}\n"
    checked = "no sum of it is published, nor is its size; its examples are counted"
    assert [record.getMessage() for record in caplog.records] == [
        f"preparing usps in {tmp_path}",
        f"{place}/usps.bz2: {checked}",
        f"{place}/usps.t.bz2: {checked}",
        "usps/1.0.0: writing split train",
        "usps/1.0.0: writing split test",
    ]
    caplog.clear()
    assert prepare("usps") == (0, out, err)
    assert caplog.messages == [f"usps was prepared before, in {folder}"]


def test_several_names(tmp_path, place, prepare):
    status, out, err = prepare("office31,usps,mnist_m/recipies")
    assert status == 1 and out.startswith("usps/1.0.0: train 1")
    problems = err.split("error: ")[1].splitlines()
    assert problems[0].startswith("cannot prepare 'office31': get domain_adaptation_images.tar.gz")
    assert problems[1:] == [
        "cannot prepare 'mnist_m/recipies': unknown config 'recipies'. Did you mean 'recipe'? "
        "Known: original, recipe."
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"usps", "downloads"}


def test_a_misspelt_name_is_told_before_any_work(tmp_path, place, prepare):
    status, out, err = prepare("usps,ofice31")
    assert (status, out) == (1, "")
    assert "error: unknown dataset 'ofice31'. Closest names: office31" in err
    assert not (tmp_path / "usps").exists()
    status, out, err = prepare("usps, office-31")
    assert "dataset name 'office-31' is not of the form name, name/config or name:1.2.3" in err
    assert "Closest names: office31" in err and not (tmp_path / "usps").exists()


def test_a_data_directory_that_cannot_be_written(tmp_path, place, prepare):
    tmp_path.joinpath("downloads").rename(tmp_path.with_name("other"))
    tmp_path.rmdir()
    tmp_path.touch()
    status, _, err = prepare("usps")
    assert status == 1 and f"cannot prepare 'usps': cannot write {tmp_path}: " in err
