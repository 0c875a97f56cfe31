"""Text from a dataset that TFDS has prepared."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.manifest import Manifest
from hope_jax.data.tfds_source import TfdsSource

STORIES = [f"Story {n}. " + "Once upon a time. " * n for n in range(1, 30)]


class Stories(tfds.core.GeneratorBasedBuilder):
    """A small text dataset."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        features = {"story": tfds.features.Text(), "length": np.int64}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(STORIES[:25]),
            "test": self._generate_examples(STORIES[25:]),
        }

    def _generate_examples(self, stories):
        for index, story in enumerate(stories):
            yield index, {"story": story, "length": len(story)}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Stories(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder / "stories" / "1.0.0"


def test_named_splits(stories, tmp_path):
    source = TfdsSource(stories, feature="story", validation_split="test")
    train = [document.data.decode() for document in source.documents("train")]
    assert train == STORIES[:25]
    assert [d.data.decode() for d in source.documents("validation")] == STORIES[25:]
    assert source.size() == sum(map(len, STORIES))
    prepare(tmp_path / "out", source, ByteTokenizer(end=True))
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.splits["train"].documents == 25
    assert manifest.splits["validation"].tokens == sum(map(len, STORIES[25:])) + 4
    assert manifest.source["name"] == "stories/1.0.0"


def test_held_out_end_of_a_split(stories):
    source = TfdsSource(stories, feature="story", split="train[:20]", validation=0.2)
    train = [document.data.decode() for document in source.documents("train")]
    held_out = [document.data.decode() for document in source.documents("validation")]
    assert train + held_out == STORIES[:20] and 1 <= len(held_out) <= 4


def test_bad_arguments_are_refused(stories, tmp_path):
    with pytest.raises(ValueError, match="not a prepared TFDS dataset"):
        TfdsSource(tmp_path)
    with pytest.raises(ValueError, match="no feature 'text'; it has 'length', 'story'"):
        TfdsSource(stories)
    with pytest.raises(ValueError, match="'dev'.*splits: test, train"):
        TfdsSource(stories, feature="story", split="dev")
    with pytest.raises(ValueError, match="not text; choose another --feature"):
        list(TfdsSource(stories, feature="length").documents("train"))
