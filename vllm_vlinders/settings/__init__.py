"""All settings: one tree of pydantic models, read from a YAML file and the environment.

``VLINDERS_CONFIG`` names the file; ``VLINDERS_SECTION__KEY`` overrides one key and is read as YAML.
``VLINDERS_ON_DRIFT`` is short for ``VLINDERS_PATCHES__ON_DRIFT``. No setting is required.
"""

from vllm_vlinders.settings.auth import (
    BUILT_IN_ROLES,
    AuditSettings,
    AuthSettings,
    BruteForceSettings,
    JwtSettings,
    KeySettings,
    RolePriority,
    RoleSettings,
)
from vllm_vlinders.settings.encoder import EncoderSettings
from vllm_vlinders.settings.load import active_settings, load_settings
from vllm_vlinders.settings.logging import LoggingSettings, LogLevel
from vllm_vlinders.settings.metrics import MetricsSettings
from vllm_vlinders.settings.quotas import LimitSettings, PriceSettings, QuotaSettings
from vllm_vlinders.settings.routing import (
    ModelSettings,
    PolicySettings,
    RequirementSettings,
    RouteSettings,
    RoutingSettings,
    TokenCost,
)
from vllm_vlinders.settings.scheduler import (
    POLICY_NAMES,
    BandName,
    LocalitySettings,
    PreemptionSettings,
    SchedulerSettings,
    TenantSettings,
)
from vllm_vlinders.settings.secret import reveal
from vllm_vlinders.settings.sessions import SessionSettings
from vllm_vlinders.settings.tracing import TracingSettings
from vllm_vlinders.settings.tree import PatchSettings, Settings
from vllm_vlinders.settings.upstream import UpstreamSettings
from vllm_vlinders.settings.usage import UsageSettings, state_folder

__all__ = [
    "BUILT_IN_ROLES",
    "POLICY_NAMES",
    "AuditSettings",
    "AuthSettings",
    "BandName",
    "BruteForceSettings",
    "EncoderSettings",
    "JwtSettings",
    "KeySettings",
    "LimitSettings",
    "LocalitySettings",
    "LogLevel",
    "LoggingSettings",
    "MetricsSettings",
    "ModelSettings",
    "PatchSettings",
    "PolicySettings",
    "PreemptionSettings",
    "PriceSettings",
    "QuotaSettings",
    "RequirementSettings",
    "RolePriority",
    "RoleSettings",
    "RouteSettings",
    "RoutingSettings",
    "SchedulerSettings",
    "SessionSettings",
    "Settings",
    "TenantSettings",
    "TokenCost",
    "TracingSettings",
    "UpstreamSettings",
    "UsageSettings",
    "active_settings",
    "load_settings",
    "reveal",
    "state_folder",
]
