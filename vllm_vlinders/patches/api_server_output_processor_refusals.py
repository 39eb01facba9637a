"""Tell the request pipeline which requests the engine core has turned away."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.refusal import as_error
from vllm_vlinders.serving.refusals import refuse


class OutputProcessorRefusals(VLLMPatch):
    """Wraps ``process_outputs``, through which all outputs pass before their requests see them."""

    name = "api_server_output_processor_refusals"
    target = "vllm.v1.engine.output_processor:OutputProcessor"
    feature = "priority"
    process = "api_server"
    versions = VERSIONS
    why = (
        "A request that was turned away is answered with 503 or 429 and Retry-After. vLLM turns an error "
        "of the engine core into 500, or into an event of a stream that has begun with 200."
    )
    upstream = "none: refusals by plugins are not known to vLLM"
    remove_when = "vLLM maps an output's error to an HTTP status that a plugin can choose"
    relies_on = ("vllm.v1.engine.output_processor:RequestState.__init__",)
    fingerprints = FINGERPRINTS

    def process_outputs(self: Any, engine_core_outputs: Any, *args: Any, **options: Any) -> Any:
        """Note the refusals, then process all as vLLM does: for it, those requests ended with an error."""
        for output in engine_core_outputs:
            if output.finish_reason is not None and (error := as_error(output.stop_reason)):
                state = self.request_states.get(output.request_id)
                parent = state and state.parent_req
                refuse(parent.request_id if parent else output.request_id, error)
        return OutputProcessorRefusals.original.process_outputs(self, engine_core_outputs, *args, **options)
