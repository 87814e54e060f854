"""How good a model is on the images that a run is validated on."""

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from ..evaluation.metrics import plcc, srocc
from ..folding import fold_for_inference
from ..modeling_metaqap import MetaQAPModel
from .batches import Batches
from .splits import Splits


class Validation:
    """The validation images of a run, those of each set for themselves.

    Args:
        splits: the images of the run.
        batches: makes batches of them.
    """

    def __init__(self, splits: Splits, batches: Batches):
        self._accelerator = batches.accelerator
        self._rated = [batches.whole(one.validation) for one in splits.sets]
        self._names = [one.source.name for one in splits.sets if one.source is not None]
        self._distorted: DataLoader | None = None
        if splits.distorted_validation is splits.sets[0].validation:
            self._distorted = self._rated[0]
        elif splits.distorted_validation is not None:
            self._distorted = batches.whole(splits.distorted_validation)

    def figures(self, model: MetaQAPModel, *, distortions: bool) -> dict[str, float]:
        """PLCC and SROCC on all validation images; all processes must call this.

        Of several sets these are the means over the sets, and those of each follow, such as `validation_srocc_livec`.
        The line of a set would change neither.

        Args:
            model: to validate.
            distortions: whether to look at distorted images too: the share whose distortion is recognised
                (`validation_distortion_accuracy`), and, where they are other images, the SROCC with their pseudo
                opinion scores (`validation_distorted_srocc`). Level 1 is left out of the share: it is hardly visible.
        """
        of_sets = []
        for loader in self._rated:
            rated = predict(self._accelerator, model, loader)
            predicted, quality = rated["quality"].numpy(), rated["true_quality"].numpy()
            of_sets.append(
                {"validation_plcc": plcc(predicted, quality), "validation_srocc": srocc(predicted, quality)}
            )
        figures = {name: sum(one[name] for one in of_sets) / len(of_sets) for name in of_sets[0]}
        if len(of_sets) > 1:
            for set_name, one in zip(self._names, of_sets, strict=True):
                figures |= {f"{name}_{set_name}": value for name, value in one.items()}
        if not distortions or self._distorted is None:
            return figures
        distorted = rated
        if self._distorted is not self._rated[0]:
            distorted = predict(self._accelerator, model, self._distorted)
            figures["validation_distorted_srocc"] = srocc(
                distorted["quality"].numpy(), distorted["true_quality"].numpy()
            )
        if "distortion" in distorted:
            right = distorted["distortion"] == distorted["true_distortion"]
            figures["validation_distortion_accuracy"] = right[distorted["level"] > 1].float().mean().item()
        return figures


@torch.inference_mode()
def predict(accelerator: Accelerator, model: MetaQAPModel, loader: DataLoader) -> dict[str, Tensor]:
    """What a model says about whole images, gathered from all processes, on the CPU.

    Returns:
        `quality` and `true_quality`, each `(n,)`. For distorted images, if the model has a distortion head, also
        `distortion`, `true_distortion` and `level`.
    """
    model.eval()
    if type(model) is MetaQAPModel and accelerator.mixed_precision == "no":  # not wrapped to share it with others
        model = fold_for_inference(model)
    batches = []
    for batch in loader:
        batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        with accelerator.autocast():
            output = model(pixel_values=batch["pixel_values"], crop_weights=batch["crop_weights"])
        columns = {"quality": output.logits.squeeze(1), "true_quality": batch["labels"]}
        if "distortion" in batch and output.distortion_logits is not None:
            columns["distortion"] = output.distortion_logits.argmax(dim=1)
            columns |= {"true_distortion": batch["distortion"], "level": batch["level"]}
        batches.append({name: tensor.cpu() for name, tensor in accelerator.gather_for_metrics(columns).items()})
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


__all__ = ["Validation", "predict"]
