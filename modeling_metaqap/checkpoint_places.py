"""Where a checkpoint lies: in a folder, in the package, or on the Hub."""

from pathlib import Path

from . import DEFAULT_CHECKPOINT

#: Folder of the checkpoints that ship with the package.
SHIPPED = DEFAULT_CHECKPOINT.parent


def checkpoint_folder(checkpoint: str | Path) -> Path | None:
    """The folder of a checkpoint; None for what can only be a Hub id.

    Args:
        checkpoint: a folder, or the name of a checkpoint that ships, such as "metaqap-nano" or "nano" for short. A
            folder of that name comes first.
    """
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    names = {folder.name: folder for folder in SHIPPED.iterdir()}
    return names.get(str(checkpoint), names.get(f"metaqap-{checkpoint}"))


__all__ = ["SHIPPED", "checkpoint_folder"]
