"""docs/truth.md leads from an empty folder to a gated nightly run: its commands and settings work as written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

from conftest import Place, Ran

PAGE = (Path(__file__).parent.parent / "docs" / "truth.md").read_text(encoding="utf-8")


def block(heading: str, kind: str) -> str:
    """Return the first block of this language under a heading, without the indentation of a list."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE)
    indent, text = next((indent, text) for indent, block, text in blocks if block == kind)
    return re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def nightly(place: Place) -> list[Ran]:
    """Run the commands of the crontab in order, and return how they ended."""
    commands = re.findall(r"&& (pipeline .*)", block("From nothing to a gated night", ""))
    return [place.call(*shlex.split(command)[1:]) for command in commands]


def test_truth_page_leads_to_a_gated_nightly_run(place: Place) -> None:
    """Good nights print no output, with a baseline too, and a too high gate exits with 1."""
    place.env |= {"PIPELINE_CONFIG": "", "VLLM_BASE_URL": place.server.url}
    assert place.call("init", "my_project").code == 0
    place.folder = place.folder / "my_project"
    inbox = place.folder / "inbox"
    for number in range(34):
        (inbox / f"letter {number}.txt").write_text(f"Letter {number}.", encoding="utf-8")
    assert place.call("run").code == 0
    lines = [json.dumps({"id": line["id"], "gold": line["output"]}) for line in place.lines("results.jsonl")]
    (place.folder / "labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert place.call("review", "out", "--import", "labels.jsonl").code == 0
    assert place.call("eval", "out", "--gold", "gold.jsonl").code == 0

    def shell(text: str) -> None:
        subprocess.run(["bash", "-euc", text], cwd=place.folder, check=True)

    shell(block("From nothing to a gated night", "sh"))
    copied = {path.name: path.read_bytes() for path in (place.folder / "judged").iterdir()}
    assert copied == {path.name: path.read_bytes() for path in inbox.iterdir()}
    config = place.folder / "config" / "default.yaml"
    first = config.read_text(encoding="utf-8")
    config.write_text(first + block("From nothing to a gated night", "yaml"), encoding="utf-8")
    assert [(ran.code, ran.out, ran.err) for ran in nightly(place)] == [(0, "", "")] * 2

    keep, compare = block("Gates", "sh").splitlines()
    shell(keep)
    ran = place.call(*shlex.split(compare)[1:])
    assert (ran.code, ran.out.count("passed")) == (0, 2)
    config.write_text(first + block("Every night", "yaml"), encoding="utf-8")
    assert [(ran.code, ran.out, ran.err) for ran in nightly(place)] == [(0, "", "")] * 2
    config.write_text(first + block("Every night", "yaml").replace("0.8}", "1}"), encoding="utf-8")
    assert [ran.code for ran in nightly(place)] == [1, 1]
