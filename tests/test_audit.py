"""`make audit`: what pip-audit says becomes a verdict, and where nothing can be looked up that is said."""

import json
import subprocess

import pytest
from repository import ROOT
from script_loader import load_program

audit = load_program(ROOT / ".ci/audit.py")

CLEAN = {"name": "numpy", "version": "2.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "not found"}
FOUND = {
    "name": "pillow",
    "version": "11.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["11.1"]}],
}


@pytest.fixture
def verdict(monkeypatch, capsys):
    """Status and text for what each service answers: packages, or a text that is no answer."""

    def verdict(pypi, osv="Traceback: no route to host", accepted=()):
        asked = []

        def run(command, **options):
            asked.append(command[-1])
            answer = {"pypi": pypi, "osv": osv}[command[-1]]
            text = answer if isinstance(answer, str) else json.dumps({"dependencies": answer})
            return subprocess.CompletedProcess(command, 0, stdout=text, stderr="")

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(audit, "ACCEPTED", dict(accepted))
        return audit.main(), capsys.readouterr().out, asked

    return verdict


def test_clean_packages_pass_and_the_second_service_is_left_alone(verdict):
    assert verdict([CLEAN]) == (0, "audit: 1 of 1 packages looked up, 0 findings.\n", ["pypi"])


def test_a_finding_fails_until_it_is_explained_by_any_of_its_names(verdict):
    status, text, _ = verdict([CLEAN, FOUND])
    assert status == 1 and "pillow 11.0: PYSEC-1 (mended in 11.1): NOT EXPLAINED" in text
    status, text, _ = verdict([CLEAN, FOUND], accepted={"CVE-1": "only of GIMP brushes"}.items())
    assert status == 0 and "(mended in 11.1): only of GIMP brushes" in text


@pytest.mark.parametrize("answer", ["", "[]", [], [SKIPPED, SKIPPED]])
def test_where_nothing_can_be_looked_up_one_sentence_says_so(verdict, answer):
    sentence = "audit: nothing was looked up, since no index of vulnerabilities can be reached from here.\n"
    assert verdict(answer) == (2, sentence, ["pypi", "osv"])


def test_what_one_service_does_not_know_the_other_is_asked_for(verdict):
    assert verdict([SKIPPED, CLEAN], [CLEAN, CLEAN])[:2] == (0, "audit: 2 of 2 packages looked up, 0 findings.\n")
    status, text, _ = verdict([SKIPPED, CLEAN], [SKIPPED, SKIPPED])
    assert (status, text.splitlines()[1]) == (2, "audit: nothing is known of torch.")
