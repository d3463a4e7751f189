"""Arguments of networks are refused by their types, before anything is built."""

import pytest

import zoo


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("spiking_cnn_nano", {"channels": 4}, "channels must be a list of whole numbers, got 4"),
        ("spiking_cnn_nano", {"channels": [4, "a"]}, r"whole numbers, got \[4, 'a'\]"),
        ("spiking_cnn_nano", {"channels": "16"}, "whole numbers, got '16'"),
        ("qcfs_vgg16", {"plan": [24]}, r"a list of a list of whole numbers, got \[24\]"),
        ("ms_resnet18", {"drop_rate": "0.1"}, "drop_rate must be a number, got '0.1'"),
        ("ms_resnet18", {"drop_rate": True}, "drop_rate must be a number, got True"),
        ("ms_resnet18", {"pooled_shortcut": "no"}, "pooled_shortcut must be true or false, got 'no'"),
        ("ms_resnet18", {"neuron_args": 3}, r"neuron_args must be a mapping \{KEY: VALUE\}, got 3"),
        ("ms_resnet18", {"neuron": ["lif"]}, r"neuron must be a word, got \['lif'\]"),
    ],
)
def test_values_of_another_type(name, given, message):
    with pytest.raises(ValueError, match=message):
        zoo.create(name, **given)


def test_words_of_digits_are_words():
    """``pooling: 1010`` in a YAML file is a number."""
    assert zoo.create("spikformer_nano", pooling=1010).model_args["pooling"] == 1010


def test_lists_tuples_and_whole_numbers_for_numbers_fit():
    for channels in ([4, 4, 8], (4, 4, 8)):
        assert zoo.create("spiking_cnn_nano", channels=channels)
    assert zoo.create("ms_resnet18", layers=(1,), planes=[4], stem="3x3", drop_rate=0)


def test_a_misspelt_argument_is_told_with_the_one_that_was_meant():
    with pytest.raises(TypeError, match=r"LIF has no argument 'taau'; did you mean 'tau'\? accepted: tau, "):
        zoo.create("spiking_cnn_nano", neuron_args={"taau": 3})
    with pytest.raises(TypeError, match=r"has no argument 'chanels'; did you mean 'channels'\?"):
        zoo.create("spiking_cnn_nano", chanels=[4])
