"""Public image quality data sets in one schema.

```python
>>> from modeling_metaqap import load_iqa_dataset

>>> dataset = load_iqa_dataset("biq2021", data_dir="path/to/BIQ2021", split="validation")
>>> dataset[0]["quality"]  # in [0, 1], higher is better
```
"""

from .base import FEATURES, IQADatasetBuilder, IQARecord
from .biq2021 import BIQ2021
from .cid2013 import CID2013
from .csiq import CSIQ
from .flive import FLIVE
from .folder import Folder
from .holding_out import hold_out, only_images
from .kadid10k import KADID10k
from .koniq10k import KonIQ10k
from .live import LIVE
from .livec import LIVEC
from .loading import IQA_DATASETS, load_iqa_dataset, load_training_split, raters_scale, split_names
from .spaq import SPAQ
from .tid2013 import TID2013

__all__ = [
    "BIQ2021",
    "CID2013",
    "CSIQ",
    "FEATURES",
    "FLIVE",
    "Folder",
    "IQADatasetBuilder",
    "IQARecord",
    "IQA_DATASETS",
    "KADID10k",
    "KonIQ10k",
    "LIVE",
    "LIVEC",
    "SPAQ",
    "TID2013",
    "hold_out",
    "load_iqa_dataset",
    "load_training_split",
    "only_images",
    "raters_scale",
    "split_names",
]
