"""
What KEDA makes of a ScaledObject: which fields it knows, and the number that it scales by.

Both after its version 2.20: the CustomResourceDefinition ``scaledobjects.keda.sh``, as far as it is used here, and its
redis scaler, which asks for the length of a list, or of a hash, and takes what is not there for empty. The scaler
redis-sentinel asks the same, of the master that the sentinels name.
"""

from __future__ import annotations

from typing import Any

import redis

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}


def _fields(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


SCALED_OBJECT = _fields(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=_fields(["name"], name=_TEXT, kind=_TEXT, apiVersion=_TEXT, envSourceContainerName=_TEXT),
    pollingInterval={"type": "integer", "minimum": 1},
    cooldownPeriod=_COUNT,
    minReplicaCount=_COUNT,
    maxReplicaCount={"type": "integer", "minimum": 1},
    fallback=_fields(
        ["failureThreshold", "replicas"],
        failureThreshold=_COUNT,
        replicas=_COUNT,
        behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
    ),
    advanced=_fields(
        [],
        scalingModifiers=_fields(
            ["formula", "target"],
            formula=_TEXT,
            target=_TEXT,
            activationTarget=_TEXT,
            metricType={"enum": ["AverageValue", "Value"]},
        ),
        # The behavior is autoscaling/v2's own, whose schema Kubernetes publishes.
        horizontalPodAutoscalerConfig=_fields([], name=_TEXT, behavior={"type": "object"}),
    ),
    triggers={
        "type": "array",
        "minItems": 1,
        "items": _fields(
            ["type", "metadata"],
            type={"enum": ["redis", "redis-sentinel"]},
            name=_TEXT,
            # Every value is text: a number without quotes is refused.
            metadata=_fields(
                ["listName"],
                listName=_TEXT,
                listLength={"type": "string", "pattern": "^[0-9]+$"},
                activationListLength={"type": "string", "pattern": "^[0-9]+$"},
                databaseIndex={"type": "string", "pattern": "^[0-9]+$"},
                enableTLS={"enum": ["true", "false"]},
            ),
            authenticationRef=_fields(
                ["name"], name=_TEXT, kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}
            ),
        ),
    },
)

TRIGGER_AUTHENTICATION = _fields(
    ["secretTargetRef"],
    secretTargetRef={
        "type": "array",
        "minItems": 1,
        "items": _fields(
            ["parameter", "name", "key"],
            # What the scalers redis and redis-sentinel take from there, of what is used.
            parameter={
                "enum": [
                    "address",
                    "addresses",
                    "username",
                    "password",
                    "sentinelMaster",
                    "sentinelPassword",
                    "tls",
                ]
            },
            name=_TEXT,
            key=_TEXT,
        ),
    },
)


def measured(client: redis.Redis, spec: dict[str, Any]) -> int:
    """Return the number that KEDA would scale by: the formula of what its triggers find in Redis."""
    found = {}
    for trigger in spec["triggers"]:
        key = trigger["metadata"]["listName"]
        kind: Any = client.type(key)
        sizes = {"none": lambda _: 0, "list": client.llen, "hash": client.hlen}
        found[trigger["name"]] = int(sizes[kind](key))
    # Nothing but a sum is used.
    return sum(found[name] for name in spec["advanced"]["scalingModifiers"]["formula"].split(" + "))
