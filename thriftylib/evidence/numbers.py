"""Numbers for prose, by key: a page says where a number comes from and never types it.

- ``claim:<claim id>:<field>``: value, error, runs, spread of the claim; ours, sd, n, best, final, tolerance,
  difference, verdict, reason, recipe, device, seconds of its verdict: ``claim:thriftynet/size-cifar10/t20-f32:value``;
  low and high are the ends of the 90 % interval of a difference between two networks, distance_low and distance_high
  of that of ours less the claimed value; reading_changed tells of a reading that was changed after results were seen.
- ``record:<run id>:<field>``: best, best_epoch, final, epochs, seed, seconds, minutes, images_per_second, device,
  status, recipe, parameters, macs, mmacs, ptflops_macs, weight_bytes, activation_bytes; and whatever number its
  method measured, by its name (``record:<run id>:batch_statistics_accuracy``).
- ``count:scoreboard:<verdict>``: how many claims have it; also ``claims`` (all), ``tested`` (with runs or counts of
  ours), ``trained`` (with runs of ours of the claim's own recipe). ``count:<paper>:<field>``, or ``count:every
  paper:<field>``: how much of it is tested so far, the fields of :class:`thriftylib.evidence.coverage.Coverage`.
  ``count:trainings:<of>``: how many independent trainings stand behind the verdicts, each counted once however many
  claims it answers: ``all``, ``own recipe``, ``strong`` (behind reproduced and not reproduced). ``count:records:all``,
  ``count:records:complete``, ``count:records:diverged``, ``count:unread:all``.
- ``runs:<data set>:<field>``: deviation of the best epoch between runs of one configuration (points), pooled over all
  configurations with two runs or more; freedom: its degrees of freedom.
- ``bench:<name>:<variant>:<field>``: ratio, memory_ratio (to the baseline), gain (ratio to the variant that it adds
  one thing to), images_per_second (median), peak_mib.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path

from thriftylib.bench.record import BenchRecord, load_bench
from thriftylib.errors import RecordError
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import ClaimsFile, load_claims_files
from thriftylib.evidence.counts import Count, load_counts
from thriftylib.evidence.coverage import Coverage
from thriftylib.evidence.records import Counted, Record, load_records
from thriftylib.evidence.statuses import STATUSES, STRONG, UNDECIDED, Verdict
from thriftylib.evidence.verdicts import judge_all
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, results_dir

Fields = Mapping[str, str | None]
"""The texts of one thing by field; None where there is nothing to tell yet."""


@dataclass(frozen=True)
class Evidence:
    """Everything that numbers may come from."""

    sheets: Mapping[str, ClaimsFile]
    records: Sequence[Record] = ()
    counts: Sequence[Count] = ()
    bench: Mapping[str, BenchRecord] | None = None

    @classmethod
    def load(cls, claims: Path, results: Path) -> Evidence:
        """From a folder of claims and a folder of results.

        Raises:
            RecordError: a file is corrupt or foreign.
        """
        return cls(load_claims_files(claims), load_records(results), load_counts(results), load_bench(results))

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """Every claim by its id."""
        return {key: claim for sheet in self.sheets.values() for key, claim in sheet.claims.items()}

    @cached_property
    def coverage(self) -> dict[str, Coverage]:
        """How much is tested of each paper, by its name, and of ``every paper``."""
        papers = {name: sheet.claims for name, sheet in self.sheets.items()} | {"every paper": self.claims}
        return {name: Coverage.of(claims.values(), self.records) for name, claims in papers.items()}

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of every claim by the claim's id."""
        return judge_all(self.claims, self.records, self.counts)


def lookup(key: str, evidence: Evidence | None = None) -> str:
    """The text of a number: accuracies with two decimals, whole numbers with thousands commas; no unit.

    Args:
        key: see this module.
        evidence: the committed claims and results, unless given.

    Raises:
        RecordError: no such key, with the nearest one; or nothing is recorded for it yet.
    """
    kind, *rest = key.split(":")
    if kind not in _KINDS:
        raise RecordError(f"{key!r}: unknown kind {kind!r}" + suggest(kind, _KINDS))
    form, find = _KINDS[kind]
    if len(rest) != form.count(":") or not all(rest):
        raise RecordError(f"{key!r}: must be of the form {form}")
    fields = find(evidence or _committed(claims_dir(), results_dir()), *rest[:-1])
    if rest[-1] not in fields:
        raise RecordError(f"{key!r}: unknown field {rest[-1]!r}" + suggest(rest[-1], fields))
    text = fields[rest[-1]]
    if text is None:
        raise RecordError(f"{key!r}: nothing is recorded for it yet")
    return text


@cache
def _committed(claims: Path, results: Path) -> Evidence:
    return Evidence.load(claims, results)


def _claim(evidence: Evidence, name: str) -> Fields:
    claim = _known(evidence.claims, name, "claim")
    verdict = evidence.verdicts[name]
    ours = _points if claim.unit in ("%", "points") else _plain
    return {
        "value": _plain(claim.value),
        "error": "0" if claim.error == "exact" else _plain(claim.error),
        "runs": _plain(claim.runs),
        "spread": _points(claim.stated_spread),
        "ours": ours(verdict.ours),
        "sd": _points(verdict.sd),
        "low": _points(verdict.interval and verdict.interval[0]),
        "high": _points(verdict.interval and verdict.interval[1]),
        "distance_low": _points(verdict.distance and verdict.distance[0]),
        "distance_high": _points(verdict.distance and verdict.distance[1]),
        "n": str(verdict.n),
        "best": _points(verdict.best),
        "final": _points(verdict.final),
        "tolerance": _points(verdict.tolerance),
        "difference": None if verdict.ours is None else f"{verdict.ours - claim.value:+.2f}",
        "verdict": verdict.status,
        "reason": verdict.reason,
        "reading_changed": claim.reading_changed,
        "recipe": verdict.recipe,
        "device": verdict.device or None,
        "seconds": f"{verdict.seconds:,.0f}" if verdict.n else None,
    }


def _record(evidence: Evidence, name: str) -> Fields:
    record = _known({record.id: record for record in evidence.records}, name, "record")
    return {
        "best": _points(record.best_accuracy),
        "best_epoch": _plain(record.best and record.best.epoch),
        "final": _points(record.final_accuracy),
        "epochs": str(record.epochs),
        "seed": str(record.run.seed),
        "seconds": f"{record.seconds:,.0f}",
        "minutes": f"{record.seconds / 60:,.1f}",
        "images_per_second": f"{record.images_per_second:,.0f}",
        "device": record.device,
        "status": record.status,
        "recipe": record.run.recipe_name,
        "mmacs": f"{record.counted.macs / 1e6:,.1f}",
        **{name: f"{getattr(record.counted, name):,}" for name in Counted.model_fields},
        **{name: _points(number) for name, number in record.measured.items() if isinstance(number, int | float)},
    }


def _count(evidence: Evidence, name: str) -> Fields:
    verdicts = evidence.verdicts.values()
    found = [verdict.status for verdict in verdicts]

    def trainings(*words: str) -> int:
        return len({record for verdict in verdicts if verdict.status in words for record in verdict.records})

    status = [record.status for record in evidence.records]
    counts = {
        "scoreboard": {
            **{name: found.count(name) for name in STATUSES},
            "claims": len(found),
            "tested": sum(verdict.ours is not None for verdict in verdicts),
            "trained": sum(bool(verdict.records) and verdict.status != "other recipe" for verdict in verdicts),
        },
        "trainings": {
            "all": trainings(*STATUSES),
            "own recipe": trainings(*STRONG, *UNDECIDED),
            "strong": trainings(*STRONG),
        },
        **{paper: asdict(coverage) for paper, coverage in evidence.coverage.items()},
        "records": {"all": len(status), "complete": status.count("complete"), "diverged": status.count("diverged")},
        "unread": {"all": sum(len(sheet.unread) for sheet in evidence.sheets.values())},
    }
    return {field: f"{number:,}" for field, number in _known(counts, name, "count").items()}


def _runs(evidence: Evidence, dataset: str) -> Fields:
    groups: dict[str, list[float]] = {}
    for record in evidence.records:
        data, best = record.run.data, record.best_accuracy
        if data.name == dataset and not (data.train_images or data.test_images) and best is not None:
            groups.setdefault(record.run.configuration, []).append(best)
    several = [values for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = math.fsum(statistics.variance(values) * (len(values) - 1) for values in several)
    return {"deviation": _points(math.sqrt(squares / freedom)) if freedom else None, "freedom": str(freedom)}


def _bench(evidence: Evidence, name: str, variant: str) -> Fields:
    bench = _known(evidence.bench or {}, name, "bench")
    found = _known(bench.variants, variant, f"variant of bench {name}")
    memory, gain = bench.memory_ratio(variant), bench.gain(variant)
    return {
        "ratio": f"{bench.ratio(variant):.1f}",
        "gain": None if gain is None else f"{gain:.1f}",
        "memory_ratio": None if memory is None else f"{memory:.2f}",
        "images_per_second": f"{statistics.median(found.images_per_second):,.0f}",
        "peak_mib": None if found.peak_bytes is None else f"{found.peak_bytes / 2**20:,.0f}",
    }


_KINDS: dict[str, tuple[str, Callable[..., Fields]]] = {
    "claim": ("claim:<claim id>:<field>", _claim),
    "record": ("record:<run id>:<field>", _record),
    "count": ("count:<what>:<field>", _count),
    "runs": ("runs:<data set>:<field>", _runs),
    "bench": ("bench:<name>:<variant>:<field>", _bench),
}


def _known(things: Mapping, name: str, kind: str):
    if name not in things:
        close = difflib.get_close_matches(name, things, n=3)  # there may be hundreds
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {len(things)}, none like it"
        raise RecordError(f"unknown {kind} {name!r}; {hint}")
    return things[name]


def _points(number: float | None) -> str | None:
    return None if number is None else f"{number:.2f}"


def _plain(number: float | None) -> str | None:
    return None if number is None else f"{number:,.10g}"
