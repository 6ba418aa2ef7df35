"""The studies in figures, as Prometheus reads them."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from search.dashboard.upkeep import Upkeep, Watched
from search.summary import STATES, best_trial
from storage.outages import DATABASE_ERRORS

PREFIX: Final = "cnn_search_"
GAUGES: Final = {
    "trials_wanted": "The study's total; absent where none is set.",
    "best_value": "Validation accuracy of the best complete trial, in [0, 1]; absent before the first.",
    "seconds_since_report": "Since a worker last reported an epoch; absent before the first.",
    "workers_alive": "Workers whose leases hold.",
    "stale_claims": "Running trials whose worker is silent or gone.",
}
COUNTERS: Final = {
    "retries": "How often trials were taken from workers that could not finish them.",
    "epochs_trained": "Epochs reported.",
    "training_seconds": "Wall time of the epochs, all workers together.",
}


def render_metrics(upkeep: Upkeep, accept: str) -> tuple[bytes, str]:
    """All studies now, and the content type of what is returned.

    Args:
        upkeep: Knows the studies.
        accept: The request's Accept header, which chooses between Prometheus's text and OpenMetrics.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Studies(upkeep))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Studies(Collector):
    """Reads the studies when it is asked."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(f"{PREFIX}database_up", "Whether the database answers.")
        try:
            studies = self._upkeep.look()
            figures = {name: _measure(watched, self._upkeep.now()) for name, watched in studies.items()}
        # A scrape that fails would tell less than one that says what is down.
        except DATABASE_ERRORS:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        trials = GaugeMetricFamily(f"{PREFIX}trials", "Trials by state.", labels=["study", "state"])
        for name, watched in studies.items():
            for state in STATES:
                trials.add_metric([name, state], sum(trial.state == state for trial in watched.trials))
        yield trials
        for kind, texts in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for key, text in texts.items():
                family = kind(PREFIX + key, text, labels=["study"])
                for name, values in figures.items():
                    if (value := values[key]) is not None:
                        family.add_metric([name], value)
                yield family


def _measure(watched: Watched, now: float) -> Mapping[str, float | None]:
    """A study's figures by the keys of `GAUGES` and `COUNTERS`; None for what is not known."""
    opened, trials = watched.opened, watched.trials
    workers = opened.leases().workers()
    best = best_trial(trials)
    return {
        "trials_wanted": opened.database.read_limit(opened.study),
        "best_value": None if best is None else best.value,
        "seconds_since_report": None if watched.last_report is None else max(now - watched.last_report, 0.0),
        "workers_alive": sum(worker.is_alive for worker in workers),
        "stale_claims": sum(len(worker.trials) for worker in workers if not worker.is_alive),
        "retries": sum(trial.retries for trial in trials),
        "epochs_trained": sum(trial.epochs_done for trial in trials),
        "training_seconds": sum(trial.seconds or 0.0 for trial in trials),
    }
