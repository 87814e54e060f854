"""Looks the pinned packages up among the known vulnerabilities: `make audit`.

Each finding is either explained in ACCEPTED or fails the check. Where the service cannot be asked, nothing is known,
and that is what this says: pip-audit itself then prints that there are no known vulnerabilities.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"

#: For the id of a finding, why it does not concern this project.
ACCEPTED: dict[str, str] = {}


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "-f", "json"]
    finished = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(finished.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"audit: pip-audit could not look anything up: {finished.stderr.strip().splitlines()[-1:]}")
        return 2
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    findings = [
        (package["name"], package["version"], finding) for package in packages for finding in package.get("vulns", [])
    ]
    for name, version, finding in findings:
        ids = [finding["id"], *finding.get("aliases", [])]
        reason = next((ACCEPTED[one] for one in ids if one in ACCEPTED), None)
        fixed = ", ".join(finding.get("fix_versions", [])) or "no version yet"
        print(f"{name} {version}: {finding['id']} (mended in {fixed}): {reason or 'NOT EXPLAINED'}")
    looked_up = len(packages) - len(skipped)
    print(f"audit: {looked_up} of {len(packages)} packages were looked up, {len(findings)} findings.")
    if skipped:
        shown = ", ".join(skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        print(f"audit: nothing is known of {len(skipped)} packages ({shown}); is the network there?")
    if any(not ACCEPTED.keys() & {finding["id"], *finding.get("aliases", [])} for *_, finding in findings):
        return 1
    return 2 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
