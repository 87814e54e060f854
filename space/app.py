"""The Space. All that it does lives in the package, which `metaqap serve` starts just as well."""

import os

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.demo import serve
from modeling_metaqap.memory import keep_freed_memory

# The Hub's proxy stands before the server and names its clients here.
os.environ.setdefault("METAQAP_CLIENT_HEADER", "x-forwarded-for")

if __name__ == "__main__":
    keep_freed_memory()
    serve(os.environ.get("METAQAP_CHECKPOINT") or DEFAULT_CHECKPOINT)
