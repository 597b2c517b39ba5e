"""Download BraTS 2020 and OSIC if a token is configured, or print how to get them.

    python data_scripts/download.py osic OUT
    python data_scripts/download.py brats OUT --source synapse --entity syn12345678
    python data_scripts/download.py brats OUT --archive MICCAI_BraTS2020_TrainingData.zip

Both sets are gated: a person must accept their terms once in a browser. A broken or killed
download is continued by the same command.
"""

import base64
import os
import sys
from pathlib import Path
from typing import Literal

import _engine
from _archive import ArchiveError, extract
from _fetch import FetchError, fetch

from cpic._outgoing import clean_token
from cpic._trust import parse_json, read_regular
from cpic.cohorts._layout import LAYOUTS

_BASES = {
    "kaggle": "https://www.kaggle.com/api/v1",
    "synapse": "https://repo-prod.prod.sagebase.org/repo/v1",
}
# Path of the archive below the base address; page of the set, where terms are accepted.
_KAGGLE = {
    "brats": (
        "datasets/download/awsaf49/brats20-dataset-training-validation",
        "https://www.kaggle.com/datasets/awsaf49/brats20-dataset-training-validation",
    ),
    "osic": (
        "competitions/data/download-all/osic-pulmonary-fibrosis-progression",
        "https://www.kaggle.com/competitions/osic-pulmonary-fibrosis-progression",
    ),
}
_STEPS = {
    "kaggle": """\
1. Log in at Kaggle and accept the terms at
   {page}
2. Settings > API > Create New Token gives kaggle.json: put it into ~/.kaggle/, readable by you
   only, or set KAGGLE_USERNAME and KAGGLE_KEY.
3. Run this command again; or download the archive in the browser and add --archive FILE.""",
    "synapse": """\
1. Log in at https://www.synapse.org, find the archive you were granted, and accept its terms.
2. Account settings > Personal Access Tokens, with the right to download: set SYNAPSE_AUTH_TOKEN.
3. Run this command again with --source synapse --entity syn...; or download the archive in the
   browser and add --archive FILE.""",
}
_CBICA = """\
The organizers give the set to registered users:
   https://www.med.upenn.edu/cbica/brats2020/registration.html
Unpack their archive with --archive FILE. The same files are mirrored at Kaggle:"""


def main(
    name: Literal["brats", "osic"],
    out: str,
    source: Literal["kaggle", "synapse"] = "kaggle",
    entity: str | None = None,
    archive: str | None = None,
    base: str | None = None,
    sha256: str | None = None,
    unpack: bool = True,
) -> int:
    """Download a set if a token is configured; otherwise print how to get it.

    Args:
        name: which set.
        out: folder for the archive; the set is unpacked to OUT/<name>.
        source: kaggle needs KAGGLE_USERNAME and KAGGLE_KEY or ~/.kaggle/kaggle.json, synapse
            needs SYNAPSE_AUTH_TOKEN.
        entity: entity of the archive at Synapse, such as syn12345678.
        archive: local archive; it is only unpacked.
        base: alternative address of the service.
        sha256: expected hash of the archive, if known; the hash is recorded in any case.
        unpack: unpack to OUT/<name>, which must not exist.
    """
    try:
        file = Path(archive) if archive else _fetched(name, out, source, entity, base, sha256)
        if file is None:
            return 1
        if unpack:
            folder = extract(file, Path(out) / name, progress=sys.stderr.isatty())
            print(f"{name} is in {folder}. Next: cpic data check {folder}")
    except (FetchError, ArchiveError) as error:
        raise SystemExit(str(error)) from error
    return 0


def _fetched(
    name: str, out: str, source: str, entity: str | None, base: str | None, sha256: str | None
) -> Path | None:
    """The archive; None if the token or entity is missing and instructions were printed."""
    secret = _kaggle_secret() if source == "kaggle" else _synapse_secret()
    if secret is None or (source == "synapse" and not entity):
        print(_steps(name, source))
        return None
    if source == "kaggle":
        path = _KAGGLE[name][0]
        target = Path(out) / f"{path.rsplit('/', 1)[1]}.zip"
    else:
        if not (entity or "").removeprefix("syn").isdigit():
            raise FetchError(f"an entity of Synapse is like syn12345678, got {entity!r}.")
        path, target = f"entity/{entity}/file", Path(out) / f"{entity}.archive"
    url = f"{(base or _BASES[source]).rstrip('/')}/{path}"
    digest = fetch(url, target, secret=secret, sha256=sha256, progress=sys.stderr.isatty())
    print(f"{target}\nsha256 {digest}")
    return target


def _steps(name: str, source: str) -> str:
    steps = _STEPS[source].format(page=_KAGGLE[name][1])
    before = [_CBICA] if (name, source) == ("brats", "kaggle") else []
    return "\n".join(
        [
            "No token is configured, or the entity is missing. How to get the set:",
            *before,
            steps,
            "Expected tree:",
            LAYOUTS[name].files,
        ]
    )


def _kaggle_secret() -> dict[str, str] | None:
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    if not (user and key) and (folder / "kaggle.json").exists():
        try:
            known = parse_json(read_regular(folder / "kaggle.json"))
            user, key = (known[word].strip() for word in ("username", "key"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise FetchError(
                f"{folder / 'kaggle.json'} is not what Kaggle gives out, an object with username "
                "and key; create a new token there."
            ) from None
    if not (user and key):
        return None
    pair = f"{_token(user, 'the user of Kaggle')}:{_token(key, 'the key of Kaggle')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _synapse_secret() -> dict[str, str] | None:
    token = os.environ.get("SYNAPSE_AUTH_TOKEN")
    return {"Authorization": f"Bearer {_token(token, 'SYNAPSE_AUTH_TOKEN')}"} if token else None


def _token(text: str, what: str) -> str:
    try:
        return clean_token(text)
    except ValueError as error:
        raise FetchError(f"{what}: {error}") from None


if __name__ == "__main__":
    _engine.call(main)
