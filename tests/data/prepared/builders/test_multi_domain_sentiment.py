import os
from pathlib import Path

import numpy as np
import pytest
from small_originals import pack, unpack

from jaxtl import data

FOLDERS = ("books", "dvd", "electronics", "kitchen_&_housewares")
REAL = Path(os.environ.get("TFDS_DATA_DIR", "nowhere"), "multi_domain_sentiment")


def review(text, title="A title", rating="5.0"):
    """As the archive writes it: with the names of people, in Latin-1, with bare ampersands."""
    return (
        f"<review>\n<unique_id>\n1:a_title:somebody\n</unique_id>\n<unique_id>\n7\n</unique_id>\n"
        f"<helpful>\n\n</helpful>\n<rating>\n{rating}\n</rating>\n<title>\n{title}\n</title>\n"
        f"<reviewer>\nSomebody\n</reviewer>\n<review_text>\n{text}\n</review_text>\n</review>\n"
    ).encode("latin-1")


def files(folder="sorted_data_acl/"):
    content = {}
    for name in FOLDERS:
        good = review(f"Fine {name}, a cliché &amp; fun.\n\n  More ") + review("b", rating="4.0")
        content[f"{folder}{name}/positive.review"] = good
        content[f"{folder}{name}/negative.review"] = review("Bad & <b>dull", rating="1.0") * 2
    content[f"{folder}dvd/unlabeled.review"] = review("who knows", rating="2.0") * 3
    return content


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the archive belongs, as if two reviews of a kind and domain had been published."""
    from jaxtl.data.prepared.builders.multi_domain_sentiment import MultiDomainSentiment

    counts = MultiDomainSentiment.COUNTS
    counts = {split: each and dict.fromkeys(each, 2) for split, each in counts.items()}
    monkeypatch.setattr(MultiDomainSentiment, "COUNTS", counts)
    return tmp_path / "downloads" / "manual" / "multi_domain_sentiment"


def refused(place):
    root = place.parents[2]
    with pytest.raises(ValueError, match="cannot prepare 'multi_domain_sentiment': ") as error:
        data.prepare("multi_domain_sentiment", root)
    assert not (root / "multi_domain_sentiment").exists()
    return str(error.value)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_reviews_of_the_archive_and_of_its_folder(tmp_path, place, form):
    if form == "archive":
        pack(place / "domain_sentiment_data.tar.gz", files())
    else:
        unpack(place, files(""))
    data.prepare("multi_domain_sentiment", tmp_path)
    reviews = data.tfds("multi_domain_sentiment", inputs=["text", "title"], data_dir=tmp_path)
    assert tuple(reviews) == ("books", "dvd", "electronics", "kitchen", "dvd_unlabelled")
    table = reviews.kitchen.table()
    assert table.classes["label"] == ("negative", "positive")
    rows = zip(table.inputs["text"], table.labels["label"], table.labels["rating"], strict=True)
    assert sorted(rows) == [
        ("Bad & <b>dull", 0, 1.0),
        ("Bad & <b>dull", 0, 1.0),
        ("Fine kitchen_&_housewares, a cliché &amp; fun.\n\n  More", 1, 5.0),
        ("b", 1, 4.0),
    ]
    assert set(table.inputs["title"]) == {"A title"}
    further = reviews["dvd_unlabelled"].table()
    assert len(further) == 3 and not further.known("label").any()
    assert set(further.labels["rating"]) == {2.0}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dvd/negative.review", review("x", rating="1.0"), "class negative has 1, expected 2"),
        ("dvd/negative.review", review("x", rating="4.0"), "review 'A title' has 4.0 stars"),
        ("dvd/positive.review", review("x", rating="3.0"), "review 'A title' has 3.0 stars"),
        ("dvd/positive.review", review("x", rating="many"), "review 1 has rating 'many'"),
        ("dvd/positive.review", review("x")[:-40], "1 reviews begin, 0 end"),
        ("dvd/positive.review", b"<review>\n</review>", "review 1 has no <rating>"),
        ("dvd/positive.review", None, "lacks dvd/positive.review"),
    ],
)
def test_reviews_that_are_not_whole_are_refused(place, name, content, message):
    changed = files() | {f"sorted_data_acl/{name}": content}
    changed = {name: content for name, content in changed.items() if content is not None}
    pack(place / "domain_sentiment_data.tar.gz", changed)
    assert message in refused(place)


def test_a_wrong_or_truncated_archive_is_refused(place):
    archive = pack(place / "domain_sentiment_data.tar.gz", files())
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>"):
        archive.write_bytes(content)
        message = refused(place)
        assert f"{archive} cannot be read, it is damaged or no archive" in message
        assert "No sum of it is published; it should hold 1,000 positive and 1,000" in message


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="TFDS_DATA_DIR has no multi_domain_sentiment")
def test_the_real_reviews_make_the_dataset_that_is_known(tmp_path):
    from tensorflow_datasets.core import hashing

    known = data.tfds("multi_domain_sentiment", inputs=["text", "title"], data_dir=REAL.parent)
    content = {}
    for folder, domain in zip(FOLDERS, known, strict=True):
        table = known[domain].table()
        keys = [hashing.Hasher(domain).hash_key(row) for row in range(len(table))]
        rows = np.argsort(np.argsort(keys))  # of the files, one after the other, in the dataset
        columns = (table.inputs["text"], table.inputs["title"], table.labels["rating"])
        written = [
            review(text.replace("�", "?"), title.replace("�", "?"), rating)
            for text, title, rating in zip(*(column[rows] for column in columns), strict=True)
        ]
        content[f"{folder}/positive.review"] = b"".join(written[:1000])
        content[f"{folder}/negative.review"] = b"".join(written[1000:])
    unpack(tmp_path / "downloads" / "manual" / "multi_domain_sentiment", content)
    data.prepare("multi_domain_sentiment", tmp_path)
    made = data.tfds("multi_domain_sentiment", inputs=["text", "title"], data_dir=tmp_path)
    assert tuple(made) == tuple(known)
    for domain in known:
        old, new = known[domain].table(), made[domain].table()
        for name in ("text", "title"):
            assert [each.replace("�", "?") for each in old.inputs[name]] == list(new.inputs[name])
        for name in ("label", "rating"):
            np.testing.assert_array_equal(new.labels[name], old.labels[name])
