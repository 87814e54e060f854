"""The folder of one training run."""

import json
import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..checkpoint_places import checkpoint_folder
from ..data.atomic import write_atomically
from ..errors import MetaQAPError
from ..lineage import software_versions, weights_sha256
from .recipe import Recipe
from .state_files import damage


def _origin(init: str | Path | None, teacher: str | Path | None) -> dict[str, str | None]:
    taught = {} if teacher is None else {"teacher": _short(teacher), "teacher_sha256": weights_sha256(teacher)}
    if init is None:
        return {"init": "ImageNet weights", "weights_sha256": None} | taught
    return {"init": _short(init), "weights_sha256": weights_sha256(init)} | taught


def _short(checkpoint: str | Path) -> str:
    return "/".join((checkpoint_folder(checkpoint) or Path(checkpoint)).absolute().parts[-2:])


def _step_of(state: Path) -> int:
    return int(state.name.removeprefix("step_"))


def _is_state(path: Path) -> bool:
    """Whether a folder is one of ours, not somebody's copy of one; see also `commit_state`."""
    return re.fullmatch("step_[0-9]+", path.name, re.ASCII) is not None and path.is_dir()


def _discard(state: Path) -> None:
    """Remove a state; if it is killed meanwhile, what is left does not pass for one."""
    doomed = state.with_suffix(".old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    state.rename(doomed)
    shutil.rmtree(doomed)


class RunFolder:
    """The files of one training run: recipe, metrics, resumable states and the best and last model."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.metrics_file = self.path / "metrics.jsonl"
        self.states = self.path / "states"

    def start(
        self, recipe: Recipe, *, resume: bool, init: str | Path | None = None, teacher: str | Path | None = None
    ) -> None:
        """Create the folder, or check that a resumed run continues the same recipe.

        A run that is to be resumed but never began is begun, so that one command can be repeated until it is done.

        Args:
            recipe: of the run.
            resume: whether the folder may hold the run already.
            init: trained learner that the run starts from, None for ImageNet weights; noted in origin.json.
            teacher: checkpoint whose scores are learned from too, if any; likewise.

        Raises:
            MetaQAPError: if `refuse_another` does.
        """
        self.refuse_another(recipe, resume=resume, init=init, teacher=teacher)
        recipe_file = self.path / "recipe.yaml"
        if recipe_file.exists():
            return
        self.states.mkdir(parents=True, exist_ok=True)
        versions = software_versions() | {"accelerate": version("accelerate")}
        (self.path / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
        (self.path / "origin.json").write_text(json.dumps(_origin(init, teacher), indent=2) + "\n")
        # The last file, and in one atomic step: with it the run has begun.
        recipe.save(recipe_file)

    def refuse_another(
        self, recipe: Recipe, *, resume: bool, init: str | Path | None = None, teacher: str | Path | None = None
    ) -> None:
        """Raise `MetaQAPError` if the folder holds another run or, on resumption, one that `check` refuses."""
        if not (self.path / "recipe.yaml").exists():
            return
        if not resume:
            raise MetaQAPError(
                f"{self.path} already holds a run; continue it with `resume_from_checkpoint` latest or choose another "
                "`output_dir`."
            )
        self.check(recipe, init=init, teacher=teacher)

    def check(self, recipe: Recipe, *, init: str | Path | None = None, teacher: str | Path | None = None) -> None:
        """Raise `MetaQAPError` if the run that the folder holds has another recipe, other weights to start from or
        another teacher."""
        recipe_file = self.path / "recipe.yaml"
        if Recipe.load(recipe_file) != recipe:
            raise MetaQAPError(f"{self.path} was started with another recipe; resume with {recipe_file}.")
        if (origin := self.origin()) is None:
            return
        same = _origin(init, teacher)
        if origin["weights_sha256"] != same["weights_sha256"]:
            raise MetaQAPError(f"{self.path} was started from {origin['init']}; resume with the same `init`.")
        if origin.get("teacher_sha256") != same.get("teacher_sha256"):
            raise MetaQAPError(
                f"{self.path} was started with {origin.get('teacher', 'no checkpoint')} as teacher; resume with the "
                "same `teacher`."
            )

    def origin(self) -> dict[str, str | None] | None:
        """What the run started from: `init`, the end of the learner's path, and the `weights_sha256` of that one.

        None for a run that was begun before this was noted.
        """
        file = self.path / "origin.json"
        return json.loads(file.read_text()) if file.exists() else None

    def log(self, **values: Any) -> None:
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, without a row that a kill cut off."""
        rows = []
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def forget_after(self, step: int) -> None:
        """Drop what a resumed run will do again: rows and states of later steps, and the heads fitted at the end."""
        for state in self._complete_states():
            if _step_of(state) > step:
                _discard(state)
        rows = [row for row in self.rows() if row.get("step", 0) <= step and not row.get("refit_head")]
        write_atomically(self.metrics_file, "".join(f"{json.dumps(row)}\n" for row in rows).encode())

    def state_to_resume(self, wanted: str | None, *, say: Callable[[str], None] = lambda text: None) -> Path | None:
        """The state that `wanted` means: a path, "latest" for the newest whole one if there is any, None for none.

        Args:
            wanted: see above.
            say: gets a sentence about each newer state that is damaged.

        Raises:
            MetaQAPError: if the path holds no state or a damaged one, or all states are damaged.
        """
        if wanted is None:
            return None
        if wanted == "latest":
            states = self._complete_states()
            for state in reversed(states):
                if (reason := damage(state)) is None:
                    return state
                say(f"The state {state} is damaged and not used: {reason}.")
            if states:
                raise MetaQAPError(
                    f"No state in {self.states} is whole; start again in another `output_dir`, or remove {self.path}."
                )
            return None
        path = Path(wanted)
        if path.suffix == ".tmp" or not list(path.glob("random_states_*.pkl")):
            raise MetaQAPError(
                f"There is no state to resume from in {wanted}; name one of its folders step_*, or latest."
            )
        if reason := damage(path):
            raise MetaQAPError(f"The state {wanted} is damaged: {reason}; resume from another one, or from latest.")
        return path

    def latest_state(self) -> Path | None:
        return next(reversed(self._complete_states()), None)

    def _complete_states(self) -> list[Path]:
        """From the oldest to the newest; one under construction ends in .tmp, see `commit_state`."""
        return sorted(filter(_is_state, self.states.glob("step_*")), key=_step_of)

    def pending_state(self, step: int) -> Path:
        """Where to write the state of `step` before `commit_state` makes it valid."""
        return self.states / f"step_{step}.tmp"

    def clear_pending_state(self, step: int) -> None:
        """Remove what a kill left of a state that was being written."""
        shutil.rmtree(self.pending_state(step), ignore_errors=True)

    def commit_state(self, pending: Path, *, keep: int = 2) -> None:
        """Make a completely written state valid in one atomic step and remove all but the newest `keep`.

        At whatever moment a kill comes, a folder whose name does not end in ".tmp" is whole.
        """
        final = pending.with_suffix("")
        if final.exists():
            _discard(final)
        pending.rename(final)
        for old in self._complete_states()[:-keep]:
            _discard(old)


__all__ = ["RunFolder"]
