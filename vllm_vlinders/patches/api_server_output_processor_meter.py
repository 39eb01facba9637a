"""Count the tokens that come out of the engine, for the quotas of who asked."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.door import meter_of


class OutputProcessorMeter(VLLMPatch):
    """Wraps ``process_outputs``, through which all outputs pass."""

    name = "api_server_output_processor_meter"
    target = "vllm.v1.engine.output_processor:OutputProcessor"
    feature = "auth"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = (
        "Reservations are settled with what was really generated, also where a client leaves in the middle "
        "or does not ask for usage in its stream. Stat loggers see sums, without requests."
    )
    upstream = "none: vLLM knows no quotas"
    remove_when = "vLLM tells a plugin the usage of each request, however it ended"
    relies_on = ("vllm.v1.engine.output_processor:RequestState.__init__", "vllm.v1.engine:EngineCoreOutput")
    fingerprints = FINGERPRINTS

    def process_outputs(self: Any, engine_core_outputs: Any, *args: Any, **options: Any) -> Any:
        """Count, then process all as vLLM does; what comes after the end of a request is not counted."""
        for output in engine_core_outputs:
            state = self.request_states.get(output.request_id)
            if state is not None:
                parent = state.parent_req
                meter = meter_of(output.request_id if parent is None else parent.request_id)
                if meter is not None:
                    meter.output += len(output.new_token_ids)
        return OutputProcessorMeter.original.process_outputs(self, engine_core_outputs, *args, **options)
