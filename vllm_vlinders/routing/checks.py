"""What the settings of the router must agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings import ModelSettings, RoutingSettings


def with_default(settings: RoutingSettings, served: Sequence[str]) -> dict[str, ModelSettings]:
    """Return the models of the settings, the default first; where there are none, those that are served.

    Raises:
        SettingsError: there is no model, or the default is none of them.
    """
    known = dict(settings.models) or {name: ModelSettings() for name in served}
    default = settings.default
    if default is None:
        default = next((name for name in served if name in known), next(iter(known), None))
    elif default not in known and default in served:
        known[default] = ModelSettings()
    if default is None:
        raise SettingsError("routing.models: name at least one model")
    if default not in known:
        raise SettingsError(f"routing.default: there is no model {default!r}; there are {', '.join(known)}")
    return {default: known[default], **known}


def check_names(settings: RoutingSettings, known: Mapping[str, ModelSettings], served: Sequence[str]) -> None:
    """Check that each name is that of one thing, and that what is named exists.

    Args:
        settings: the section.
        known: the models that may answer.
        served: what this server serves itself; empty where there is no server.

    Raises:
        SettingsError: it is not so; the message begins with the key.
    """
    taken = {*known, *served}
    for place, name in enumerate(settings.auto_names):
        if name in taken or name in settings.auto_names[:place]:
            what = "the name of a model, too" if name in taken else "named twice"
            raise SettingsError(f"routing.auto_names.{place}: {name!r} is {what}")
    for name, model in known.items():
        if model.upstream is not None and name in served:
            raise SettingsError(f"routing.models.{name}.upstream: this server serves {name!r} itself")
        if model.upstream is None and served and name not in served:
            raise SettingsError(
                f"routing.models.{name}: this server serves no such model, and it has no upstream; "
                f"served are {', '.join(served)}"
            )
        for place, other in enumerate(model.fallback):
            if other not in known or other == name:
                raise SettingsError(
                    f"routing.models.{name}.fallback.{place}: {other!r} is not another model; "
                    f"there are {', '.join(known)}"
                )
