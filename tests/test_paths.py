import pytest

from jaxtl import paths

TREE = {"backbone": {"conv_0": {"kernel": 1, "bias": 2}, "conv_1": {"kernel": 3}}, "head": {"b": 4}}


def test_flatten_and_nest_are_inverse():
    flat = paths.flatten(TREE)
    assert flat["backbone/conv_0/bias"] == 2 and len(flat) == 4
    assert paths.nest(flat) == TREE


def test_patterns_match_whole_paths_only():
    assert paths.matches(["backbone/.*"], "backbone/conv_0/kernel")
    assert not paths.matches(["conv_0", "backbone/conv_0"], "backbone/conv_0/kernel")


def test_select_lists_every_bad_pattern_with_the_closest_paths():
    with pytest.raises(ValueError) as error:
        paths.select(["head/.*", "hed/b", "backbone/convo_1/.*", "("], paths.flatten(TREE))
    message = str(error.value)
    assert "'hed/b' matched no parameter. Closest paths: head/b" in message
    assert "backbone/conv_1/kernel" in message and "'(' is not a regular expression" in message
    assert "'head/.*'" not in message


def test_the_first_group_takes_a_path_and_frozen_may_be_a_group():
    labels = paths.label(
        paths.flatten(TREE), {"frozen": ["backbone/conv_0/.*"], "all": ["backbone/.*"]}
    )
    assert labels == {
        "backbone/conv_0/kernel": "frozen",
        "backbone/conv_0/bias": "frozen",
        "backbone/conv_1/kernel": "all",
        "head/b": "frozen",
    }


def test_a_group_that_gets_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"group 'late' .* has no parameter left"):
        paths.label(paths.flatten(TREE), {"all": [".*"], "late": ["head/.*"]})


def test_split_and_join_are_inverse_and_join_refuses_overlap():
    inside, outside = paths.split(TREE, lambda path: path.endswith("kernel"))
    assert inside == {"backbone": {"conv_0": {"kernel": 1}, "conv_1": {"kernel": 3}}}
    assert paths.join(inside, outside) == TREE
    with pytest.raises(ValueError, match="backbone/conv_1/kernel"):
        paths.join(inside, TREE)


def test_unknown_names_the_closest():
    message = paths.unknown("backbone", "resnet55", ["lenet", "resnet50"])
    assert (
        message == "unknown backbone 'resnet55'. Did you mean 'resnet50'? Known: lenet, resnet50."
    )
