import pytest
import torch

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import Stage, learner_stages, write_stages
from modeling_metaqap.training import learner as learner_module
from modeling_metaqap.training.backbones import imagenet_weights
from modeling_metaqap.training.learner import (
    add_drop_path,
    freeze_batch_norm,
    freeze_stages,
    model_config,
    move_toward_imagenet,
    new_base_learner,
)
from modeling_metaqap.training.recipe import Recipe

#: With the normalisation of its ImageNet weights.
TEST_RESNET = {"backbone": "test_resnet", **imagenet_weights("test_resnet").normalization()}


@pytest.fixture
def no_imagenet(monkeypatch):
    monkeypatch.setattr(learner_module, "load_imagenet_weights", lambda backbone, name: None)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_moving_toward_imagenet_goes_that_part_of_the_way(monkeypatch, make_model, share):
    model = make_model(TEST_RESNET)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def load(backbone, weights):
        assert weights.backbone == "test_resnet"
        for tensor in backbone.state_dict().values():
            tensor.fill_(2)

    monkeypatch.setattr(learner_module, "load_imagenet_weights", load)
    move_toward_imagenet(model, share)
    for name, tensor in model.state_dict().items():
        if name.startswith("base_learners.0.backbone.") and tensor.is_floating_point():
            assert torch.allclose(tensor, (1 - share) * before[name] + share * 2, atol=1e-6), name
        elif not name.startswith("base_learners.0.backbone."):
            assert torch.equal(tensor, before[name]), "the heads are none of its business"


def test_residual_blocks_are_left_out_while_a_learner_trains(make_model):
    model = make_model("mobilenetv2_100").eval()
    images = torch.rand(2, 3, 64, 64)
    before, names = model(images).logits, list(model.state_dict())
    add_drop_path(model, 0.9)
    assert torch.equal(model(images).logits, before) and list(model.state_dict()) == names, "only in training"
    rates = [block.drop_path.drop_prob for block in model.modules() if hasattr(block, "drop_path")]
    assert rates[0] == 0 and rates[-1] == 0.9 and rates == sorted(rates) and len(set(rates)) == len(rates) > 10
    freeze_batch_norm(model.train())
    assert not torch.equal(model(images).logits, model(images).logits)


def test_a_backbone_without_residual_blocks_has_none_to_leave_out(make_model):
    with pytest.raises(MetaQAPError, match="no residual blocks that timm can leave out; set `drop_path` to 0"):
        add_drop_path(make_model("vgg11"), 0.1)


def test_moving_toward_imagenet_without_its_weights_is_a_sentence(monkeypatch, make_model):
    def load(backbone, name):
        raise OSError("The ImageNet weights could not be downloaded.")

    monkeypatch.setattr(learner_module, "load_imagenet_weights", load)
    with pytest.raises(MetaQAPError, match="could not be downloaded"):
        move_toward_imagenet(make_model(TEST_RESNET), 0.5)


def test_moving_toward_imagenet_needs_the_weights_that_the_learner_started_from(make_model):
    other = make_model({"backbone": "test_resnet", "image_mean": [0.1, 0.2, 0.3]})
    with pytest.raises(MetaQAPError, match="normalises images in another way than the ImageNet weights of timm's hub"):
        move_toward_imagenet(other, 0.5)


def test_a_learner_keeps_its_own_normalisation_where_the_recipe_would_have_another(tmp_path, make_model):
    # It was begun where its ImageNet weights came from elsewhere.
    normalised = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    make_model({"backbone": "test_resnet", **normalised}, distortion_labels=[]).save_pretrained(tmp_path)
    model = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    assert normalised.items() <= model.config.base_learners[0].items()
    assert model.base_learners[0].image_mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_new_base_learner_says_what_its_weights_were_made_of(tmp_path, make_model, no_imagenet):
    [first] = learner_stages(new_base_learner(Recipe(backbone="test_resnet")).config)
    assert first == [imagenet_weights("test_resnet").stage()]
    before = [*first, Stage(kind="pretrain"), Stage(kind="finetune", dataset="live", split="train")]
    trained = make_model(TEST_RESNET | {"lineage": write_stages(before)}, distortion_labels=[])
    trained.save_pretrained(tmp_path)
    model = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    assert learner_stages(model.config) == [before]


def test_a_new_base_learner_depends_on_the_seed_alone(no_imagenet):
    models = [new_base_learner(Recipe(backbone="test_resnet", seed=seed)) for seed in (1, 1, 2)]
    first, same, other = (model.base_learners[0].backbone.conv1[0].weight for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert models[0].config.distortion_labels == []


def test_a_new_base_learner_takes_imagenet_weights(monkeypatch):
    def fill(backbone, weights):
        assert weights.backbone == "test_resnet"
        torch.nn.init.constant_(backbone.conv1[0].weight, 7)

    monkeypatch.setattr(learner_module, "load_imagenet_weights", fill)
    model = new_base_learner(Recipe(backbone="test_resnet"))
    assert (model.base_learners[0].backbone.conv1[0].weight == 7).all()


def test_a_base_learner_can_start_from_a_trained_one(tmp_path, make_model):
    trained = make_model(TEST_RESNET, distortion_labels=[])
    trained.save_pretrained(tmp_path)
    model = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    for name, tensor in model.base_learners[0].state_dict().items():
        assert torch.equal(tensor, trained.base_learners[0].state_dict()[name]), name
    with pytest.raises(MetaQAPError, match="does not hold the base learner"):
        new_base_learner(Recipe(backbone="test_efficientnet"), init=tmp_path)
    with pytest.raises(MetaQAPError, match="has no head for the 25 distortions; pretrain it first"):
        new_base_learner(Recipe(backbone="test_resnet", synthetic_batch_size=4), init=tmp_path)
    with pytest.raises(MetaQAPError, match="nowhere is not a MetaQAP checkpoint"):
        new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path / "nowhere")


def test_at_other_scales_the_backbone_of_a_trained_learner_is_taken_and_its_heads_are_not(tmp_path, make_model):
    trained = make_model(TEST_RESNET)
    trained.save_pretrained(tmp_path)
    recipe = Recipe(backbone="test_resnet", scales=[1, 2], epochs=0, refit_head=True, refit_distortion_head=True)
    model = new_base_learner(recipe, init=tmp_path)
    [learner], old = model.base_learners, trained.base_learners[0]
    for name, tensor in learner.backbone.state_dict().items():
        assert torch.equal(tensor, old.backbone.state_dict()[name]), name
    for tensor in (learner.feature_mean, learner.quality_head.weight[0], learner.distortion_head.weight[0]):
        assert tensor.shape == (2 * len(old.feature_mean),)
    with pytest.raises(MetaQAPError, match=r"`scales` must list different whole numbers from 1 to 64, 8 at most"):
        new_base_learner(Recipe(backbone="test_resnet", scales=[65]))
    with pytest.raises(MetaQAPError, match="has no head for the 25 distortions at these scales; pretrain it first"):
        new_base_learner(Recipe(backbone="test_resnet", scales=[1, 2], synthetic_batch_size=4), init=tmp_path)


def test_what_a_recipe_does_not_say_stays_as_the_trained_learner_has_it(tmp_path, make_model):
    settings = {"loss_surrogate": "soft_rank", "loss_mse_weight": 0.75, "loss_srocc_weight": 0.125}
    trained = make_model(TEST_RESNET | {"scales": [1, 2]}, distortion_labels=[], **settings)
    trained.save_pretrained(tmp_path)
    for recipe in (Recipe(backbone="test_resnet"), Recipe(backbone="test_resnet", epochs=0, refit_head=True)):
        model = new_base_learner(recipe, init=tmp_path)
        assert model.config.base_learners[0]["scales"] == [1, 2]
        assert torch.equal(model.base_learners[0].quality_head.weight, trained.base_learners[0].quality_head.weight)
        # Gradient steps are by the recipe's loss; heads in closed form by none.
        learned_by = {name: getattr(model.config, name) for name in settings}
        assert (learned_by == settings) == (recipe.epochs == 0)


def test_a_distortion_head_is_taken_over_where_it_will_be_trained_and_dropped_elsewhere(tmp_path, make_model):
    pretrained = make_model(TEST_RESNET)
    pretrained.save_pretrained(tmp_path)
    kept = new_base_learner(Recipe(backbone="test_resnet", synthetic_batch_size=4), init=tmp_path)
    assert torch.equal(
        kept.base_learners[0].distortion_head.weight, pretrained.base_learners[0].distortion_head.weight
    )
    dropped = new_base_learner(Recipe(backbone="test_resnet"), init=tmp_path)
    assert dropped.base_learners[0].distortion_head is None
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(dropped.eval()(x).logits, pretrained(x).logits)


@pytest.mark.parametrize(("stage", "stream", "labels"), [("pretrain", 0, 25), ("finetune", 2, 25), ("finetune", 0, 0)])
def test_a_learner_has_a_distortion_head_where_it_sees_distorted_images(stage, stream, labels):
    recipe = Recipe(backbone="test_resnet", stage=stage, synthetic_batch_size=stream)
    assert len(model_config(recipe).distortion_labels) == labels


def test_a_backbone_that_timm_does_not_have_is_one_sentence():
    with pytest.raises(MetaQAPError, match="no model 'resnet_fifty'"):
        new_base_learner(Recipe(backbone="resnet_fifty"))


def test_weights_that_cannot_be_had_are_one_sentence(monkeypatch):
    def unreachable(backbone, name):
        raise OSError("The ImageNet weights could not be downloaded.")

    monkeypatch.setattr(learner_module, "load_imagenet_weights", unreachable)
    with pytest.raises(MetaQAPError, match="could not be downloaded"):
        new_base_learner(Recipe(backbone="test_resnet"))


@pytest.mark.parametrize(
    ("backbone", "count", "frozen"),
    [
        ("test_efficientnet", 0, ()),
        ("test_efficientnet", 1, ("conv_stem", "bn1", "blocks.0")),
        ("test_efficientnet", 2, ("conv_stem", "bn1", "blocks.0", "blocks.1")),
        ({"backbone": "test_efficientnet", "stages": [4]}, 2, ("conv_stem", "bn1", "blocks.0", "blocks.1")),
        ("test_resnet", 1, ("conv1", "bn1")),  # the first stage is an activation without weights
        ("test_resnet", 2, ("conv1", "bn1", "layer1")),
        ("test_convnext", 1, ("stem_0", "stem_1", "stages_0")),
    ],
)
def test_the_first_stages_and_all_before_them_are_frozen(backbone, count, frozen, make_model):
    model = make_model(backbone)
    freeze_stages(model, count)
    for name, parameter in model.base_learners[0].named_parameters():
        expected = name.startswith(tuple(f"backbone.{part}." for part in frozen))
        assert parameter.requires_grad is not expected, name


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("stages", [[0, 2], None])
def test_what_lies_behind_the_last_pooled_stage_waits_for_no_gradient(backbone, stages, make_model):
    model = make_model({"backbone": backbone, "stages": stages}, distortion_labels=[])
    freeze_stages(model, 0)
    model(pixel_values=torch.rand(2, 3, 64, 64)).logits.sum().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("meta_learner"):
            assert parameter.requires_grad == (parameter.grad is not None), name


@pytest.mark.parametrize("count", [-1, 6])
def test_stages_that_do_not_exist_cannot_be_frozen(count, make_model):
    with pytest.raises(MetaQAPError, match="`freeze_stages` must lie between 0 and 5"):
        freeze_stages(make_model("test_efficientnet"), count)


def test_a_stage_behind_the_last_pooled_one_cannot_be_frozen(make_model):
    with pytest.raises(MetaQAPError, match="`freeze_stages` must lie between 0 and 3"):
        freeze_stages(make_model({"backbone": "test_efficientnet", "stages": [0, 2]}), 4)


def test_batch_norm_keeps_its_statistics_in_training(make_model):
    model = make_model("test_resnet")
    model.train()
    freeze_batch_norm(model)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        in_training = model(x).logits
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    with torch.no_grad():
        torch.testing.assert_close(in_training, model.eval()(x).logits)


def test_a_trained_model_is_a_model_like_any_other(no_imagenet, tmp_path):
    model = new_base_learner(Recipe(backbone="test_resnet", loss_surrogate="soft_rank"))
    model.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path)
    assert loaded.config.loss_surrogate == "soft_rank"
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x).logits, model.eval()(x).logits)
