"""Looks the pinned packages up among the known vulnerabilities: `make audit`.

Each finding is either explained in ACCEPTED or fails the check (status 1). Two services are asked: the package index
and, where that does not know all packages, the database osv.dev. Where neither can be asked, nothing is known, and
that is what this says (status 2): pip-audit itself then prints that there are no known vulnerabilities.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"

SERVICES = ("pypi", "osv")

#: For the id of a finding, why it does not concern this project.
ACCEPTED: dict[str, str] = {}


def look_up(service: str) -> list[dict[str, Any]]:
    """What a service says of each pinned package; nothing if it does not answer."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    try:
        finished = subprocess.run(
            [*command, "-f", "json", "-s", service], capture_output=True, text=True, timeout=600, check=False
        )
        return json.loads(finished.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return []


def unknown(packages: list[dict[str, Any]]) -> list[str]:
    """Names of the packages that a service says nothing of."""
    return [package["name"] for package in packages if "skip_reason" in package]


def reason_for(finding: dict[str, Any]) -> str | None:
    """Why a finding does not concern this project."""
    return next((ACCEPTED[one] for one in (finding["id"], *finding.get("aliases", [])) if one in ACCEPTED), None)


def main() -> int:
    packages: list[dict[str, Any]] = []
    for service in SERVICES:
        answer = look_up(service)
        if len(answer) - len(unknown(answer)) > len(packages) - len(unknown(packages)):
            packages = answer
        if packages and not unknown(packages):
            break
    skipped = unknown(packages)
    if len(skipped) == len(packages):
        print("audit: nothing was looked up, since no index of vulnerabilities can be reached from here.")
        return 2
    findings = [
        (package["name"], package["version"], finding) for package in packages for finding in package.get("vulns", [])
    ]
    for name, version, finding in findings:
        fixed = ", ".join(finding.get("fix_versions", [])) or "no version yet"
        print(f"{name} {version}: {finding['id']} (mended in {fixed}): {reason_for(finding) or 'NOT EXPLAINED'}")
    print(f"audit: {len(packages) - len(skipped)} of {len(packages)} packages looked up, {len(findings)} findings.")
    if skipped:
        shown = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        print(f"audit: nothing is known of {shown}.")
    if any(reason_for(finding) is None for *_, finding in findings):
        return 1
    return 2 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
