"""Both pages, made once from plain and once from hostile results, for all tests of pages."""

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from synthmed_nb.reports import report

EXAMPLES = Path(__file__).parent / "examples"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$x$ and $\\frac{1}{2}$",
    "{{7*7}} {% raw %}",
    "evil\u202etxt\x00",
    "a\nb\tc",
    "日本語 μ",
    "x" * 300,
]


def example(name):
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def plain_results():
    return {name: example(name) for name in ("evaluation", "audit", "manifest")}


def hostile_results():
    """Hostile text wherever a name comes from outside, and counts that may not be shown."""
    results = plain_results()
    evaluation, audit, manifest = results.values()
    fidelity, utility = evaluation["fidelity"], evaluation["utility"]
    for column, name in zip(fidelity["columns"], HOSTILE, strict=True):
        column["name"] = name
        if column["kind"] == "categorical":
            column["bins"] = HOSTILE[: len(column["bins"])]
    fidelity["pair_names"] = HOSTILE
    fidelity["columns"][6]["missing_real"] = 7 / evaluation["rows"]["train"]
    utility["target"] = HOSTILE[0]
    utility["models"][0]["model"] = HOSTILE[1]
    audit["reasons"] = HOSTILE
    audit["verdict"] = "FLAG"
    audit["attacks"][0]["name"], audit["white_box"][0]["name"] = HOSTILE[:2]
    audit["groups"][0]["name"], audit["copies"]["rare_columns"] = HOSTILE[2], HOSTILE[3:5]
    audit["policy"]["name"] = HOSTILE[0]
    audit["rows"]["reference"] = 9
    audit["copies"]["synthetic_share"] = 2 / audit["rows"]["synthetic"]
    manifest["override"] = "agreed by the board <b>"
    manifest["inputs"] = {HOSTILE[0]: HOSTILE[1]}
    manifest["seeds"], manifest["versions"] = {HOSTILE[0]: 1}, {HOSTILE[0]: HOSTILE[1]}
    return results


def make_pages(folder, results):
    """The paths of both pages of these results, written into `folder`."""
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    files = {name: folder / f"{name}.json" for name in results}
    manifest, evaluation, audit = files["manifest"], files["evaluation"], files["audit"]
    return {
        "fidelity": report(
            "fidelity", folder / "fidelity.html", evaluation=evaluation, manifest=manifest
        ),
        "privacy": report("privacy", folder / "privacy.html", audit=audit, manifest=manifest),
    }


@cache
def pages_of(kind):
    """The paths of the pages of a kind, "plain" or "hostile", made when first asked for."""
    folder = TemporaryDirectory(prefix=f"pages-{kind}-")
    atexit.register(folder.cleanup)
    return make_pages(
        Path(folder.name), {"plain": plain_results, "hostile": hostile_results}[kind]()
    )
