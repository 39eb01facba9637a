"""The dynamic proof: a release's own tests, with the patches and without, then ours on its server."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.version import Version

from vllm_vlinders import __version__
from vllm_vlinders.compat.pytest_runs import Outcomes, PytestRun, start_pytest
from vllm_vlinders.compat.runs import OURS, Run, Suite, all_must_pass, compare, run_again
from vllm_vlinders.compat.workshop import Runnable, Workshop
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.discover import discover

SHORT = (
    "v1/core/test_scheduler.py",
    "v1/core/test_async_scheduler.py",
    "v1/core/test_priority_preemption_bug.py",
    "v1/core/test_single_type_kv_cache_manager.py",
    "v1/engine/test_output_processor.py",
    "v1/engine/test_input_processor_trace_replay.py",
    "entrypoints/openai/chat_completion/test_chat_error.py",
    "entrypoints/openai/completion/test_completion_error.py",
)
"""vLLM's own tests of what the patches touch, under its folder ``tests``; not every release has each."""
LONG = (
    "v1/core/test_prefix_caching.py",
    "v1/core/test_priority_scheduler_random.py",
    "entrypoints/openai/chat_completion/test_serving_chat.py",
)
"""More of them, which take minutes."""

_PLUGIN = "vllm_vlinders.compat.pytest_plugin"
_USABLE = "not GPTOSS and not WithHarmony"
"""Without those that need the real files of a model with 20 billion parameters."""

Tell = Callable[[str], None]


class Prover:
    """Runs tests on releases.

    Args:
        workshop: where releases are prepared.
        patches: what to run with, as ``VLLM_CUSTOM_PATCHES`` names it.
        tell: is told of each step.
    """

    def __init__(self, workshop: Workshop, patches: str, tell: Tell) -> None:
        self._workshop = workshop
        self._patches = patches
        self._tell = tell

    def prove(self, version: Version, own: Sequence[str], ours: Sequence[str]) -> Run:
        """Run the tests of a release and return what came of them.

        Args:
            version: the release.
            own: which files of vLLM's own tests, of `SHORT` and `LONG`.
            ours: which tests of this project, of `OURS`.

        Raises:
            CompatError: the release or its tests cannot be had, or pytest cannot run.
        """
        runnable = self._prepare(version)
        suites = self._own(runnable, own) if own else []
        suites += [self._ours(runnable, name) for name in ours]
        return self._run(runnable, suites)

    def prove_again(self, earlier: Run) -> Run:
        """Run those of our tests anew that did not pass in an earlier run, and return these sets of tests.

        Raises:
            CompatError: there are none, or pytest cannot run.
        """
        mended = [suite for suite in earlier.suites if suite.name in OURS and suite.broken]
        if not mended:
            raise CompatError(f"vLLM {earlier.release}: none of our tests is on record that did not pass")
        runnable = self._prepare(Version(earlier.release))
        suites = []
        for suite in mended:
            tests = [_node(name) for name in suite.broken]
            suites.append(run_again(suite, self._run_ours(runnable, f"{suite.name}-again", tests)))
        return self._run(runnable, [self._told(runnable, suite) for suite in suites])

    def _prepare(self, version: Version) -> Runnable:
        self._workshop.check()
        self._tell(f"vLLM {version}: preparing")
        return self._workshop.runnable(version)

    def _run(self, runnable: Runnable, suites: list[Suite]) -> Run:
        version = runnable.version
        return Run(
            release=version.public,
            build=runnable.build,
            hybrid=runnable.hybrid,
            python=platform.python_version(),
            vlinders=__version__,
            patches=[patch.name for patch in discover(self._patches) if patch.target_for(version)],
            suites=suites,
        )

    def _own(self, runnable: Runnable, files: Sequence[str]) -> list[Suite]:
        folder = self._workshop.own_tests(runnable.version)
        there = [file for file in files if (folder / "tests" / file).is_file()]
        if not there:
            raise CompatError(f"vLLM {runnable.version} has none of the tests of its own that were asked for")
        # Both at the same time: on two cores that takes half as long.
        with (
            self._start(runnable, folder, there, "") as stock_run,
            self._start(runnable, folder, there, self._patches) as patched_run,
        ):
            stock, patched = stock_run.outcomes(), patched_run.outcomes()
        return [
            self._told(runnable, compare(file, stock.of(f"tests/{file}"), patched.of(f"tests/{file}")))
            for file in there
        ]

    def _start(self, runnable: Runnable, folder: Path, files: Sequence[str], patches: str) -> PytestRun:
        kind = "patched" if patches else "stock"
        variables = self._workshop.variables(runnable, patches)
        variables |= {
            "PYTHONPATH": os.pathsep.join([variables["PYTHONPATH"], str(folder / "site")]),
            "HF_HUB_CACHE": str(folder / "hub"),
            "OMP_NUM_THREADS": "1",
            "VLINDERS_SCHEDULER__BODY_PRIORITY": "vllm",  # the scale that they speak
        }
        return start_pytest(
            f"vLLM {runnable.version}, its own tests, {kind}",
            ["-W", "ignore", "-p", _PLUGIN, "-k", _USABLE, *(f"tests/{file}" for file in files)],
            cwd=folder,
            variables=variables,
            report=folder / "reports" / f"{kind}.xml",
        )

    def _ours(self, runnable: Runnable, name: str) -> Suite:
        return self._told(runnable, all_must_pass(name, self._run_ours(runnable, name, OURS[name])))

    def _run_ours(self, runnable: Runnable, name: str, tests: Sequence[str]) -> Outcomes:
        with start_pytest(
            f"vLLM {runnable.version}, {name}",
            tests,
            cwd=self._workshop.project,
            variables=self._workshop.variables(runnable, ""),
            report=self._workshop.project / ".upstream" / "reports" / f"{runnable.version}.{name}.xml",
        ) as run:
            return run.outcomes()

    def _told(self, runnable: Runnable, suite: Suite) -> Suite:
        self._tell(f"vLLM {runnable.version}: {suite.name}: {suite.passed} of {suite.total}")
        for test in suite.broken:
            self._tell(f"  should pass and does not: {test}")
        return suite


def _node(name: str) -> str:
    """Return how pytest wants to be asked for a test function that a report names ``folder.module::function``."""
    module, _, function = name.partition("::")
    return f"{module.replace('.', '/')}.py::{function}"
