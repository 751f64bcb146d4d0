import dataclasses
import hashlib

import numpy as np
import pytest
from small_originals import image, pack, unpack

from jaxtl import data

DOMAINS = ("amazon", "dslr", "webcam")


def files(form="domain_adaptation_images/{}/images/{}/{}"):
    """Three domains with two mugs and a pen each, of different sizes."""
    content = {}
    for d, domain in enumerate(DOMAINS):
        for i, (label, number) in enumerate([("mug", 1), ("mug", 2), ("pen", 1)]):
            pixels = np.full((20 + d, 30 + i, 3), 40 * d + 10 * i, np.uint8)
            name = form.format(domain, label, f"frame_{number:04}.jpg")
            content[name] = image(pixels, "JPEG")
    return content


@pytest.fixture
def small(monkeypatch):
    """Office-31 as if those three images a domain had been published."""
    from jaxtl.data.prepared.builders.office31 import Office31

    counts = {domain: {"mug": 2, "pen": 1} for domain in DOMAINS}
    monkeypatch.setattr(Office31, "COUNTS", counts)
    first, second = Office31.ORIGINALS["images"]

    def publish(content=b""):
        sums = (f"sha1:{hashlib.sha1(content).hexdigest()}",) if content else ()
        published = dataclasses.replace(first, sums=sums)
        monkeypatch.setattr(Office31, "ORIGINALS", {"images": (published, second)})

    publish()
    return publish


def check(root):
    office = data.tfds("office31", data_dir=root, size=(8, 8))
    assert office.keys() == set(DOMAINS)
    for d, domain in enumerate(DOMAINS):
        table = office[domain].table()
        names = np.array(table.classes["label"])[table.labels["label"]]
        levels = {
            (name, round(pixels.mean() / 10))
            for name, pixels in zip(names, table.inputs, strict=True)
        }
        assert levels == {("mug", 4 * d), ("mug", 4 * d + 1), ("pen", 4 * d + 2)}
    assert len(table.classes["label"]) == 31


def test_the_published_archive(tmp_path, small):
    path = tmp_path / "downloads/manual/office31/domain_adaptation_images.tar.gz"
    small(pack(path, files()).read_bytes())
    data.prepare("office31", tmp_path)
    check(tmp_path)


FORMS = {
    "office31": "domain_adaptation_images/{}/images/{}/{}",
    "domain_adaptation_images": "{}/images/{}/{}",
    "OFFICE31": "{}/{}/{}",
    "office31/OFFICE31.zip": "OFFICE31/{}/{}/{}",
}


def test_all_forms_give_the_same_dataset(tmp_path, small):
    written = set()
    for number, (place, form) in enumerate(FORMS.items()):
        root = tmp_path / str(number)
        path = root / "downloads" / "manual" / place
        (pack if path.suffix else unpack)(path, files(form))
        folder = data.prepare("office31", root)
        check(root)
        records = sorted(folder.glob("*.array_record*"))
        written.add(tuple((file.name, file.read_bytes()) for file in records))
    assert len(written) == 1


def refused(root):
    with pytest.raises(ValueError) as error:
        data.prepare("office31", root)
    assert not (root / "office31").exists()
    message = str(error.value)
    assert message.startswith("cannot prepare 'office31': ") and "\n" not in message
    return message


def test_what_is_missing(tmp_path):
    """One message; what a person made is left, what was begun is not."""
    place = tmp_path / "downloads" / "manual" / "office31"
    with pytest.raises(
        ValueError, match=r"not prepared .*launch\.py --prepare=office31 --run.data_dir="
    ):
        data.tfds("office31", "amazon", data_dir=tmp_path).table()
    refused(tmp_path / "new")
    message = refused(tmp_path)
    assert not any(tmp_path.iterdir())
    assert message == (
        "cannot prepare 'office31': get domain_adaptation_images.tar.gz from "
        "https://drive.google.com/file/d/0B4IapRTv9pJ1WGZVd1VDMmhwdlE/view"
        "?resourcekey=0-gNMHVtZfRAyO_t2_WrOunA or OFFICE31.zip from "
        f"https://wjdcloud.blob.core.windows.net/dataset/OFFICE31.zip; put it into {place}; "
        "domain_adaptation_images.tar.gz may be unpacked there, to a folder with amazon, dslr and "
        "webcam. Then prepare it again"
    )
    (place / "mine" / "amazon").mkdir(parents=True)
    assert f"({place}/mine lacks dslr and webcam)" in refused(tmp_path)
    assert (place / "mine" / "amazon").is_dir()


def test_a_wrong_or_truncated_archive_is_refused_with_the_sum(tmp_path, small):
    path = tmp_path / "downloads" / "manual" / "domain_adaptation_images.tar.gz"
    whole = pack(path, files()).read_bytes()
    small(whole)
    path.write_bytes(whole[: len(whole) // 2])
    message = refused(tmp_path)
    assert f"expected sha1:{hashlib.sha1(whole).hexdigest()}" in message
    assert hashlib.sha1(path.read_bytes()).hexdigest() in message
    path.rename(path.with_name("OFFICE31.zip"))  # no sum of which is published
    assert "OFFICE31.zip cannot be read, it is damaged or no archive" in refused(tmp_path)


def test_counts_classes_and_images_are_checked(tmp_path, small):
    content = files("{}/{}/{}")
    folder = unpack(tmp_path / "downloads" / "manual" / "office31", content)
    mug = folder / "dslr" / "mug" / "frame_0001.jpg"
    mug.unlink()
    assert (
        f"{folder}: the examples of split 'dslr' are not as many as were published: class mug has "
        "1, expected 2. It is not whole, or of another version"
    ) in refused(tmp_path)
    mug.write_bytes(content["dslr/mug/frame_0001.jpg"][:-200])
    assert "office31/dslr/mug/frame_0001.jpg" in refused(tmp_path)
    mug.unlink()
    (folder / "dslr" / "mug").rename(folder / "dslr" / "mugs")
    assert "unknown class 'mugs'. Did you mean 'mug'" in refused(tmp_path)
