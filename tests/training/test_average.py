import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modeling_metaqap.training.average import WeightAverage, mean_of_models


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_is_that_of_torch_and_survives_saving(decay, make_model, tmp_path):
    model = make_model("test_resnet", distortion_labels=[])
    average = WeightAverage(model, decay=decay)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for step in range(4):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.add_(0.1 * step)
        average.update(model)
        reference.update_parameters(model)
        if step == 1:  # and then it goes on from a saved state
            torch.save(average.state_dict(), tmp_path / "average")
            average = WeightAverage(make_model("test_resnet", distortion_labels=[], seed=1), decay=decay)
            average.load_state_dict(torch.load(tmp_path / "average", weights_only=True))
    assert average.updates == 4
    expected = reference.module.state_dict()
    for name, tensor in average.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


def test_the_mean_of_models_has_the_means_of_all_their_weights(make_model):
    models = [make_model("test_resnet", seed=seed) for seed in range(3)]
    before = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    mean = mean_of_models(models).state_dict()
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, sum(model.state_dict()[name] for model in models) / 3)
        torch.testing.assert_close(models[0].state_dict()[name], before[name])
