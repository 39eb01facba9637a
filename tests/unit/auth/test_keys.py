"""Keys from their making to their end, in every kind of store."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from guarded_site import PEPPER, bearer
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_vlinders.auth import poller
from vllm_vlinders.auth.audit import Audit
from vllm_vlinders.auth.directory import KeyDirectory
from vllm_vlinders.auth.key_office import KeyOffice
from vllm_vlinders.auth.keys import KeyIndex, Pepper, make_key, redact
from vllm_vlinders.auth.moments import LATEST, describe
from vllm_vlinders.auth.poller import Poller
from vllm_vlinders.auth.store import open_store
from vllm_vlinders.cli import main
from vllm_vlinders.errors import CredentialError, KeyRequestError, StoreError
from vllm_vlinders.settings import AuditSettings, AuthSettings, KeySettings, active_settings

NOW = 1_800_000_000.0


def office(store: Any, now: float = NOW, path: Path | None = None) -> KeyOffice:
    audit = Audit(AuditSettings(path=path, enabled=path is not None))
    return KeyOffice(store, Pepper(PEPPER), AuthSettings(), audit, actor="test", clock=lambda: now)


def index_of(store: Any) -> KeyIndex:
    index = KeyIndex(Pepper(PEPPER))
    for record in store.all():
        index.put(record)
    return index


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db?timeout=60"
    base = request.getfixturevalue("postgresql")
    import psycopg

    name = f"test_{tmp_path.name.lower().replace('-', '_')[:40]}_{time.time_ns()}"
    with psycopg.connect(base.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{base.rpartition('/')[0]}/{name}"


def opened(url: str) -> Any:
    return open_store(KeySettings(store=url, pepper="env:X"))


def test_a_key_lives_and_ends(url: str) -> None:
    store = opened(url)
    new = office(store).create(tenant="acme", role="user", expires=NOW + 100, not_before=NOW + 10)
    for moment, reason in (
        (NOW, "not_yet_valid"),
        (NOW + 10, None),
        (NOW + 99, None),
        (NOW + 100, "expired"),
    ):
        if reason is None:
            assert index_of(store).authenticate(new.key, moment).tenant == "acme"
            continue
        with pytest.raises(CredentialError, match=reason):
            index_of(store).authenticate(new.key, moment)
    office(store).revoke(new.record.id)
    with pytest.raises(CredentialError, match="revoked"):
        index_of(store).authenticate(new.key, NOW + 50)
    store.close()


def test_a_rotated_key_keeps_its_principal_and_the_old_one_ends(url: str) -> None:
    store = opened(url)
    old = office(store).create(tenant="acme", role="user", principal="bot")
    new = office(store).rotate(old.record.id, overlap=60)
    index = index_of(store)
    assert index.authenticate(new.key, NOW).name == index.authenticate(old.key, NOW + 59).name == "bot"
    with pytest.raises(CredentialError, match="expired"):
        index.authenticate(old.key, NOW + 60)
    assert index.authenticate(new.key, NOW + 10**9).name == "bot"
    with pytest.raises(KeyRequestError, match="is expired; create a new one"):
        office(store, NOW + 60).rotate(old.record.id)
    store.close()


def test_a_key_that_is_revoked_while_it_is_rotated_has_no_successor(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(url)
    read_before = office(store).create(tenant="acme", role="user").record
    office(store).revoke(read_before.id)
    monkeypatch.setattr(store, "get", lambda _key_id: read_before)
    with pytest.raises(KeyRequestError, match=f"key {read_before.id} has been revoked; create a new one"):
        office(store, NOW + 1).rotate(read_before.id)
    (left,) = store.all()
    assert left == replace(read_before, revoked=NOW)
    store.close()


def test_the_end_of_a_key_comes_nearer_and_never_moves_away(url: str) -> None:
    store = opened(url)
    read_before = office(store).create(tenant="acme", role="user", expires=NOW + 100).record
    office(store).revoke(read_before.id)
    for expires, revoked, kept in (
        (NOW + 100, None, (NOW + 100, NOW)),
        (NOW + 200, NOW + 50, (NOW + 100, NOW)),
        (None, None, (NOW + 100, NOW)),
        (NOW + 60, NOW - 5, (NOW + 60, NOW - 5)),
    ):
        store.put(replace(read_before, expires=expires, revoked=revoked))
        record = store.get(read_before.id)
        assert (record.expires, record.revoked) == kept
    store.close()


def test_every_change_is_seen_once_by_others(url: str) -> None:
    """Many writers at once; a reader that asks for what is new misses none."""
    stores = [opened(url) for _ in range(4)]
    seen: dict[str, Any] = {}
    upto, done = 0, threading.Event()

    def write(store: Any) -> None:
        for _ in range(8):
            office(store).revoke(office(store).create(tenant="acme", role="user").record.id)

    writers = [threading.Thread(target=write, args=(store,)) for store in stores]
    for writer in writers:
        writer.start()
    reader = opened(url)
    while not done.is_set():
        if not any(writer.is_alive() for writer in writers):
            done.set()
        changes = reader.changes(upto)
        upto = changes.upto
        seen |= {record.id: record for record in changes.records}
    assert len(seen) == 32
    assert all(record.revoked for record in seen.values())
    assert reader.changes(upto).records == []
    for store in (*stores, reader):
        store.close()


def test_several_processes_may_open_a_new_store_at_once(url: str) -> None:
    opened_stores: list[Any] = []
    threads = [threading.Thread(target=lambda: opened_stores.append(opened(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened_stores) == 6
    for store in opened_stores:
        assert list(store.all()) == []
        store.close()


def test_last_uses_are_noted_and_are_no_change(url: str) -> None:
    store = opened(url)
    new = office(store).create(tenant="acme", role="user")
    directory = KeyDirectory(opened(url), Pepper(PEPPER), 1)
    upto = store.changes(0).upto
    directory.index.authenticate(new.key, NOW + 5)
    directory.start()
    directory.stop()
    assert store.get(new.record.id).last_used == NOW + 5
    assert store.changes(upto).records == []
    store.close()


def test_revocation_takes_effect_and_outlives_an_outage(url: str) -> None:
    store = opened(url)
    new = office(store).create(tenant="acme", role="user")
    problems: list[Any] = []
    directory = KeyDirectory(opened(url), Pepper(PEPPER), 1, problems.append)
    directory.start()
    assert directory.index.authenticate(new.key, NOW)
    office(store).revoke(new.record.id)
    deadline = time.monotonic() + 60
    while directory.index.records[new.record.id].revoked is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    directory.store.changes = lambda _since: (_ for _ in ()).throw(StoreError("gone"))  # type: ignore[method-assign]
    directory.refresh()
    assert directory.problem == "gone"
    assert problems == ["gone"]
    with pytest.raises(CredentialError, match="revoked"):
        directory.index.authenticate(new.key, NOW)
    store.close()


def test_what_is_stored_does_not_help_a_thief(url: str) -> None:
    store = opened(url)
    new = office(store).create(tenant="acme", role="admin")
    stolen = KeyIndex(Pepper("some other pepper"))
    stolen.put(store.get(new.record.id))
    assert new.key.rpartition("_")[2] not in repr(store.get(new.record.id))
    with pytest.raises(CredentialError, match="wrong"):
        stolen.authenticate(new.key, NOW)
    store.close()


def test_a_restored_older_store_is_taken_over_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    store = opened(url)
    kept = office(store).create(tenant="acme", role="user")
    shutil.copy(tmp_path / "keys.db", tmp_path / "backup.db")
    lost = office(store).create(tenant="acme", role="user")
    directory = KeyDirectory(store, Pepper(PEPPER), 1)
    assert lost.record.id in directory.index.records
    shutil.copy(tmp_path / "backup.db", tmp_path / "keys.db")
    directory.refresh()
    assert set(directory.index.records) == {kept.record.id}


def test_a_file_in_the_place_of_another_is_taken_over_whole(tmp_path: Path) -> None:
    """Although its counter stands where the other's stood."""
    url, copy = f"sqlite:///{tmp_path}/keys.db", f"sqlite:///{tmp_path}/copy.db"
    store = opened(url)
    kept = office(store).create(tenant="acme", role="user")
    shutil.copy(tmp_path / "keys.db", tmp_path / "copy.db")
    directory = KeyDirectory(store, Pepper(PEPPER), 1)
    lost = office(store).create(tenant="acme", role="user")
    directory.refresh()
    assert set(directory.index.records) == {kept.record.id, lost.record.id}
    found = office(opened(copy)).create(tenant="acme", role="user")
    (tmp_path / "copy.db").replace(tmp_path / "keys.db")
    directory.refresh()
    assert set(directory.index.records) == {kept.record.id, found.record.id}


def test_a_file_that_is_gone_is_told_and_not_made_anew(tmp_path: Path) -> None:
    path, away = tmp_path / "keys.db", tmp_path / "away.db"
    directory = KeyDirectory(opened(f"sqlite:///{path}"), Pepper(PEPPER), 1)
    new = office(directory.store).create(tenant="acme", role="user")
    directory.refresh()
    path.rename(away)
    directory.refresh()
    gone = f"the key store {path} cannot be opened: No such file or directory"
    assert directory.status()["store"] == gone
    with pytest.raises(StoreError):
        office(directory.store).create(tenant="acme", role="user")
    assert not path.exists()
    assert directory.index.authenticate(new.key, NOW)
    away.rename(path)
    directory.refresh()
    assert directory.status()["store"] == "ok"


def test_after_a_problem_everything_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = KeyDirectory(opened(f"sqlite:///{tmp_path}/keys.db"), Pepper(PEPPER), 1)
    office(directory.store).create(tenant="acme", role="user")
    directory.refresh()
    asked, changes = [], directory.store.changes

    def fail_once(since: int) -> Any:
        asked.append(since)
        if len(asked) == 1:
            raise StoreError("gone")
        return changes(since)

    monkeypatch.setattr(directory.store, "changes", fail_once)
    for _ in range(3):
        directory.refresh()
    assert asked == [1, 0, 1]


def test_a_store_that_says_nothing_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "_LONGEST_STOP_SECONDS", 0.01)
    directory = KeyDirectory(opened(f"sqlite:///{tmp_path}/keys.db"), Pepper(PEPPER), 0.1)
    asked, released = threading.Event(), threading.Event()

    def hang(_since: int) -> Any:
        asked.set()
        released.wait()
        raise StoreError("gone")

    monkeypatch.setattr(directory.store, "changes", hang)
    directory.start()
    assert asked.wait(60)
    directory._refreshed -= 12
    assert re.match(r"the key store has not answered for \d+ seconds", directory.status()["store"])
    stopping = threading.Thread(target=directory.stop, daemon=True)
    stopping.start()
    stopping.join(60)
    assert not stopping.is_alive()
    released.set()
    directory._poller._thread.join()


def test_a_poller_outlives_what_its_action_raises() -> None:
    calls, again = [], threading.Event()

    def fail() -> None:
        calls.append(1)
        if len(calls) > 1:
            again.set()
        raise RuntimeError("as nobody expected")

    polling = Poller("test", 0.001, fail)
    polling.start()
    assert again.wait(60)
    polling.stop()


def test_all_keys_are_shown_while_others_come() -> None:
    index = KeyIndex(Pepper(PEPPER))

    class Known:
        @property
        def record(self) -> Any:
            index.put(office(None).make(tenant="acme", role="user").record)
            return None

    index._known = {"one": Known(), "two": Known()}  # type: ignore[dict-item]
    assert set(index.records) == {"one", "two"}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"tenant": "a b"}, "tenant: 'a b' is not allowed"),
        ({"tenant": "x" * 65}, "tenant"),
        ({"tenant": "a\n"}, "tenant"),
        ({"role": "root"}, "role: 'root' is not known; allowed are admin, metrics, readonly, user"),
        ({"expires": NOW - 1}, "expires"),
        ({"expires": float("nan")}, "expires"),
        ({"expires": LATEST}, "expires: give a moment of the years 1970 to 9998"),
        ({"not_before": -1}, "not_before: give a moment of the years 1970 to 9998"),
        ({"label": "x" * 201}, "label"),
        ({"label": "half \ud800"}, "label: give a text without NUL and without lone surrogates"),
        ({"label": "nothing \0"}, "label: give a text without NUL and without lone surrogates"),
        ({"tenant": "\ud800"}, "tenant"),
        ({"role": "\ud800"}, "role"),
        ({"principal": ""}, "principal"),
        ({"principal": "jwt:someone"}, "principal"),
    ],
)
def test_a_key_that_cannot_be_is_refused(wish: Any, expected: str, tmp_path: Path) -> None:
    store = opened(f"sqlite:///{tmp_path}/keys.db")
    with pytest.raises(KeyRequestError) as caught:
        office(store).create(**{"tenant": "acme", "role": "user", **wish})
    assert str(caught.value).startswith(expected)
    assert list(store.all()) == []


def test_a_yaml_file_is_read_again_when_it_changes_and_never_written(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    new = office(None).make(tenant="acme", role="user")
    entry = {"id": new.record.id, "digest": new.record.digest, "tenant": "acme", "role": "user"}
    path.write_text(yaml.safe_dump({"keys": [entry]}))
    directory = KeyDirectory(opened(f"yaml:///{path}"), Pepper(PEPPER), 1)
    assert directory.index.authenticate(new.key, NOW).name == new.record.id
    with pytest.raises(KeyRequestError, match="read-only"):
        office(directory.store).create(tenant="acme", role="user")
    path.write_text("keys: [{id: nonsense}]")
    directory.refresh()
    assert "keys.0.id" in str(directory.problem)
    assert directory.index.authenticate(new.key, NOW)
    path.write_text("keys: []")
    directory.refresh()
    assert directory.problem is None
    with pytest.raises(CredentialError, match="unknown"):
        directory.index.authenticate(new.key, NOW)


@pytest.mark.parametrize("key_id", ["\ud800", "\0", "", "0" * 13])
def test_what_is_no_id_is_no_key(key_id: str, url: str) -> None:
    store = opened(url)
    with pytest.raises(KeyRequestError, match="there is no key with the id"):
        office(store).revoke(key_id)
    store.close()


@pytest.mark.parametrize("overlap", [-1, float("nan"), float("inf"), LATEST])
def test_an_overlap_ends_in_a_year_that_can_be_written(overlap: float, tmp_path: Path) -> None:
    store = opened(f"sqlite:///{tmp_path}/keys.db")
    old = office(store).create(tenant="acme", role="user").record
    with pytest.raises(KeyRequestError, match="overlap"):
        office(store).rotate(old.id, overlap)
    assert list(store.all()) == [old]


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), -1e300, 1e300, LATEST * 2])
def test_what_cannot_be_written_as_a_moment_is_shown_as_it_is(moment: float) -> None:
    record = replace(office(None).make(tenant="acme", role="user").record, expires=moment)
    assert describe(record, NOW)["expires"] == str(moment)


@pytest.mark.parametrize("moment", [".nan", ".inf", "-1", str(LATEST)])
@pytest.mark.parametrize("field", ["created", "not_before", "expires", "revoked"])
def test_an_entry_has_moments_that_can_be_written(field: str, moment: str, tmp_path: Path) -> None:
    record = office(None).make(tenant="acme", role="user").record
    path = tmp_path / "keys.yaml"
    whose = f"id: '{record.id}', digest: '{record.digest}', tenant: acme, role: user"
    path.write_text(f"keys: [{{{whose}, {field}: {moment}}}]")
    with pytest.raises(StoreError, match=rf"keys.0.{field}"):
        opened(f"yaml:///{path}")


@pytest.mark.parametrize(
    "url", ["sqlite:////proc/nowhere/keys.db", "yaml:////no/file", "postgresql+psycopg://u@127.0.0.1:1/x"]
)
def test_a_store_that_cannot_be_opened_is_told(url: str) -> None:
    with pytest.raises(StoreError, match="the key store"):
        opened(url)


@settings(deadline=None)
@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
def test_no_text_is_a_key_by_chance(text: str) -> None:
    index = KeyIndex(Pepper(PEPPER))
    index.put(office(None).make(tenant="acme", role="user").record)
    with pytest.raises(CredentialError):
        index.authenticate(text, NOW)


def test_secrets_are_taken_out_of_texts() -> None:
    key_id, key = make_key()
    assert redact(f"a {key} b {key[:40]}") == f"a vk_{key_id}_… b vk_{key_id}_…"


def test_keys_are_managed_over_http_and_every_change_is_audited(make_site: Any, tmp_path: Path) -> None:
    site = make_site()
    admin = bearer(site.key(role="admin", principal="boss"))
    wish = {"tenant": "acme", "role": "user", "label": "ci", "expires": "30d"}
    made = site.client.post("/vlinders/keys", json=wish, headers=admin)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    key, key_id = made.json()["key"], made.json()["id"]
    assert site.client.get("/v1/models", headers=bearer(key)).status_code == 200
    listed = site.client.get("/vlinders/keys?tenant=acme", headers=admin).json()["keys"]
    assert key_id in {entry["id"] for entry in listed}
    assert all("digest" not in entry and "key" not in entry for entry in listed)
    rotated = site.client.post(f"/vlinders/keys/{key_id}/rotate", json={"overlap": "0s"}, headers=admin)
    assert rotated.status_code == 201
    assert site.client.get("/v1/models", headers=bearer(key)).status_code == 401
    new = rotated.json()
    assert site.client.delete(f"/vlinders/keys/{new['id']}", headers=admin).json()["state"] == "revoked"
    assert site.client.get("/v1/models", headers=bearer(new["key"])).json()["error"]["code"] == "revoked"
    assert site.client.get("/vlinders/keys/000000000000", headers=admin).status_code == 404
    for bad in (
        {},
        {"tenant": "a"},
        {"tenant": 5, "role": "user"},
        {**wish, "x": 1},
        {**wish, "expires": "soon"},
        {**wish, "expires": "9999-12-31T23:59:59-14:00"},
        {**wish, "not_before": "1960-01-01"},
        {**wish, "label": "\ud800"},
    ):
        answer = site.client.post("/vlinders/keys", content=json.dumps(bad), headers=admin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value"), bad
    assert site.client.get("/vlinders/keys", headers=admin).status_code == 200
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    events = [(line["event"], line["actor"]) for line in lines if line["event"].startswith("key.")]
    assert events[1:] == [("key.created", "boss"), ("key.rotated", "boss"), ("key.revoked", "boss")]


def test_only_admins_manage(make_site: Any) -> None:
    site = make_site(roles={"all": {"endpoints": ["*"]}})
    for role in ("user", "readonly", "metrics", "all"):
        headers = bearer(site.key(role=role))
        for path in ("/vlinders/keys", "/vlinders/status", "/vlinders", "/vlinders/keys/"):
            assert site.client.get(path, headers=headers).status_code == 403, (role, path)
        assert site.client.post("/vlinders/keys", json={}, headers=headers).status_code == 403


def test_the_command_line_makes_the_first_key_before_any_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("VLINDERS_AUTH__KEYS__STORE", f"sqlite:///{tmp_path}/deep/er/keys.db")
    monkeypatch.setenv("VLINDERS_AUTH__KEYS__PEPPER", "env:TEST_PEPPER")
    monkeypatch.setenv("VLINDERS_AUTH__AUDIT__PATH", str(tmp_path / "audit.jsonl"))
    assert main(["keys", "create", "--tenant", "acme", "--role", "admin", "--json"]) == 1
    assert "env:TEST_PEPPER is empty or not set" in capsys.readouterr().err
    monkeypatch.setenv("TEST_PEPPER", PEPPER)
    assert main(["keys", "create", "--tenant", "acme", "--role", "admin", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (tmp_path / "deep/er/keys.db").stat().st_mode & 0o777 == 0o600
    store = opened(f"sqlite:///{tmp_path}/deep/er/keys.db")
    assert index_of(store).authenticate(made["key"], time.time()).role == "admin"
    assert main(["keys", "rotate", made["id"], "--overlap", "0s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["principal"] == made["id"]
    assert main(["keys", "list", "--json"]) == 0
    states = {key["id"]: key["state"] for key in json.loads(capsys.readouterr().out)["keys"]}
    assert states[made["id"]] == "expired"
    assert main(["keys", "revoke", "000000000000"]) == 1
    assert "no key with the id" in capsys.readouterr().err
    assert main(["keys", "create", "--tenant", "acme", "--expires", "tomorrow"]) == 1
    assert made["key"] not in (tmp_path / "audit.jsonl").read_text()


def test_a_process_that_ends_badly_leaves_the_store_usable(tmp_path: Path) -> None:
    """Killed in the middle of a write, SQLite rolls back; the next process goes on."""
    url = f"sqlite:///{tmp_path}/keys.db"
    code = (
        "import os, signal, sqlalchemy as sa\n"
        "from vllm_vlinders.auth.store.sql import SqlStore, _next_change\n"
        f"store = SqlStore({url!r})\n"
        "with store._database.transaction(write=True) as connection:\n"
        "    _next_change(connection)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = opened(url)
    assert store.changes(0).upto == 0
    office(store).create(tenant="acme", role="user")
    assert store.changes(0).upto == 1


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    active_settings.cache_clear()
