"""A table with planted values that nobody may see again, and a search that would find them."""

import base64
import binascii
import gzip
import hashlib
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet

RARE = "Smallpox-isolation"  # a ward of three patients
PLANTED = {
    "number": 7319.4271,
    "tiny": 0.000173205,
    "count": 918273,
    "date": "1931-02-17",
    "code": "Q99.CANARY",
    "ward": RARE,
    "outcome": "Ondine-curse",  # a class of the target, of three patients
    "patient": "PK-CANARY-0077",
    "record": "RID-zebra-943127",
    "words": "quixotic marmalade",
}
BEARER = 137  # the row of the patient who bears most of them


def planted_table(rows: int = 780) -> pd.DataFrame:
    """Made-up patients, some with two visits; one bears all that is planted, three the rare."""
    rng = np.random.default_rng(7)
    who = np.r_[np.arange(rows - 80), rng.choice(rows - 80, 80, replace=False)]
    age = rng.integers(20, 90, rows)
    table = pd.DataFrame(
        {
            "patient_key": [f"PK-{i:06}" for i in who],
            "record_id": [f"RID-{i}-{rng.integers(10**6)}" for i in range(rows)],
            "age": age,
            "lab": np.round(rng.normal(50, 10, rows) + age / 10, 1),
            "trace": np.round(rng.gamma(2, 3, rows), 2),
            "steps": rng.integers(0, 9000, rows) // 25 * 25,
            "seen": pd.Timestamp("2019-01-01")
            + pd.to_timedelta(rng.integers(0, 900, rows), unit="D"),
            "code": rng.choice([f"A0{i}.{i}" for i in range(8)], rows),
            "ward": rng.choice(["north", "south", "west"], rows),
            "outcome": np.where(age + rng.normal(0, 15, rows) > 60, "ill", "well"),
            "notes": [f"seen on day {i}, told to come back in {i % 9} weeks" for i in range(rows)],
            "site": "one",
        }
    )
    table.loc[rng.random(rows) < 0.2, ["lab", "code"]] = None
    names = {"number": "lab", "tiny": "trace", "count": "steps", "code": "code", "ward": "ward"}
    names |= {"outcome": "outcome", "patient": "patient_key", "record": "record_id"}
    for what, name in names.items():
        table.loc[BEARER, name] = PLANTED[what]
    table.loc[BEARER, "seen"] = pd.Timestamp(PLANTED["date"])
    table.loc[BEARER, "notes"] = f"the {PLANTED['words']} incident was told at length"
    table.loc[[BEARER + 100, BEARER + 200], "ward"] = PLANTED["ward"]
    table.loc[[BEARER + 100, BEARER + 200], "outcome"] = PLANTED["outcome"]
    table.loc[BEARER + 300 : BEARER + 305, "trace"] = None
    levels = ["closed", "north", "south", "west", RARE]  # nobody is in the first
    keys = {name: table[name].astype("category") for name in ("patient_key", "record_id")}
    return table.assign(ward=pd.Categorical(table["ward"], categories=levels), **keys)


# what is searched for


def spellings(value: object) -> set[str]:
    """The usual ways to write a value."""
    if isinstance(value, str):
        return {value, value.upper(), value.lower(), json.dumps(value)[1:-1]}
    found = {str(value), repr(value), f"{value:,}", f"{value:e}", f"{value:.10g}", f"{value:.9e}"}
    if isinstance(value, int):
        return found | {f"{float(value)}", f"{value:.1f}", f"{value:.4e}", f"{value:.5e}"}
    return found | {f"{value:.4f}"} if value > 1 else found


def moments(value: str) -> list[int]:
    """A date in days, seconds and nanoseconds since 1970."""
    day = pd.Timestamp(value)
    return [day.value // 10**9, day.value]


def texts_of(value: object) -> set[str]:
    """Spellings of a value, and of the numbers that stand for it."""
    found = spellings(value)
    if value == PLANTED["date"]:
        for moment in moments(value):
            found |= {str(moment), f"{moment}.0"}
        found |= {"17.02.1931", "02/17/1931", "1931/02/17", "19310217", "Feb 17, 1931"}
    return found


def digests_of(value: object) -> set[str]:
    """Hexadecimal digests of a value in its usual spellings and bytes."""
    raw = [text.encode() for text in spellings(value)]
    if not isinstance(value, str):
        raw += bytes_of(value)
    found = set()
    for data in raw:
        for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b"):
            found.add(hashlib.new(name, data).hexdigest())
        for short in (zlib.crc32(data), zlib.adler32(data), binascii.crc_hqx(data, 0) << 16):
            found |= {f"{short:08x}", str(short)}
    hashed = pd.util.hash_array(np.array([value], dtype=object))[0]
    return found | {str(hashed), f"{hashed:016x}"}


def bytes_of(value: object) -> list[bytes]:
    """A value as computers keep it: numbers as floats and integers of both byte orders."""
    if isinstance(value, str) and value != PLANTED["date"]:
        return [value.encode(), value.encode("utf-16-le")]
    found = []
    for number in moments(value) if isinstance(value, str) else [value]:
        for order in "<>":
            found.append(struct.pack(f"{order}d", number))
            if not isinstance(value, str):
                found.append(struct.pack(f"{order}f", number))
            if isinstance(number, int):
                found.append(struct.pack(f"{order}q", number))
    return found


class Search:
    """Finds planted values, their digests and their bytes; made once, used for every output."""

    def __init__(self, planted: dict[str, object]) -> None:
        self.texts = {t: name for name, value in planted.items() for t in texts_of(value)}
        self.digests = {d: name for name, value in planted.items() for d in digests_of(value)}
        self.bytes = {b: name for name, value in planted.items() for b in bytes_of(value)}
        longest = sorted(self.texts, key=len, reverse=True)
        self.any_text = re.compile("|".join(map(re.escape, longest)), re.IGNORECASE)
        self.word = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{5,128}(?![0-9A-Za-z])")

    def in_text(self, text: str) -> set[str]:
        """Names of what a text gives away; also what base64 in it hides."""
        lower = {t.lower(): name for t, name in self.texts.items()}
        found = {lower[hit.lower()] for hit in self.any_text.findall(text)}
        words = {word.lower() for word in self.word.findall(text)}
        found |= {f"hash of {self.digests[word]}" for word in words & self.digests.keys()}
        for packed in re.findall(r"[A-Za-z0-9+/]{24,}={0,2}", text):
            try:
                found |= self.in_bytes(base64.b64decode(packed + "=" * (-len(packed) % 4)))
            except binascii.Error:
                continue
        return found

    def in_bytes(self, data: bytes) -> set[str]:
        """Names of what bytes give away, as numbers, as text, and unpacked."""
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        found = {f"bytes of {name}" for piece, name in self.bytes.items() if piece in data}
        return found | self.in_text(data.decode("latin-1"))

    def in_table(self, table: pyarrow.Table) -> set[str]:
        """Names of what a table gives away in its cells, its levels and its metadata."""
        found = self.in_text(str(table.schema.metadata) + str(table.schema))
        for column in table.columns:
            for chunk in column.chunks:
                levels = chunk.dictionary if hasattr(chunk, "dictionary") else chunk
                values = {str(value) for value in levels.to_pylist()}
                found |= self.in_text("\n".join(sorted(values)))
        return found

    def in_file(self, path: Path) -> set[str]:
        """Names of what a file gives away; a Parquet file is also unpacked."""
        found = self.in_bytes(path.read_bytes()) | self.in_text(path.name)
        if path.suffix == ".parquet":
            found |= self.in_table(pyarrow.parquet.read_table(path))
        return found

    def in_folder(self, folder: Path, but: set[str] = frozenset()) -> dict[str, set[str]]:
        """What the files of a folder give away, by path, but for the paths in `but`."""
        files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
        found = {name: self.in_file(path) for name, path in files.items() if name not in but}
        return {name: hits for name, hits in found.items() if hits}


# counts

COUNTED = r"patients?|records?|rows?|members?|non-members?|people|values?|texts?|holders?"
SMALL = re.compile(rf"(?<![\d.,])([1-9]|10) (?:of [\d,]+|(?:\w+ )?(?:{COUNTED})\b)", re.IGNORECASE)


def small_counts(text: str) -> list[str]:
    """Phrases of a text that count 1 to 10 patients."""
    text = re.sub(r"\b1 to 10\b|fewer than 11|1 in 100", "", text)
    return [hit.group() for hit in SMALL.finditer(text)]


def recoverable(share: float | None, total: int) -> bool:
    """Whether a share of `total` patients says that 1 to 10 of them, or all but so few, are it."""
    if share is None:
        return False
    count = share * total
    return 0.5 < count < 10.5 or 0.5 < total - count < 10.5
