"""A TFDS builder of the Multi-Domain Sentiment Dataset 2.0."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.archives import members
from jaxtl.data.prepared.builders.building import Examples, FromOriginals
from jaxtl.data.prepared.builders.originals import Original, Refused

DOMAINS = {  # folder: split
    "books": "books",
    "dvd": "dvd",
    "electronics": "electronics",
    "kitchen_&_housewares": "kitchen",
}
LABELS = ("negative", "positive")
NEUTRAL = 3.0  # stars
PAGE = "https://www.cs.jhu.edu/~mdredze/datasets/sentiment/"
REVIEW = re.compile(r"<review>(.*?)</review>", re.DOTALL)


class MultiDomainSentiment(FromOriginals):
    """Amazon reviews of four kinds of goods, 1,000 positive and 1,000 negative ones each.

    Label 1 is 4 or 5 stars, label 0 is 1 or 2 stars. A domain is a split: `books`, `dvd`,
    `electronics`, `kitchen`. What the archive has of further reviews goes to `books_unlabelled` and
    so on; their label is -1, missing, but their stars are there. Names and places of reviewers are
    left out. No sum of the archive is published, nor how many unlabelled reviews there are.

    J. Blitzer, M. Dredze, F. Pereira, "Biographies, Bollywood, boom-boxes and blenders: domain
    adaptation for sentiment classification", ACL 2007. For research.
    """

    VERSION = tfds.core.Version("1.0.0")
    ORIGINALS: ClassVar = {
        "reviews": Original(
            "domain_sentiment_data.tar.gz",
            PAGE,
            PAGE + "domain_sentiment_data.tar.gz",
            folders=tuple(DOMAINS),
        )
    }
    COUNTS: ClassVar = {
        **{domain: dict.fromkeys(LABELS, 1000) for domain in DOMAINS.values()},
        **{f"{domain}_unlabelled": None for domain in DOMAINS.values()},
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "text": tfds.features.Text(),
            "title": tfds.features.Text(),
            "rating": tfds.features.Scalar(np.float32),
            "label": tfds.features.ClassLabel(names=list(LABELS)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Amazon reviews of books, dvd, electronics and kitchen things.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("text", "label"),
            homepage=PAGE,
        )

    def examples(self, paths: Mapping[str, Path]) -> dict[str, Examples]:
        folders = "|".join(map(re.escape, DOMAINS))
        pattern = rf"({folders})/(positive|negative|unlabeled)\.review"
        try:
            files = {
                (DOMAINS[match[1]], match[2]): (f"{match[0]} in {paths['reviews']}", content)
                for match, content in members(paths["reviews"], pattern)
            }
        except Refused as error:
            raise Refused(
                f"{error}. No sum of it is published; it should hold 1,000 positive and 1,000 "
                "negative reviews of each of four kinds of goods"
            ) from error
        if lacking := [
            f"{folder}/{label}.review"
            for folder, domain in DOMAINS.items()
            for label in LABELS
            if (domain, label) not in files
        ]:
            raise Refused(f"{paths['reviews']} lacks {', '.join(lacking)}")
        splits = {domain: labelled(files, domain) for domain in DOMAINS.values()}
        for domain in DOMAINS.values():
            if (domain, "unlabeled") in files:
                splits[f"{domain}_unlabelled"] = unlabelled(*files[domain, "unlabeled"])
        return splits


def labelled(
    files: Mapping[tuple[str, str], tuple[str, bytes]], domain: str
) -> Iterator[tuple[int, dict]]:
    """The labelled examples of a domain by their number, the positive ones first."""
    number = 0
    for label in ("positive", "negative"):
        place, content = files[domain, label]
        for review in reviews(place, content):
            if review["rating"] == NEUTRAL or (review["rating"] > NEUTRAL) != (label == "positive"):
                raise Refused(f"{place}: review {review['title']!r} has {review['rating']} stars")
            yield number, {**review, "label": label}
            number += 1


def unlabelled(place: str, content: bytes) -> Iterator[tuple[int, dict]]:
    """The other examples of a domain by their number."""
    for number, review in enumerate(reviews(place, content)):
        yield number, {**review, "label": -1}


def reviews(place: str, content: bytes) -> Iterator[dict]:
    """Text, title and rating of all reviews of a file, which only looks like XML.

    Args:
        place: what messages call the file.

    Raises:
        Refused: it is cut off, or a review lacks something.
    """
    text = content.decode("latin-1")
    blocks = REVIEW.findall(text)
    if len(blocks) != text.count("<review>"):
        raise Refused(f"{place}: {text.count('<review>')} reviews begin, {len(blocks)} end")
    for number, block in enumerate(blocks, 1):
        fields = {}
        for name in ("rating", "title", "review_text"):
            match = re.search(rf"<{name}>(.*?)</{name}>", block, re.DOTALL)
            if match is None:
                raise Refused(f"{place}: review {number} has no <{name}>")
            fields[name] = match[1].strip()
        try:
            rating = float(fields["rating"])
        except ValueError:
            raise Refused(f"{place}: review {number} has rating {fields['rating']!r}") from None
        yield {"text": fields["review_text"], "title": fields["title"], "rating": rating}
