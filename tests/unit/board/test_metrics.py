"""The metrics: what is not known is absent, buckets are cumulative, and the files in deploy/ use nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from board.metrics.collect import scrape
from board.metrics.names import METRICS, PREFIX
from board.metrics.samples import Samples
from board.reading import Reading, Source
from flows.cli.app import COMMAND_GROUPS
from handlers.measurements.measurement import compared, no_data, source_down
from handlers.queue.processing_times import BOUNDS, Times
from tests.unit.board.readings import reading

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "tds-runbook.rules.yml"
EXPORTED = {
    f"{metric.full_name}{suffix}"
    for metric in METRICS
    for suffix in (("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",))
}


def samples(now: Reading | None) -> dict[tuple[str, str], float]:
    """The samples of one environment, by name and the values of its labels."""
    content = scrape({"staging": (now, ())}).decode()
    return {
        (
            sample.name.removeprefix(PREFIX),
            " ".join(value for key, value in sorted(sample.labels.items()) if key != "environment"),
        ): sample.value
        for family in text_string_to_metric_families(content)
        for sample in family.samples
    }


def test_of_an_environment_that_is_away_nothing_is_claimed() -> None:
    """No zero stands for what nobody knows."""
    found = samples(None)
    assert {name for name, _ in found} == {"board_info", "board_environments", "up", "scrape_error"}
    assert (found["up", ""], found["scrape_error", ""]) == (0, 1)


@pytest.mark.parametrize(
    ("source", "field", "prefixes"),
    [
        (Source.QUEUE, "queue", ("queue_events", "intake_limits")),
        (Source.CHECKS, "checks", ("success_", "check_")),
        (Source.WORKERS, "workers", ("workers",)),
        (Source.RELEASE, "release", ("release",)),
        (Source.GUARD, "guard", ("guard_",)),
        (Source.SYNC, "syncs", ("sync_",)),
        (Source.HEAL, "heal", ("heal_",)),
        (Source.MESSAGES, "messages", ("messages",)),
    ],
)
def test_a_source_that_is_down_takes_its_own_metrics_along(
    source: Source, field: str, prefixes: tuple[str, ...]
) -> None:
    """The others stay, and it is said which one is down."""
    changes: dict[str, Any] = {field: None, "down": {source: "not within 4 s"}}
    found = samples(reading(**changes))
    assert found["source_up", source] == 0
    assert (found["up", ""], found["scrape_error", ""]) == (1, 1)
    assert not [name for name, _ in found if name.startswith(prefixes)]
    assert not [value for (name, _), value in found.items() if name == "alerts" and value == 0]


def test_a_check_without_data_has_no_value_and_is_not_broken() -> None:
    """Too little to tell, and what cannot be read, are neither good nor broken."""
    checks = [
        no_data("success_1h", "few", bar=95.0, unit="%"),
        source_down("stuck", "x"),
        compared("oldest", 7.0, 300.0, "s", "7 s"),
        compared("dead_letters_1h", 2.0, 0.0, "", "2"),
        compared("throughput", 120.0, 100.0, "a minute", "120", good_above=True),
    ]
    found = samples(reading(checks=checks))
    assert ("success_ratio", "1h") not in found
    assert ("stuck_events", "") not in found
    broken = {label: value for (name, label), value in found.items() if name == "check_broken"}
    assert broken == {"oldest": 0, "dead_letters_1h": 1, "throughput": 0}
    assert found["check_bar", "success_1h"] == 0.95
    assert found["throughput_events_per_second", ""] == 2.0


def test_buckets_are_cumulative_and_the_last_is_the_count() -> None:
    """As Prometheus wants them, whatever the queue has told."""
    buckets = tuple(range(len(BOUNDS) + 1))
    found = samples(reading(times={"Product": Times(buckets=buckets, seconds=12.5)}))
    values = [value for (name, _), value in found.items() if name == "processing_seconds_bucket"]
    assert values == sorted(values)
    assert values[-1] == sum(buckets) == found["processing_seconds_count", "Product"]
    assert found["processing_seconds_sum", "Product"] == 12.5


def test_a_name_that_is_not_in_the_list_is_an_error() -> None:
    """Nothing is exported that the documentation does not have."""
    with pytest.raises(KeyError):
        Samples().set("nonsense", 1)


def test_names_and_units_are_those_of_prometheus() -> None:
    """Our prefix, base units, and no counter under the name of a gauge."""
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert not re.search(r"percent|millis|minutes|hours|_ms$|_total$", metric.name), metric.name
        assert metric.help.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def used_in(expression: str) -> set[str]:
    """The metrics of ours in an expression."""
    return set(re.findall(rf"\b{PREFIX}\w+", expression))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def test_the_alert_rules_use_metrics_that_are_exported() -> None:
    """A rule on a name that does not exist never fires, and nobody notices."""
    for rule in rules():
        used = used_in(rule["expr"])
        assert used, rule["alert"]
        assert used <= EXPORTED, rule["alert"]


def test_every_alert_says_what_to_type() -> None:
    """A command of ours, with the environment of the alert."""
    known = {name for group in COMMAND_GROUPS.values() for name in group}
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warning")
        assert rule["annotations"]["summary"]
        command = re.search(
            r"runbook ([a-z-]+)\b.* -e (NAME|{{ \$labels\.environment }})", rule["annotations"]["command"]
        )
        assert command is not None, rule["alert"]
        assert command[1] in known, rule["alert"]


def test_the_dashboard_uses_metrics_that_are_exported() -> None:
    """Each expression of each panel, of the variables and of the annotations."""
    dashboard = json.loads((DEPLOY / "grafana" / "tds-runbook.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    expressions += [each["expr"] for each in dashboard["annotations"]["list"]]
    assert len(expressions) > 25
    for expression in expressions:
        assert used_in(expression), expression
        assert used_in(expression) <= EXPORTED, expression
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", RULES.name), ("test", "rules", "tds-runbook.test.yml")],
    ids=("check", "test"),
)
def test_promtool_takes_the_rules_and_they_fire(arguments: tuple[str, ...]) -> None:
    """Prometheus itself parses them, and runs the cases beside them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: Debian's package prometheus has it")
    done = subprocess.run(
        [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
