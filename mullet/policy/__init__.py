"""The policy file at the door: YAML text -> Facility and wiring, or every problem with its line and column."""

from mullet.policy.automatic import problems_for_auto
from mullet.policy.difference import Change, diff
from mullet.policy.loaded import Derived, LoadedPolicy
from mullet.policy.loader import load_policy
from mullet.policy.problems import PolicyErrors, Problem
from mullet.policy.settings import json_schema
from mullet.policy.wiring import (
    ApiSpec,
    DeviceSpec,
    FeedSpec,
    FxRate,
    InfluxSpec,
    KnownNames,
    MqttSpec,
    OptionsSchema,
    RecordsSpec,
    Wiring,
)

__all__ = [
    "ApiSpec",
    "Change",
    "Derived",
    "DeviceSpec",
    "FeedSpec",
    "FxRate",
    "InfluxSpec",
    "KnownNames",
    "LoadedPolicy",
    "MqttSpec",
    "OptionsSchema",
    "PolicyErrors",
    "Problem",
    "RecordsSpec",
    "Wiring",
    "diff",
    "json_schema",
    "load_policy",
    "problems_for_auto",
]
