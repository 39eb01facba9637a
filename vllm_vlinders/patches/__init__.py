"""What is patched, never how: one file per vLLM target, named ``<process>_<target>_<effect>.py``.

`PATCHES` is the whole list, in the order a request meets them.
"""

from vllm_vlinders.patches.api_server_app_pipeline import AppPipeline
from vllm_vlinders.patches.api_server_async_llm_drain import AsyncLLMDrain
from vllm_vlinders.patches.api_server_async_llm_priority import AsyncLLMPriority
from vllm_vlinders.patches.api_server_core_client_rank import CoreClientRank
from vllm_vlinders.patches.api_server_input_processor_door import InputProcessorDoor
from vllm_vlinders.patches.api_server_input_processor_session import InputProcessorSession
from vllm_vlinders.patches.api_server_input_processor_tags import InputProcessorTags
from vllm_vlinders.patches.api_server_llm_engine_priority import LLMEnginePriority
from vllm_vlinders.patches.api_server_models_list import ModelsList
from vllm_vlinders.patches.api_server_output_processor_meter import OutputProcessorMeter
from vllm_vlinders.patches.api_server_output_processor_refusals import OutputProcessorRefusals
from vllm_vlinders.patches.api_server_render_pipeline import RenderPipeline
from vllm_vlinders.patches.api_server_serving_model_right import ServingModelRight
from vllm_vlinders.patches.api_server_serving_priority import ServingPriority
from vllm_vlinders.patches.engine_core_kv_cache_manager_retention import KVCacheManagerRetention
from vllm_vlinders.patches.engine_core_scheduler_account import SchedulerAccount
from vllm_vlinders.patches.engine_core_scheduler_queue import SchedulerQueue
from vllm_vlinders.patches.engine_core_scheduler_refusal import SchedulerRefusal
from vllm_vlinders.patches.engine_core_scheduler_session import SchedulerSession
from vllm_vlinders.patches.engine_core_scheduler_skipped import SchedulerSkipped
from vllm_vlinders.patches.engine_core_scheduler_victim import SchedulerVictim

PATCHES = (
    AppPipeline,
    RenderPipeline,
    ServingModelRight,
    ModelsList,
    ServingPriority,
    AsyncLLMPriority,
    LLMEnginePriority,
    InputProcessorTags,
    InputProcessorSession,
    InputProcessorDoor,
    CoreClientRank,
    SchedulerQueue,
    SchedulerSkipped,
    SchedulerVictim,
    SchedulerAccount,
    SchedulerRefusal,
    SchedulerSession,
    KVCacheManagerRetention,
    OutputProcessorRefusals,
    OutputProcessorMeter,
    AsyncLLMDrain,
)
