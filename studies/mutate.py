"""Change the code in small ways, one change at a time, and see whether the quick tests notice each.

    python -m pip install cosmic-ray==8.7.0
    python studies/mutate.py                    # all targets
    python studies/mutate.py --targets loss lineage --each 40 --seed 1 --output build/mutants.json
    python studies/mutate.py --targets          # none: writes the reasons into the results anew

Cosmic Ray makes the mutants: it turns `<` into `<=`, a number into the next one, `and` into `or`, leaves a loop out
and so on. Of all places where it can change a target, `--each` are drawn at random, and of each place one change;
changes of type annotations are left out. The tests of the target then run on it in a forked process, in which
everything but this package is imported already, until the first one fails. The files stay as they are: the changed
code is in memory.

A mutant that survives needs a test, or a reason in mutation_reasons.json why no test can or should notice it. One that
has neither makes the program end with status 1. Results are merged into studies/results/mutation.json.
"""

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import multiprocessing
import os
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_metaqap"
OUTPUT = ROOT / "studies/results/mutation.json"
REASONS = ROOT / "studies/mutation_reasons.json"

#: For each target its files in the package (patterns) and the tests that shall notice, which may be chosen as by `-k`.
TARGETS = {
    "processor": (["image_processing_metaqap.py", "crops_metaqap.py"], ["test_image_processing_metaqap.py"]),
    "loss": (["losses_metaqap.py"], ["test_losses_metaqap.py"]),
    "meta-learner": (["fusion/stepwise.py"], ["fusion/test_stepwise.py"]),
    "calibration": (["fusion/conformal.py"], ["fusion/test_conformal.py"]),
    "metrics": (["evaluation/metrics.py"], ["evaluation/test_metrics.py"]),
    "distortions": (["data/distortions/*.py"], ["data/distortions"]),
    "scoring": (["inference/scorer.py"], ["inference/test_scorer.py"], "not TestLargePhotographs and not wherever"),
    "lineage": (["lineage.py"], ["test_lineage.py"]),
}

#: What the tests import besides this package; forked processes have it from the start.
PRELOADED = (
    "datasets, hypothesis, numpy, PIL.Image, scipy.ndimage, scipy.optimize, scipy.stats, skimage.color, skimage.data, "
    "statsmodels.api, timm, torch, torchvision, transformers, transformers.image_processing_backends"
).split(", ")

#: A mutant that takes longer never ends: its tests failed.
SECONDS = 300

# Nothing of this package may be imported before the fork.
_processes = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the lines that differ, before and after, and the code with the change."""

    file: str
    line: int
    before: str
    after: str
    code: str


def mutants_of(file: Path) -> dict[tuple[Any, Any], list[Mutant]]:
    """All mutants that Cosmic Ray makes of a file, by the place of the change."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    source = file.read_text(encoding="utf-8")
    source_lines, skipped = source.splitlines(), list(annotations(source))
    mutants: dict[tuple[Any, Any], list[Mutant]] = {}
    for name in operator_names():
        if get_operator(name).arguments():  # such as the name of a variable
            continue
        operator = get_operator(name)()
        places = [place for node in ast_nodes(get_ast(source)) for place in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            if any(begin <= place[0] and place[1] <= end for begin, end in skipped):
                continue
            if source_lines[place[0][0] - 1][place[0][1] :].startswith(("*,", "/,")):  # of a signature, no operator
                continue
            try:
                code = mutate_code(source, operator, occurrence)
            except AttributeError:  # Cosmic Ray cannot change an exception that has a dot in its name
                continue
            if code is not None and compiles(code) and (lines := different_lines(source, code)):
                mutants.setdefault(place, []).append(
                    Mutant(str(file.relative_to(PACKAGE)), place[0][0], lines[0], lines[1], code)
                )
    return mutants


def annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where type annotations, and sums of types that stand for themselves, begin and end."""
    for node in ast.walk(ast.parse(source)):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr):
            parts.append(node.value)
        for part in parts:
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def compiles(code: str) -> bool:
    """Whether a change left the code grammatical; Cosmic Ray sometimes does not."""
    with warnings.catch_warnings(action="ignore"):
        try:
            compile(code, "mutant", "exec")
        except SyntaxError:
            return False
    return True


def different_lines(source: str, code: str) -> tuple[str, str] | None:
    """The line that a change is in, before and after, without what is around it."""
    old, new = source.splitlines(), code.splitlines()
    pairs = [(one, other) for one, other in zip(old, new, strict=False) if one != other]
    return (pairs[0][0].strip(), pairs[0][1].strip()) if pairs else None


class MutantLoader(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Gives the changed code for one module of the package."""

    def __init__(self, mutant: Mutant):
        parts = Path("modeling_metaqap", mutant.file).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        importlib.machinery.SourceFileLoader.__init__(self, name, str(PACKAGE / mutant.file))
        self.mutant = mutant

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> Any:
        return compile(self.mutant.code, self.path, "exec")


def run_tests(mutant: Mutant | None, tests: Sequence[str], chosen: str) -> None:
    """Run the tests, on a mutant or as it is, and end the process with pytest's status."""
    os.chdir(ROOT)
    if mutant is not None:
        sys.meta_path.insert(0, MutantLoader(mutant))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not long", "-k", chosen]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        status = pytest.main([*options, *(str(ROOT / "tests" / name) for name in tests)])
    os._exit(int(status))


def survives(mutant: Mutant | None, tests: Sequence[str], chosen: str = "") -> bool:
    """Whether all tests pass on a mutant within the time limit."""
    process = _processes.Process(target=run_tests, args=(mutant, tests, chosen))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode == 0


def draw(target: str, *, each: int, seed: int) -> list[Mutant]:
    """Mutants of a target, at different places."""
    patterns = TARGETS[target][0]
    files = [file for pattern in patterns for file in sorted(PACKAGE.glob(pattern))]
    places = [mutants for file in files for mutants in mutants_of(file).values()]
    chance = random.Random(f"{seed} {target}")
    return [chance.choice(mutants) for mutants in chance.sample(places, min(each, len(places)))]


def attack(target: str, *, each: int, seed: int) -> dict[str, Any]:
    """How many mutants of a target were killed, and which survived."""
    tests = TARGETS[target][1:]
    if not survives(None, *tests):
        raise SystemExit(f"mutate: the tests of {target} fail without any change.")
    mutants = sorted(draw(target, each=each, seed=seed), key=lambda mutant: (mutant.file, mutant.line))
    survivors = []
    for mutant in mutants:
        if survives(mutant, *tests):
            survivors.append({"file": mutant.file, "before": mutant.before, "after": mutant.after})
            print(f"{mutant.file}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}", flush=True)
    print(f"{target}: {len(mutants) - len(survivors)} of {len(mutants)} killed", flush=True)
    drawn = {
        "tool": "cosmic-ray 8.7.0",
        "seed": seed,
        "tests": [*tests[0], *(f"-k {chosen}" for chosen in tests[1:])],
        "mutants": len(mutants),
    }
    return drawn | {"killed": len(mutants) - len(survivors), "survived": survivors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--each", type=int, default=20, help="places of each target that are changed")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()

    for name in PRELOADED if arguments.targets else ():
        importlib.import_module(name)
    unexplained = merge(arguments.output, {})
    for target in arguments.targets:
        result = attack(target, each=arguments.each, seed=arguments.seed)
        unexplained = merge(arguments.output, {target: result})
    if unexplained:
        sys.exit(f"mutate: {len(unexplained)} mutants survived without a reason: {'; '.join(unexplained)}")


def merge(output: Path, results: dict[str, Any]) -> list[str]:
    """Add results of targets to those in a file, and the reasons to the survivors; gives those that have none."""
    known = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    results = {target: (known | results)[target] for target in TARGETS if target in known | results}
    reasons = json.loads(REASONS.read_text(encoding="utf-8"))
    unexplained = []
    for survivor in (survivor for result in results.values() for survivor in result["survived"]):
        key = f"{survivor['file']}: {survivor['after']}"
        survivor["reason"] = reasons.get(key)
        unexplained += [key] * (key not in reasons)
    write_atomically(output, (json.dumps(results, indent=2) + "\n").encode())
    return unexplained


def write_atomically(path: Path, data: bytes) -> None:
    """As the package does, which may not be imported here."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)


if __name__ == "__main__":
    main()
