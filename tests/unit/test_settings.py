from __future__ import annotations

from pathlib import Path

import pytest

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings import Settings, load_settings


def test_no_setting_is_required() -> None:
    assert load_settings({}) == Settings()


def test_the_environment_outranks_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vlinders.yaml"
    path.write_text("scheduler: {body_priority: vllm}\nlogging: {format: json, level: debug}\n")
    settings = load_settings({"VLINDERS_CONFIG": str(path), "VLINDERS_LOGGING__LEVEL": "error"})
    assert settings.scheduler.body_priority == "vllm"
    assert settings.logging.format == "json"
    assert settings.logging.level == "error"


def test_on_drift_has_a_short_name() -> None:
    assert load_settings({"VLINDERS_ON_DRIFT": "warn"}).patches.on_drift == "warn"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"VLINDERS_SCHEDULER__BODY_PRIORTY": "vllm"},
            (
                r"scheduler\.body_priorty \(from VLINDERS_SCHEDULER__BODY_PRIORTY\): unknown setting; "
                r"did you mean 'body_priority'"
            ),
        ),
        (
            {"VLINDERS_SCHEDULER__BODY_PRIORITY": "bogus"},
            r"scheduler\.body_priority .*'vlinders' or 'vllm', got 'bogus'",
        ),
        ({"VLINDERS_SHEDULER": "{}"}, r"sheduler .*unknown setting; did you mean 'scheduler'"),
        ({"VLINDERS_LOGGING": "5"}, r"logging \(from VLINDERS_LOGGING\)"),
        ({"VLINDERS_LOGGING": "5", "VLINDERS_LOGGING__LEVEL": "info"}, "logging is not a section"),
        ({"VLINDERS_ON_DRIFT": "["}, "VLINDERS_ON_DRIFT: cannot be read"),
        ({"VLINDERS_CONFIG": "/nowhere/at/all.yaml"}, "VLINDERS_CONFIG=/nowhere/at/all.yaml"),
        ({"VLINDERS_LOGGING__LEVEL__DEEP": "1"}, r"logging\.level"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path_and_origin(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        load_settings(environ)


@pytest.mark.parametrize("text", ["- a\n", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="VLINDERS_CONFIG="):
        load_settings({"VLINDERS_CONFIG": str(path)})


def test_a_key_that_is_given_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vlinders.yaml"
    path.write_text("routing:\n  models:\n    tiny: {cost: 1}\n    code: {cost: 2}\n    code: {cost: 5}\n")
    with pytest.raises(SettingsError, match=r"routing\.models\.code: given twice in .*lines 4 and 5"):
        load_settings({"VLINDERS_CONFIG": str(path)})


def test_what_yaml_names_twice_itself_is_no_key_that_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "vlinders.yaml"
    limits = "&a {tokens_per_minute: 5}", "&b {requests_per_minute: 5}"
    path.write_text(
        f"auth: {{}}\nquotas:\n  tenants:\n    one: {limits[0]}\n    two: {limits[1]}\n"
        "    three:\n      <<: *a\n      <<: *b\n"
    )
    found = load_settings({"VLINDERS_CONFIG": str(path)}).quotas.tenants["three"]
    assert (found.tokens_per_minute, found.requests_per_minute) == (5, 5)
    path.write_text("routing: &x {models: *x}\n")
    with pytest.raises(SettingsError):
        load_settings({"VLINDERS_CONFIG": str(path)})
    path.write_text("quotas: {tenants: {}, tenants: {}}\n")
    with pytest.raises(SettingsError, match="quotas.tenants: given twice"):
        load_settings({"VLINDERS_CONFIG": str(path)})


def test_other_variables_of_the_prefix_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "vlinders.yaml"
    path.write_text("scheduler:\n  # nothing yet\n")
    environ = {
        "VLINDERS_PEPPER": "[s3cret",
        "VLINDERS_PORT": "tcp://10.0.0.1:8000",
        "VLINDERS_CONFIG": str(path),
    }
    assert load_settings(environ) == Settings()
    assert load_settings({**environ, "VLINDERS_SCHEDULER__BODY_PRIORITY": "vllm"}) != Settings()


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"VLINDERS_ON_DRIFT": "x", "VLINDERS_LOGGING__LEVEL": "y"})
    assert "patches.on_drift" in str(caught.value)
    assert "logging.level" in str(caught.value)
