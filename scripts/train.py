"""Train one MetaQAP base learner: on synthetic distortions, then on human opinion scores.

    accelerate launch scripts/train.py --stage pretrain --recipe scripts/recipes/pretrain-mobilenetv2.yaml \
        --distorted_dir data/distorted/train --distorted_validation_dir data/distorted/validation \
        --output_dir runs/mobilenetv2-pretrained

    accelerate launch scripts/train.py --stage finetune --recipe scripts/recipes/finetune-pretrained-mobilenetv2.yaml \
        --init runs/mobilenetv2-pretrained/best --data_dir path/to/BIQ2021 --distorted_dir data/distorted/train \
        --output_dir runs/mobilenetv2

Pretraining learns the pseudo opinion score and the distortion of images that scripts/distort.py has made. Fine-tuning
learns human opinion scores, from `--init` or from ImageNet weights. With `synthetic_batch_size` in the recipe each of
its steps adds a few distorted images, so that the learner still recognises distortions afterwards. With
`distorted_weight` such images weigh in when the quality head is fitted at the end. Distorted images of photographs
that are validated on are left out; the file names of the photographs tell which ones these are, so keep the names.

The same script runs, without changes, on one CPU, several CPU processes, one GPU, several GPUs and several machines,
with DDP or FSDP, in full or mixed precision: `accelerate launch` decides (scripts/recipes/accelerate/). The batch size
of the recipe is the global one, and the loss is a statistic of the global batch in each of these settings. Where a
batch does not fit in memory, `--gradient_accumulation_steps` computes the same step in chunks, at the price of a
second forward pass.

The run folder holds recipe.yaml, versions.json, metrics.jsonl, curves.png, states/ to resume from, and the models
best/ (by SROCC on the validation split) and last/, with `refit_head` also refitted/.
A run that was stopped goes on with `--resume_from_checkpoint latest`, and one that has not begun begins with it.

After `pip install metaqap[train]`, `accelerate launch -m modeling_metaqap.training` does the same without this file.
The code is in modeling_metaqap/training/, and begins in loop.py.
"""

from modeling_metaqap.training.__main__ import main

if __name__ == "__main__":
    main(description=__doc__)
