"""Values for prose, by key: a page says where a number comes from and never types it.

- ``claim:<claim id>:<field>``: value, error, runs, spread of the claim; ours, sd, n, best, final, tolerance,
  difference, verdict, reason, recipe, device, seconds of its verdict: ``claim:thriftynet/size-cifar10/t20-f32:value``;
  low and high are the ends of the 90 % interval of a difference between two networks, distance_low and distance_high
  of that of ours less the claimed value; reading_changed tells of a reading that was changed after results were seen.
- ``record:<run id>:<field>``: best and final (accuracy, percent), best_epoch, epochs, seconds, images_per_second,
  device, what the kept network costs (:class:`thriftylib.evidence.records.Counted`), and whatever number the run's
  method measured, by its name.
- ``mean:<run id>:<field>``: the same of all seeds of the run's configuration, the mean of a number of ``record``;
  ``<field>_sd``: its standard deviation; n: how many runs.
- ``count:scoreboard:<verdict>``: how many claims have it; also ``claims`` (all). ``count:<paper>:<field>``, or
  ``count:every paper:<field>``: how much of it is tested, as in :class:`thriftylib.evidence.coverage.Coverage`.
  ``count:trainings:<of>``: how many independent trainings are behind the verdicts, each counted once however many
  claims it answers: ``all``, ``own recipe``, ``strong`` (behind reproduced and not reproduced).
- ``runs:<data set>:<field>``: deviation of the best epoch between runs of one configuration (points), pooled over all
  configurations with two runs or more; freedom: its degrees of freedom.
- ``gap:<run id>:<run id>:<field>``: all runs of the first one's configuration less all of the second's: best_gap and
  final_gap (of the mean accuracies, points), each with the ends of its 90 % interval (best_low, best_high) and what
  that says (best_word: higher, lower, or not settled); n: the runs of the side that has fewer.
- ``bench:<name>:<variant>:<field>``: ratio, memory_ratio (to the baseline), gain (ratio to the variant that it adds
  one thing to), share (percent of the speed of a matrix product of as many multiply-adds), images_per_second
  (median), peak_mib.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from thriftylib.bench.record import BenchRecord, load_bench
from thriftylib.datasets.facts import DATASETS
from thriftylib.errors import RecordError
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import ClaimsFile, load_claims_files
from thriftylib.evidence.counts import NetworkCount, load_counts
from thriftylib.evidence.coverage import Coverage
from thriftylib.evidence.intervals import subtract
from thriftylib.evidence.records import Counted, Record, load_records
from thriftylib.evidence.statuses import STATUSES, STRONG, UNDECIDED, Verdict
from thriftylib.evidence.tables import claim_row
from thriftylib.evidence.verdicts import judge_all
from thriftylib.paths import claims_dir, results_dir
from thriftylib.spec import Pixels

Fields = dict[str, Any]
"""What is known of one thing by field; None or "" where there is nothing yet."""

_LEVELS = {
    "claim": ("claim id", "field"),
    "record": ("run id", "field"),
    "mean": ("run id", "field"),
    "count": ("count", "field"),
    "runs": ("data set", "field"),
    "gap": ("run id", "run id", "field"),
    "bench": ("bench", "variant", "field"),
}
"""What the parts of a key name, by its kind."""
_FORMATS = {
    "value": ",.10g",
    "error": ",.10g",
    **dict.fromkeys(("difference", "best_gap", "final_gap"), "+.2f"),
    "ratio": ".1f",
    "gain": ".1f",
    "share": ".0f",
    **dict.fromkeys(("seconds", "images_per_second", "peak_mib"), ",.0f"),
}
"""How a field is written; any other has two decimals, a whole number thousands commas."""


@dataclass(frozen=True)
class Evidence:
    """Everything that numbers may come from."""

    files: Mapping[str, ClaimsFile]
    records: Sequence[Record] = ()
    counts: Sequence[NetworkCount] = ()
    bench: Mapping[str, BenchRecord] | None = None

    @classmethod
    def load(cls, claims: Path, results: Path) -> Evidence:
        """From a folder of claims and a folder of results.

        Raises:
            RecordError: a file is corrupt or foreign.
        """
        files = load_claims_files(claims).sound()
        return cls(files, load_records(results), load_counts(results), load_bench(results))

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """Every claim by its id."""
        return {key: claim for file in self.files.values() for key, claim in file.claims.items()}

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of every claim by the claim's id."""
        return judge_all(self.claims, self.records, self.counts)

    @cached_property
    def numbers(self) -> dict[str, dict[str, Fields]]:
        """Everything by the parts of its key."""
        return {
            "claim": {name: _claim(claim, self.verdicts[name]) for name, claim in self.claims.items()},
            "record": {record.id: _record(record) for record in self.records},
            "mean": _means(self.records),
            "count": _counts(self),
            "runs": {name: _scatter(name, self.records) for name in DATASETS},
            "gap": _Gaps(self.records),
            "bench": {
                name: {variant: _bench(bench, variant) for variant in bench.variants}
                for name, bench in (self.bench or {}).items()
            },
        }


def lookup(key: str, evidence: Evidence | None = None) -> str:
    """The text of a number of the ``evidence``, by default the committed one.

    Accuracies have two decimals, whole numbers thousands commas; there is no unit.

    Raises:
        RecordError: no such key, with the nearest one; or nothing is recorded for it yet.
    """
    kind, *names = key.split(":")
    levels = _LEVELS.get(kind)
    if levels and (len(names) != len(levels) or not all(names)):
        raise RecordError(f"{key!r}: must be of the form {kind}:{':'.join(f'<{level}>' for level in levels)}")
    found: Any = (evidence or _committed(claims_dir(), results_dir())).numbers
    for level, name in zip(("kind", *(levels or ())), (kind, *names), strict=False):
        if name not in found:
            close = " or ".join(map(repr, difflib.get_close_matches(name, found)))  # there may be hundreds
            hint = f"did you mean {close}?" if close else f"there are {len(found)}, none like it"
            raise RecordError(f"{key!r}: unknown {level} {name!r}; {hint}")
        found = found[name]
    if found is None or found == "":
        raise RecordError(f"{key!r}: nothing is recorded for it yet")
    if isinstance(found, str):
        return found
    return format(found, _FORMATS.get(names[-1], "," if isinstance(found, int) else ".2f"))


@cache
def _committed(claims: Path, results: Path) -> Evidence:
    return Evidence.load(claims, results)


def _claim(claim: Claim, verdict: Verdict) -> Fields:
    row, ours = claim_row(claim, verdict), verdict.ours
    low, high = verdict.interval or (None, None)
    return row | {
        "value": row["claimed"],
        "runs": row["claimed_n"],
        "spread": row["claimed_spread"],
        "ours": ours if ours is None or claim.unit in ("%", "points", "MiB") else f"{ours:,.10g}",
        "sd": verdict.sd,
        "low": low,
        "high": high,
        "distance_low": row["low"],
        "distance_high": row["high"],
    }


def _record(record: Record) -> Fields:
    return {
        "best": record.best_accuracy,
        "final": record.final_accuracy,
        "best_epoch": record.best and record.best.epoch,
        **{name: getattr(record, name) for name in ("epochs", "seconds", "images_per_second", "device")},
        **{name: getattr(record.counted, name) for name in Counted.model_fields},
        **{name: _whole(value) for name, value in record.measured.items() if isinstance(value, int | float)},
    }


def _means(records: Sequence[Record]) -> dict[str, Fields]:
    groups: dict[str, list[Fields]] = {}
    for record in records:
        groups.setdefault(record.run.configuration, []).append(_record(record))
    found = {configuration: _mean(runs) for configuration, runs in groups.items()}
    return {record.id: found[record.run.configuration] for record in records}


def _mean(runs: Sequence[Fields]) -> Fields:
    fields: Fields = {"n": len(runs)}
    for name in runs[0]:
        values = [run.get(name) for run in runs]
        if all(isinstance(value, int | float) for value in values):
            fields[name] = float(statistics.fmean(values))
            fields[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return fields


def _whole(value: float) -> float:
    """A count of neurons, say, is recorded as 11.0 and written as 11."""
    return int(value) if float(value).is_integer() else float(value)


def _counts(evidence: Evidence) -> dict[str, Fields]:
    verdicts = evidence.verdicts.values()
    words = [verdict.status for verdict in verdicts]
    papers = {name: file.claims for name, file in evidence.files.items()} | {"every paper": evidence.claims}
    behind = {"all": STATUSES, "own recipe": (*STRONG, *UNDECIDED), "strong": STRONG}
    return {
        "scoreboard": {"claims": len(words)} | {word: words.count(word) for word in STATUSES},
        "trainings": {
            name: len({record for verdict in verdicts if verdict.status in some for record in verdict.records})
            for name, some in behind.items()
        },
        **{name: Coverage.of(claims.values(), evidence.records)._asdict() for name, claims in papers.items()},
    }


def _scatter(dataset: str, records: Sequence[Record]) -> Fields:
    groups: dict[str, list[float]] = {}
    for record in records:
        data, best = record.run.data, record.best_accuracy
        changed = data.train_images or data.test_images or data.pixels != Pixels()
        if data.name == dataset and not changed and best is not None:
            groups.setdefault(record.run.configuration, []).append(best)
    several = [values for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = math.fsum(statistics.variance(values) * (len(values) - 1) for values in several)
    return {"deviation": math.sqrt(squares / freedom) if freedom else None, "freedom": freedom}


_ENDS = ("gap", "low", "high", "word")


class _Gaps(Mapping[str, Mapping[str, Fields]]):
    """Of every two runs, worked out when asked for."""

    def __init__(self, records: Sequence[Record], first: Record | None = None) -> None:
        self.by_id, self.first = {record.id: record for record in records}, first

    def __getitem__(self, run: str) -> Any:
        record = self.by_id[run]
        if self.first is None:
            return _Gaps(list(self.by_id.values()), record)
        fields: Fields = {}
        for name in ("best", "final"):
            ours, theirs = (self._accuracies(side, name) for side in (self.first, record))
            if not (ours and theirs):  # nothing was trained
                return dict.fromkeys((f"{name}_{end}" for name in ("best", "final") for end in _ENDS), None) | {"n": 0}
            gap = subtract(ours, theirs)
            low, high = (None, None) if gap.half is None else (gap.mean - gap.half, gap.mean + gap.half)
            word = "not settled" if low is None or low <= 0 <= high else "higher" if low > 0 else "lower"
            values = gap.mean, low, high, word
            fields |= {f"{name}_{end}": value for end, value in zip(_ENDS, values, strict=True)}
        return fields | {"n": gap.n}

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_id)

    def __len__(self) -> int:
        return len(self.by_id)

    def _accuracies(self, of: Record, which: str) -> dict[int, float]:
        """By seed, of the runs that differ in nothing else."""
        same = [record for record in self.by_id.values() if record.run.configuration == of.run.configuration]
        found = {record.run.seed: getattr(record, f"{which}_accuracy") for record in same}
        return {seed: value for seed, value in found.items() if value is not None}


def _bench(bench: BenchRecord, variant: str) -> Fields:
    found = bench.variants[variant]
    return {
        "ratio": bench.ratio(variant),
        "gain": bench.gain(variant),
        "share": None if (share := bench.share(variant)) is None else 100 * share,
        "memory_ratio": bench.memory_ratio(variant),
        "images_per_second": statistics.median(found.images_per_second),
        "peak_mib": found.peak_bytes and found.peak_bytes / 2**20,
    }
