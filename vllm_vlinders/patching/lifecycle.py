"""The life of a patch, in order: discover, gate, fingerprint, wait for import, apply, report."""

from __future__ import annotations

import multiprocessing.util
import os
import sys
from typing import Any

from packaging.version import Version

from vllm_vlinders.errors import (
    ApplyError,
    DriftError,
    FrontEndError,
    StartupError,
    UnsupportedVersionError,
)
from vllm_vlinders.logs import make_logger
from vllm_vlinders.patching.apply import Application, apply, when_imported
from vllm_vlinders.patching.declare import contains
from vllm_vlinders.patching.discover import PatchClass, discover, selected_modules
from vllm_vlinders.patching.fingerprint import SourceTree, cache_folder
from vllm_vlinders.patching.front_end import check_front_end, check_not_main, exit_refusing
from vllm_vlinders.patching.gate import (
    Fit,
    Verdict,
    drift_policy,
    judge,
    running_vllm_version,
)
from vllm_vlinders.patching.report import (
    PatchReport,
    ProcessReport,
    State,
    ensure_run_dir,
    this_process,
)
from vllm_vlinders.settings import Settings, active_settings


class Lifecycle:
    """The patches of this process."""

    def __init__(self, selection: str, settings: Settings, version: Version) -> None:
        self.selection = selection
        self.settings = settings
        self.version = version
        self.log = make_logger(settings.logging)
        self.process: ProcessReport = this_process(str(version))
        self.applications: dict[str, Application] = {}
        self.source = SourceTree(cache=cache_folder())

    def start(self) -> None:
        """Judge every selected patch and arrange for its application.

        Raises:
            StartupError: the selection is wrong, or a required patch cannot do its work.
        """
        patches = discover(self.selection)
        check_supported(self.selection, self.version)
        check_front_end(patches)
        check_guard(patches, self.settings)
        for patch in patches:
            self._admit(patch, judge(patch, self.version, self.source))
        self.source.save()
        self.process.publish()

    def undo(self, name: str) -> bool:
        """Undo the patch `name`; return whether its target looks as before (False: wrapped by others).

        Raises:
            KeyError: no patch of that name is applied here.
        """
        clean = self.applications.pop(name).undo()
        report = next(report for report in self.process.patches if report.patch == name)
        report.state = State.OFF
        report.detail = "undone" if clean else "undone beneath the wrapper of another plugin"
        self._tell(report)
        return clean

    def mark_api_server(self) -> None:
        """Note that this process answers requests, and log what is not in use in it."""
        self.process.role = "api_server"
        for report in self.process.patches:
            if report.state is State.WAITING:
                report.detail = "its target is not imported in this process"
                self._log(report)
        self.process.publish()

    def after_fork(self) -> None:
        """In a forked child: report as the process it is; what was applied came along."""
        inherited = self.process.patches
        self.process = this_process(str(self.version))
        self.process.patches = inherited
        for report in inherited:
            self._tell(report)

    def _admit(self, patch: PatchClass, verdict: Verdict) -> None:
        place = patch.target_for(self.version)
        report = PatchReport(patch.name, patch.feature, patch.module(), place, patch.required, State.WAITING)
        self.process.patches.append(report)
        if verdict.fit is Fit.NOT_FOR_VERSION or place is None:
            report.state, report.detail = State(verdict.fit.value), verdict.detail
            self._refuse_if_required(patch, verdict)
        elif verdict.fit is Fit.DRIFTED and not self._accept_drift(patch, verdict):
            report.state, report.detail = State.DRIFTED, verdict.detail
        elif not self.process.acts_here(patch.process):
            report.state, report.detail = State.OTHER_PROCESS, f"acts in {patch.process}"
        else:
            self._arrange(patch, place, report, drift=verdict.detail)
            return
        self._log(report)

    def _arrange(self, patch: PatchClass, place: str, report: PatchReport, drift: str) -> None:
        late = place.partition(":")[0] in sys.modules
        note = f"drifted: {drift}" if drift else ""
        check_not_main(patch, place)

        def run() -> None:
            try:
                self._apply(patch, place, report, late=late, note=note)
            except ApplyError as error:
                exit_refusing(error)

        when_imported(place, run)

    def _apply(self, patch: PatchClass, place: str, report: PatchReport, *, late: bool, note: str) -> None:
        if patch.name in self.applications:
            return
        try:
            application = apply(patch, place, late=late)
        except Exception as error:
            report.state, report.detail = State.FAILED, str(error)
            self._tell(report)
            if patch.required:
                raise ApplyError(str(error)) from error
            return
        self.applications[patch.name] = application
        report.state = State.APPLIED
        report.detail = "; ".join(filter(None, [note, _found(application)]))
        self._tell(report)

    def _refuse_if_required(self, patch: PatchClass, verdict: Verdict) -> None:
        if patch.required and verdict.fit is Fit.NOT_FOR_VERSION:
            message = (
                f"required patch {patch.name} (feature {patch.feature} of {patch.module()}): "
                f"{verdict.detail}. Install a vLLM of that range, or select in VLLM_CUSTOM_PATCHES "
                "only what fits"
            )
            raise UnsupportedVersionError(message)

    def _accept_drift(self, patch: PatchClass, verdict: Verdict) -> bool:
        policy = drift_policy(
            self.settings.patches.on_drift, required=patch.required, guards_access=patch.guards_access
        )
        if policy == "refuse":
            skip = "starts without it" if not patch.guards_access else "does not: it guards access"
            message = (
                f"patch {patch.name} has drifted on vLLM {self.version}: {verdict.detail}. "
                "Allowed: the source it was written for. Install an unmodified vLLM of a recorded "
                f"release ({', '.join(patch.fingerprints) or 'none'}) or a newer {patch.module()}; "
                f"VLINDERS_ON_DRIFT=warn applies it all the same, VLINDERS_ON_DRIFT=skip {skip}"
            )
            raise DriftError(message)
        return policy == "warn"

    def _tell(self, report: PatchReport) -> None:
        self._log(report)
        self.process.publish()

    def _log(self, report: PatchReport) -> None:
        loud = report.state in (State.FAILED, State.DRIFTED) or "drifted" in report.detail
        write = self.log.warning if loud else self.log.info
        write(
            "patch",
            patch=report.patch,
            state=report.state.value,
            target=report.target,
            process=self.process.role,
            pid=self.process.pid,
            vllm=self.process.vllm,
            **({"detail": report.detail} if report.detail else {}),
        )


def _found(application: Application) -> str:
    notes = []
    if application.repaired:
        notes.append(f"copies repaired in {', '.join(application.repaired)}")
    if application.held_elsewhere:
        notes.append(f"the original is still held by: {', '.join(application.held_elsewhere)}")
    return "; ".join(notes)


def check_supported(selection: str, version: Version) -> None:
    """Check `version` against the ``SUPPORTED_VLLM`` of each selected module that states one.

    Raises:
        UnsupportedVersionError: the installed vLLM is outside it.
    """
    for module in selected_modules(selection):
        supported = getattr(module, "SUPPORTED_VLLM", "")
        if not contains(supported, version):
            message = (
                f"{module.__name__} supports vLLM {supported}, installed is {version}. Install a vLLM of "
                f"that range or a {module.__name__} that supports {version.public}"
            )
            raise UnsupportedVersionError(message)


def check_guard(patches: list[PatchClass], settings: Settings) -> None:
    """Refuse a selection without the guard that the settings ask for.

    Raises:
        FrontEndError: there is a section ``auth``, and no patch of that feature.
    """
    guarding = [patch for patch in patches if patch.feature == "auth" and patch.guards_access]
    if settings.auth is not None and not guarding:
        message = (
            "the settings have a section auth, and VLLM_CUSTOM_PATCHES selects no patch that guards access: "
            "the server would be open. Add vllm_vlinders, or vllm_vlinders:auth"
        )
        raise FrontEndError(message)


_current: Lifecycle | None = None


def mark_api_server() -> None:
    """Note that this process answers requests; see `Lifecycle.mark_api_server`."""
    if _current is not None:
        _current.mark_api_server()


def publish_facts(subject: str, facts: dict[str, Any]) -> None:
    """Show `facts`, JSON-serialisable, with the patches of this process in ``/vlinders/status``.

    It writes a small file: not for every step.
    """
    if _current is not None:
        _current.process.publish_facts(subject, facts)


def start(selection: str) -> Lifecycle:
    """Start the lifecycle of this process; a second call returns the first one's.

    Raises:
        StartupError: see `Lifecycle.start`.
    """
    global _current  # noqa: PLW0603 -- one per process, by nature
    if _current is not None:
        return _current
    settings = active_settings()
    version = running_vllm_version()
    _let_vllm_know_its_variable()
    ensure_run_dir()
    lifecycle = Lifecycle(selection, settings, version)
    lifecycle.start()
    _current = lifecycle
    multiprocessing.util.register_after_fork(lifecycle, Lifecycle.after_fork)
    return lifecycle


def start_or_exit(selection: str) -> None:
    """Start, or end the process with the reason as its message.

    Raises:
        SystemExit: with exit code 1.
    """
    try:
        start(selection)
    except StartupError as error:
        exit_refusing(error)


def _let_vllm_know_its_variable() -> None:
    """Register ``VLLM_CUSTOM_PATCHES``: vLLM warns of ``VLLM_*`` variables it does not know."""
    envs: Any = sys.modules.get("vllm.envs")
    if envs is not None:
        envs.environment_variables.setdefault(
            "VLLM_CUSTOM_PATCHES", lambda: os.environ.get("VLLM_CUSTOM_PATCHES")
        )
