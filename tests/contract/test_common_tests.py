"""transformers' own common tests, of the installed version, for one base learner, two, and the image processor.

`bring_common_tests.py` brings them from the package index. What cannot hold for this model is left out below, each
with its reason.
"""

import math
import sys
import unittest
from types import ModuleType

import pytest
import torch
from bring_common_tests import folder_of_common_tests
from repository import ROOT

from modeling_metaqap import MetaQAPConfig, MetaQAPImageProcessor, MetaQAPImageProcessorPil, MetaQAPModel

pytestmark = pytest.mark.slow

if not folder_of_common_tests().exists():
    pytest.skip(
        "transformers' own tests are not here; `python tests/bring_common_tests.py` brings them from the "
        "package index",
        allow_module_level=True,
    )


def module(name, **contents):
    """Stands in for a module of transformers' repository that its source distribution does not hold."""
    sys.modules[name] = made = ModuleType(name)
    vars(made).update(contents)


module("transformers_tests.exporters")
module("transformers_tests.exporters.test_export", ExportTesterMixin=object)
module("transformers_tests.generation")
module("transformers_tests.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
# The photograph that backends are compared on; transformers fetches one from the Hub.
module("fetch_hub_objects_for_ci", url_to_local_path=lambda url: str(ROOT / "space" / "examples" / "chelsea.jpg"))
sys.path.append(str(folder_of_common_tests()))

from transformers_tests import test_image_processing_common, test_modeling_common  # noqa: E402


class ModelTester:
    batch_size = 3
    is_training = True

    def __init__(self, *backbones):
        self.backbones = backbones

    def get_config(self):
        return MetaQAPConfig(base_learners=list(self.backbones), interval_radius=0.1)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": torch.rand(self.batch_size, 3, 64, 64)}


class CommonModelTests(test_modeling_common.ModelTesterMixin):
    all_model_classes = (MetaQAPModel,)
    test_resize_embeddings = False
    has_attentions = False
    # The loss is that of quality alone, and the distortion head has no part in it.
    test_all_params_have_gradient = False

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if return_labels:  # the score of a photograph, where others have classes
            inputs["labels"] = torch.linspace(0, 1, self.model_tester.batch_size)
        return inputs

    @unittest.skip("A CNN has no embeddings of tokens.")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip("There is one label, quality, and 3 are refused. For distortions see test_model_contract.")
    def test_can_load_ignoring_mismatched_shapes(self):
        pass

    def test_hidden_states_output(self):
        """As of transformers' CNNs: not one state for each layer, `(B, tokens, channels)`, but one for each stage."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.output_hidden_states = True
        states = MetaQAPModel(config).eval()(**inputs).hidden_states
        sides = [tuple(state.shape[2:]) for state in states]
        assert sides == [(side, side) for side in (32, 16, 8, 4, 2)] * len(config.base_learners)


class OneLearner(CommonModelTests, unittest.TestCase):
    def setUp(self):
        self.model_tester = ModelTester("test_resnet")


class TwoLearners(CommonModelTests, unittest.TestCase):
    def setUp(self):
        self.model_tester = ModelTester("test_efficientnet", "test_resnet")


class ImageProcessorTester:
    image_processing_classes = {"torchvision": MetaQAPImageProcessor, "pil": MetaQAPImageProcessorPil}
    batch_size = 3
    num_channels = 3

    def __init__(self, parent=None):
        pass

    def prepare_image_processor_dict(self):
        return {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_resize": True}

    def expected_output_image_shape(self, images):
        """As many crops as the image with the most of them has."""
        counts = []
        for image in images:
            if isinstance(image, torch.Tensor):
                sides = image.shape[1:]
            else:
                sides = image.shape[:2] if hasattr(image, "shape") else image.size
            shrunk = [side * min(1, 32 / min(sides)) for side in sides]
            counts.append(math.prod(math.ceil(round(side) / 32) for side in shrunk))
        return max(counts), 3, 32, 32

    def prepare_image_inputs(self, equal_resolution=False, numpify=False, torchify=False):
        return test_image_processing_common.prepare_image_inputs(
            batch_size=self.batch_size,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            numpify=numpify,
            torchify=torchify,
        )


class ImageProcessor(test_image_processing_common.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ImageProcessorTester

    def _assert_tensors_equivalence(self, tensor1, tensor2, **tolerance):
        """Stricter than the test: the backends have no tolerance."""
        assert torch.equal(tensor1, tensor2)
