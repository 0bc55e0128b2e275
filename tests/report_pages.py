"""All four pages, made once from plain and once from hostile results, for all tests of pages."""

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from synthmed_nb.reports import report

EXAMPLES = Path(__file__).parent / "examples"
INPUTS = {  # what each page is made of, beside the manifest
    "release": ["evaluation", "audit"],
    "fidelity": ["evaluation"],
    "utility": ["evaluation"],
    "privacy": ["audit"],
}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$x$ and $\\frac{1}{2}$",
    "{{7*7}} {% raw %}",
    "evil\u202etxt\x00",
    "a\nb\tc",
    "日本語 μ",
    "x" * 10_000,
]


def example(name):
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def plain_results():
    return {name: example(name) for name in ("evaluation", "audit", "manifest")}


def hostile(count):
    """So many hostile names, some more than once."""
    return (HOSTILE * (1 + count // len(HOSTILE)))[:count]


def hostile_results():
    """Hostile text wherever a name comes from outside, and counts that may not be shown."""
    results = plain_results()
    evaluation, audit, manifest = results.values()
    fidelity, utility, bias = (evaluation[key] for key in ("fidelity", "utility", "bias"))
    names = dict(zip(fidelity["pairs"]["names"], HOSTILE, strict=False))
    for column in fidelity["columns"]:
        column["name"] = names.get(column["name"], column["name"])
        if column["kind"] == "categorical":
            column["bins"] = hostile(len(column["bins"]))
    fidelity["pairs"]["names"] = [names.get(n, n) for n in fidelity["pairs"]["names"]]
    fidelity["missingness"]["names"] = hostile(len(fidelity["missingness"]["names"]))
    for gap, name in zip(fidelity["missingness"]["dependent"], HOSTILE, strict=False):
        gap["column"] = gap["given"] = gap["level"] = name
    for detection in fidelity["detections"]:
        for clue, name in zip(detection["clues"], HOSTILE, strict=False):
            clue["columns"] = [name] * len(clue["columns"])
    for rare, name in zip(fidelity["rare"], HOSTILE, strict=False):
        rare["column"] = rare["level"] = name
    number = next(c for c in fidelity["columns"] if c["kind"] == "numeric")
    number["missing_real"] = 7 / evaluation["rows"]["train"]
    utility["target"] = HOSTILE[0]
    utility["survival"]["time"] = utility["survival"]["event"] = HOSTILE[1]
    for term, name in zip(utility["coefficients"]["terms"], HOSTILE, strict=False):
        term["term"] = name
    for found in utility["agreements"]:
        found["top"] = found["top_synthetic"] = hostile(len(found["top"]))
    for part in (bias["groups"], bias["fairness"]):
        for group, name in zip(part, HOSTILE, strict=False):
            group["column"] = name
    for group, name in zip(bias["groups"], HOSTILE, strict=False):
        group["group"] = name
    for gap in bias["fairness"]:
        gap["groups"] = hostile(len(gap["groups"]))
    bias["groups"][0]["share"] = 3 / evaluation["rows"]["train"]
    bias["worst"] = HOSTILE[0]
    audit["reasons"] = HOSTILE
    audit["verdict"] = "FLAG"
    audit["attacks"][0]["name"], audit["white_box"][0]["name"] = HOSTILE[:2]
    audit["groups"][0]["name"], audit["copies"]["rare_columns"] = HOSTILE[2], HOSTILE[3:5]
    audit["policy"]["name"] = HOSTILE[0]
    audit["inference"]["attributes"][0] |= {"name": HOSTILE[0], "p_value": 0.0}
    audit["rows"]["reference"] = 9
    audit["copies"]["synthetic_share"] = 2 / audit["rows"]["synthetic"]
    manifest["override"], manifest["release"] = "agreed by the board <b>", True
    manifest["inputs"] = {HOSTILE[0]: HOSTILE[1]}
    manifest["seeds"], manifest["versions"] = {HOSTILE[0]: 1}, {HOSTILE[0]: HOSTILE[1]}
    manifest["parameters"]["target"] = HOSTILE[1]
    return results


def make_pages(folder, results):
    """The paths of all pages of these results, written into `folder`."""
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return {
        page: report(
            page,
            folder / f"{page}.html",
            pages=True,
            **{name: folder / f"{name}.json" for name in (*inputs, "manifest")},
        )
        for page, inputs in INPUTS.items()
    }


@cache
def pages_of(kind):
    """The paths of the pages of a kind, "plain" or "hostile", made when first asked for."""
    folder = TemporaryDirectory(prefix=f"pages-{kind}-")
    atexit.register(folder.cleanup)
    return make_pages(
        Path(folder.name), {"plain": plain_results, "hostile": hostile_results}[kind]()
    )
