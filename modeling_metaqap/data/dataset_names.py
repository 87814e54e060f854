"""Names of the data sets. Imports nothing, so that a command can list them at once."""

#: Keys of `iqa_datasets.IQA_DATASETS`.
DATASET_NAMES = (
    "biq2021",
    "cid2013",
    "csiq",
    "flive",
    "folder",
    "kadid10k",
    "koniq10k",
    "live",
    "livec",
    "spaq",
    "tid2013",
)

__all__ = ["DATASET_NAMES"]
