import json

import pytest

from modeling_metaqap import MetaQAPConfig
from modeling_metaqap.configuration_metaqap import IMAGENET_MEAN, IMAGENET_STD, KADID_DISTORTIONS


def test_the_default_is_one_efficientnet_lite0_with_kadid_distortions():
    config = MetaQAPConfig()
    assert config.num_base_learners == 1
    assert config.base_learners == [
        {
            "backbone": "tf_efficientnet_lite0",
            "name": "tf_efficientnet_lite0",
            "image_mean": IMAGENET_MEAN,
            "image_std": IMAGENET_STD,
            "stages": None,
            "scales": [1],
            "kernel_head": None,
            "residual_heads": [],
            "distortion_head": True,
            "lineage": [],
        }
    ]
    assert config.distortion_labels == KADID_DISTORTIONS
    assert (config.loss_mse_weight, config.loss_srocc_weight, config.loss_surrogate) == (0.5, 0.5, "softmax")
    assert config.interval_radius is None and config.interval_coverage == 0.9
    assert config.mos_range is None


def test_the_raters_scale_is_kept_and_checked(tmp_path):
    MetaQAPConfig(mos_range=[1, 5]).save_pretrained(tmp_path)
    assert MetaQAPConfig.from_pretrained(tmp_path).mos_range == [1, 5]
    for wrong in (
        [5, 1],
        [1, 1],
        [1],
        [1, 2, 3],
        "15",
        [0, float("inf")],
        [0, 10**400],
        [-1.7e308, 1.7e308],
        [True, 5],
        5,
        ["1", 5],
    ):
        with pytest.raises(ValueError, match="`mos_range` must be the lowest and the highest rating"):
            MetaQAPConfig(mos_range=wrong)


def test_kadid_distortions_stand_in_the_order_of_the_data_set():
    # KADID-10k (Lin, Hosu and Saupe 2019), section III: 7 families of 3, 5, 2, 5, 3, 5 and 2 distortions.
    assert len(KADID_DISTORTIONS) == len(set(KADID_DISTORTIONS)) == 25
    for number, name in {
        1: "gaussian_blur",
        4: "color_diffusion",
        9: "jpeg2000_compression",
        10: "jpeg_compression",
        11: "white_noise",
        16: "brighten",
        19: "jitter",
        24: "high_sharpen",
        25: "contrast_change",
    }.items():
        assert KADID_DISTORTIONS[number - 1] == name


def test_it_is_a_regression_of_one_value_named_quality_whatever_is_asked():
    for config in (MetaQAPConfig(), MetaQAPConfig(num_labels=1), MetaQAPConfig(id2label={0: "a", 1: "b"})):
        assert (config.num_labels, config.id2label, config.label2id) == (1, {0: "quality"}, {"quality": 0})
        assert config.problem_type == "regression"


def test_another_number_of_labels_is_refused_when_made_and_when_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"so `num_labels` is 1, not 7.*`distortion_labels`"):
        MetaQAPConfig(num_labels=7)
    with pytest.raises(ValueError, match="`num_labels` is 1, not 0"):
        MetaQAPConfig(num_labels=0)
    MetaQAPConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`num_labels` is 1, not 3"):
        MetaQAPConfig.from_pretrained(tmp_path, num_labels=3)
    assert MetaQAPConfig.from_pretrained(tmp_path, num_labels=1).label2id == {"quality": 0}


def test_it_survives_json_and_a_folder(tmp_path):
    config = MetaQAPConfig(
        base_learners=["test_resnet", {"backbone": "test_efficientnet", "image_mean": [0.5] * 3, "stages": [1, 3]}],
        distortion_labels=["blur", "noise"],
        interval_radius=0.12,
        interval_coverage=0.8,
        loss_mse_weight=0.25,
        loss_srocc_weight=0.75,
        loss_surrogate="soft_rank",
        lineage=[{"kind": "fusion", "dataset": "biq2021", "split": "validation"}],
    )
    config.save_pretrained(tmp_path)
    loaded = MetaQAPConfig.from_pretrained(tmp_path)
    again = MetaQAPConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))
    for other in (loaded, again):
        for name in (
            "base_learners",
            "distortion_labels",
            "interval_radius",
            "interval_coverage",
            "loss_mse_weight",
            "loss_srocc_weight",
            "loss_surrogate",
            "lineage",
            "id2label",
            "auto_map",
        ):
            assert getattr(other, name) == getattr(config, name), name


def test_an_empty_list_of_distortions_stays_empty(tmp_path):
    MetaQAPConfig(distortion_labels=[]).save_pretrained(tmp_path)
    assert MetaQAPConfig.from_pretrained(tmp_path).distortion_labels == []


def test_two_configurations_share_no_lists():
    learner = {"backbone": "test_resnet", "image_mean": [0.1, 0.2, 0.3]}
    first, second = MetaQAPConfig(base_learners=[learner]), MetaQAPConfig(base_learners=[learner])
    first.base_learners[0]["image_mean"][0] = 9.0
    first.base_learners[0]["image_std"][0] = 9.0
    first.distortion_labels[0] = "changed"
    assert second.base_learners[0]["image_mean"] == learner["image_mean"] == [0.1, 0.2, 0.3]
    assert MetaQAPConfig().base_learners[0]["image_std"] == [0.229, 0.224, 0.225]
    assert MetaQAPConfig().distortion_labels[0] == "gaussian_blur"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_learners": []}, "at least one"),
        ({"base_learners": "resnet18"}, "must be a list"),
        ({"base_learners": [None]}, "needs a `backbone`"),
        ({"base_learners": [{"name": "a"}]}, "needs a `backbone`"),
        ({"base_learners": [{"backbone": "resnet18", "stride": 2}]}, "Unknown base learner option .'stride'."),
        ({"base_learners": [{"backbone": "resnet18", "image_mean": [0.5]}]}, "three numbers"),
        ({"base_learners": [{"backbone": "resnet18", "image_std": [1, 1, 0]}]}, "above 0"),
        ({"base_learners": [{"backbone": "resnet18", "stages": []}]}, "at least one"),
        ({"base_learners": [{"backbone": "resnet18", "stages": [1, 1]}]}, "different stages"),
        ({"base_learners": [{"backbone": "resnet18", "stages": 3}]}, "must list different stages"),
        *(
            (
                {"base_learners": [{"backbone": "resnet18", "scales": scales}]},
                "`scales` must list different whole numbers",
            )
            for scales in ([], [1, 1], [0], [1, 65], [1.5], [True], [[1]], None, 2, "12", list(range(1, 10)))
        ),
        ({"loss_surrogate": "kendall"}, "'softmax' or 'soft_rank'"),
        ({"dtype": "x"}, "float32, bfloat16, float16, float64"),
        ({"torch_dtype": "load"}, "`dtype` must be one of"),
        ({"interval_radius": -0.1}, "not be negative"),
        ({"interval_coverage": 90}, "between 0 and 1, got 90"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_is_possible(options, message):
    with pytest.raises(ValueError, match=message):
        MetaQAPConfig(**options)


def test_the_entry_for_saved_pipelines_is_for_processes_without_the_package():
    assert not hasattr(MetaQAPConfig(custom_pipelines={"image-quality-assessment": {}}), "custom_pipelines")


def test_trainer_can_add_to_the_keys_that_it_ignores():
    # `Trainer` computes `keys_to_ignore_at_inference + ["loss"]`.
    assert isinstance(MetaQAPConfig.keys_to_ignore_at_inference, list)
    assert "logits" not in MetaQAPConfig.keys_to_ignore_at_inference


def test_labels_that_no_learner_can_name_are_refused():
    with pytest.raises(ValueError, match="no base learner has a `distortion_head`"):
        MetaQAPConfig(base_learners=[{"backbone": "test_resnet", "distortion_head": False}])
    silent = {"backbone": "test_resnet", "distortion_head": False}
    assert len(MetaQAPConfig(base_learners=[silent, "test_resnet"]).distortion_labels) == 25


@pytest.mark.parametrize(
    "kernel_head",
    [{"num_components": 4}, {"num_components": 0, "num_centers": 5}, {"num_components": 4, "num_centers": 2.5}, 7],
)
def test_an_impossible_kernel_head_is_refused(kernel_head):
    with pytest.raises(ValueError, match="`kernel_head` must be None or have"):
        MetaQAPConfig(base_learners=[{"backbone": "test_resnet", "kernel_head": kernel_head}])


@pytest.mark.parametrize("residual_heads", [None, {"num_components": 4, "num_centers": 9}, [{"num_centers": 9}]])
def test_impossible_heads_of_adaptations_are_refused(residual_heads):
    with pytest.raises(ValueError, match="`residual_heads` must be a list"):
        MetaQAPConfig(base_learners=[{"backbone": "test_resnet", "residual_heads": residual_heads}])
